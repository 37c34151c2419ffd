"""Progress and Ctrl-C of a call, on a terminal, in a notebook or in another program's thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from unipic.jobs.terminal.progress import Display
from unipic.jobs.terminal.signals import Signals
from unipic.pipeline.execution.progress import OnProgress, Progress


@contextmanager
def showing(progress: bool | OnProgress, stop: threading.Event) -> Iterator[OnProgress]:
    """The function to call with each progress. Meanwhile the first Ctrl-C sets `stop`, where this thread gets signals.

    Args:
        progress: True for a bar on a terminal and plain lines elsewhere, False for nothing, or the caller's own.
    """
    display = Display()
    show: OnProgress = (display if progress else _nothing) if isinstance(progress, bool) else progress
    with ExitStack() as entered:
        if progress is True:
            entered.enter_context(display)
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            show = entered.enter_context(Signals(stop, display.print)).before(show)
        yield show


def _nothing(progress: Progress) -> None:
    pass
