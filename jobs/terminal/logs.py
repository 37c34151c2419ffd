"""Log lines of the package ("unipic.*") on standard error: warnings by default, all of them with `-v`."""

from __future__ import annotations

import logging
import sys

_PACKAGE = logging.getLogger("unipic")
_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


class _Warnings(logging.Handler):
    """Prints to what is standard error at that moment, so that a live progress display can make room."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"{record.levelname.lower()}: {record.getMessage()}", file=sys.stderr, flush=True)


def configure(*, verbose: bool) -> None:
    """Shows every log line of the package, or only warnings. A second call replaces the first."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr) if verbose else _Warnings(logging.WARNING)
    handler.setFormatter(logging.Formatter(_FORMAT, datefmt="%H:%M:%S"))
    _PACKAGE.handlers = [handler]
    _PACKAGE.setLevel(logging.DEBUG if verbose else logging.NOTSET)
    _PACKAGE.propagate = not verbose


def verbose() -> bool:
    """Whether `-v` was given."""
    return _PACKAGE.level == logging.DEBUG
