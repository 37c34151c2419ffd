"""A long step is never silent."""

from __future__ import annotations

import io
import threading

from rich.console import Console

from unipic.jobs.terminal.steps import Steps


class Stream(io.StringIO):
    """Tells when a second line about the same step was written."""

    def __init__(self) -> None:
        super().__init__()
        self.repeated = threading.Event()

    def write(self, text: str) -> int:
        written = super().write(text)
        if "loading, 0 s" in self.getvalue():
            self.repeated.set()
        return written


def test_outside_a_terminal_each_step_is_a_line_and_repeats_while_it_lasts() -> None:
    stream = Stream()
    with Steps(Console(file=stream), every_s=0.01) as steps:
        steps("loading")
        assert stream.repeated.wait(30)
        steps("running")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "loading" and "running" in lines
