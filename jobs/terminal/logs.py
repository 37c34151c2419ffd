"""Log lines of the package ("unipic.*") on standard error: off by default, on with `-v`."""

from __future__ import annotations

import logging
import sys

_PACKAGE = logging.getLogger("unipic")
_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def configure(*, verbose: bool) -> None:
    """Shows every log line of the package, or none. A second call replaces the first."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr) if verbose else logging.NullHandler()
    handler.setFormatter(logging.Formatter(_FORMAT, datefmt="%H:%M:%S"))
    _PACKAGE.handlers = [handler]
    _PACKAGE.setLevel(logging.DEBUG if verbose else logging.NOTSET)
    _PACKAGE.propagate = not verbose


def verbose() -> bool:
    """Whether `-v` was given."""
    return _PACKAGE.level == logging.DEBUG
