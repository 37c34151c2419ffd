"""Reports fit the terminal, and programs get each line in one piece."""

from __future__ import annotations

import io
import sys

import pytest

from unipic.jobs.terminal.lines import harmless, say, wrapped

NOTE = "  note        2 of 12 sampled prompts would be rejected, e.g. row 4 of prompts.csv: the prompt is too long"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_long_line_goes_on_below_the_text_behind_its_label() -> None:
    assert wrapped(NOTE, 60).split("\n") == [
        "  note        2 of 12 sampled prompts would be rejected,",
        "              e.g. row 4 of prompts.csv: the prompt is too",
        "              long",
    ]
    row = f"  row 0       {'word ' * 20}".rstrip()
    assert all(line.startswith(" " * 14) for line in wrapped(row, 60).split("\n")[1:])
    assert wrapped("heading " * 12, 60).split("\n")[1].startswith("  heading")


@pytest.mark.parametrize("columns", [80, 120])
def test_no_line_is_longer_than_the_terminal_but_for_a_word_that_is(columns: int) -> None:
    address = f"s3://bucket/{'x' * 150}"
    for line in wrapped(f"  output      {'some words ' * 30}{address} and more", columns).split("\n"):
        assert len(line) <= columns or address in line
    assert wrapped(NOTE, 500) == NOTE


def test_terminals_get_lines_wrapped_and_programs_get_them_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    say(NOTE)
    assert capsys.readouterr().out == f"{NOTE}\n"
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    say(NOTE)
    assert len(terminal.getvalue().splitlines()) == 3


def test_control_characters_of_a_manifest_are_shown_and_not_obeyed() -> None:
    assert harmless("a \x1b[31mred\x1b[0m\x07 text\nnext\tcell\x9b2J") == (
        "a \\x1b[31mred\\x1b[0m\\x07 text\nnext\tcell\\x9b2J"
    )
