"""Lines of reports: wrapped to a terminal, each in one piece where a program reads them."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap

import typer

_NARROWEST = 40
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_LABEL = re.compile(r" +\S+(?: \d+)? {2,}")  # such as "  output      " or "  row 0       "


def say(line: str) -> None:
    """Prints one line; control characters in it, which a terminal would obey, are shown as escapes.

    A terminal gets it wrapped between words, its further lines below the text behind its label.
    """
    line = harmless(line)
    typer.echo(wrapped(line, shutil.get_terminal_size().columns) if sys.stdout.isatty() else line)


def harmless(text: str) -> str:
    """`text` with its control characters, but for line ends and tabs, as escapes."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def wrapped(line: str, columns: int) -> str:
    """`line` in pieces of at most `columns` characters; a word that is longer, such as an address, stays whole."""
    label = _LABEL.match(line)
    indent = len(label[0]) if label else len(line) - len(line.lstrip()) + 2
    if len(line) <= columns or columns < _NARROWEST or indent > columns // 2:
        return line
    first = label[0] if label else line[: indent - 2]
    return textwrap.fill(
        line[len(first) :],
        columns,
        initial_indent=first,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
