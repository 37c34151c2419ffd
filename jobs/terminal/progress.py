"""Progress of a run: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from rich import progress as bars
from rich.console import Console

from unipic.jobs.terminal import logs
from unipic.jobs.terminal.formatting import count, duration, rate

if TYPE_CHECKING:
    from unipic.pipeline.run import Progress

PLAIN_EVERY_S = 10.0
STARTING_EVERY_S = 5.0  # while a user wonders whether anything happens


def line(progress: Progress) -> str:
    """`progress` as one line of text."""
    done = progress.rows_ok + progress.rows_rejected
    parts = [f"{done:,} of {count(progress.rows_total, 'row')}"]
    if progress.rows_on_the_way:
        parts.append(f"{progress.rows_on_the_way:,} more awaiting commit")
    if progress.rows_rejected:
        parts.append(f"{progress.rows_rejected:,} rejected")
    if progress.rows_earlier:
        parts.append(f"{progress.rows_earlier:,} from earlier runs")
    if progress.stage in ("running", "stopping"):
        parts += [rate(progress.rows_per_s, "rows"), count(progress.replicas, "replica")]
        if progress.eta_s is not None and progress.stage == "running":
            parts.append(f"{duration(progress.eta_s)} left")
    if progress.activity:
        parts.append(progress.activity)
    if progress.message:
        parts.append(progress.message)
    return ", ".join(parts)


class QuietPipe(Console):
    """A console that falls silent if its reader goes away (`unipic run job.yaml 2>&1 | head`), so the run continues."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


class Display:
    """Shows each progress report; use it as a context manager around the run.

    Args:
        stream: where to write, standard error by default.
        clock: seconds, to space plain lines.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        # A run may filter standard error, so rich must look the stream up for each line and redirect nothing itself.
        self.console = QuietPipe(file=stream, stderr=stream is None, highlight=False)
        self.clock = clock
        self.stage = ""
        self.last_line_s = 0.0
        self.notes_shown = 0
        self.live: bars.Progress | None = None
        if self.console.is_terminal and not logs.verbose():  # log lines would break a live one
            columns = (
                bars.SpinnerColumn(),
                bars.TextColumn("{task.description}"),
                bars.BarColumn(bar_width=24),
                bars.TextColumn("{task.fields[text]}"),
                bars.TimeElapsedColumn(),
            )
            self.live = bars.Progress(
                *columns, console=self.console, redirect_stdout=False, redirect_stderr=False, refresh_per_second=4
            )
            self.bar = self.live.add_task("planning", total=None, text="")

    def __enter__(self) -> Display:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live is not None:
            self.live.stop()

    def __call__(self, progress: Progress) -> None:
        for note in progress.notes[self.notes_shown :]:
            self.print(f"note: {note}")
        self.notes_shown = len(progress.notes)
        if self.live is not None:
            done = progress.rows_ok + progress.rows_rejected
            text = line(progress) if progress.rows_total else ""
            total = progress.rows_total or None
            self.live.update(self.bar, description=progress.stage, completed=done, total=total, text=text)
            return
        now = self.clock()
        pace_s = STARTING_EVERY_S if progress.stage == "starting" else PLAIN_EVERY_S
        if progress.stage != self.stage or now - self.last_line_s >= pace_s:
            self.stage, self.last_line_s = progress.stage, now
            self.print(f"{progress.stage}: {line(progress)}" if progress.rows_total else progress.stage)

    def print(self, text: str) -> None:
        """Prints one line above the live one."""
        self.console.print(text, markup=False, soft_wrap=True)
