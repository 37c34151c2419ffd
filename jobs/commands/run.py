"""`unipic run`."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from unipic.jobs.terminal import logs
from unipic.jobs.terminal.exit_codes import DONE, INTERRUPTED, REJECTED, RESUME, STOPPED
from unipic.jobs.terminal.formatting import as_json, count, duration, rate
from unipic.jobs.terminal.lines import say
from unipic.jobs.terminal.options import AsJson, JobFile, Set
from unipic.jobs.terminal.progress import Display
from unipic.jobs.terminal.rejections import kind_lines
from unipic.jobs.terminal.signals import Signals

if TYPE_CHECKING:
    from unipic.pipeline.job import Job
    from unipic.pipeline.run import Result
    from unipic.pipeline.storage.options import StorageOptions


class Changed(StrEnum):
    """What to do about a manifest file with a known name and new content; `redo` runs its units again."""

    REFUSE = "refuse"
    REDO = "redo"


Address = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Ray cluster to use; default: a private one on this machine.")
]
RetryRejected = Annotated[
    bool, typer.Option("--retry-rejected", help="Retry rejected rows; those that succeed join the output.")
]
OnChange = Annotated[Changed, typer.Option(help="For manifest files whose content changed: stop, or run them again.")]
ExitZero = Annotated[
    bool,
    typer.Option("--exit-zero-when-stopped", help="Exit with 0, not 3, after a limit or a signal stopped it."),
]
AllowEmpty = Annotated[bool, typer.Option("--allow-empty", help="Accept a manifest without rows.")]


def run_job(
    job: JobFile,
    overrides: Set = None,
    address: Address = None,
    retry_rejected: RetryRejected = False,
    changed: OnChange = Changed.REFUSE,
    allow_empty: AllowEmpty = False,
    exit_zero_when_stopped: ExitZero = False,
    json: AsJson = False,
) -> None:
    """Run a job, or resume it.

    Units with a receipt are skipped, so the same command resumes an interrupted run.

    Ctrl-C or SIGTERM waits for the units in flight, then exits with code 3. A second Ctrl-C exits at once.

    \b
    Examples:
      unipic run configs/generate.yaml
      unipic run configs/generate.yaml --set limits.max_hours=8
      unipic run configs/generate.yaml --address auto     on a Ray cluster

    \b
    Exit codes: 0 done · 1 job or usage error · 2 too many rejected rows ·
                3 stopped early, resumable
    """
    from unipic.jobs.spec.load import load_job

    resolved = load_job(job, overrides or ())

    from unipic.pipeline.errors import EmptyManifest

    with Display() as display, Signals(threading.Event(), display.print) as signals:
        try:
            result = _run(resolved, display, signals, address, retry_rejected=retry_rejected, changed=changed)
        except EmptyManifest as error:
            if not allow_empty:
                raise EmptyManifest(error.message, remedy="Pass --allow-empty to accept that.") from error
            display.print(f"nothing to do: {error.message}")
            raise typer.Exit(DONE) from None
        except KeyboardInterrupt:
            display.print(INTERRUPTED)
            raise typer.Exit(STOPPED) from None
    with contextlib.suppress(BrokenPipeError):  # the exit code matters even if no one reads the text
        if json:
            typer.echo(as_json(result))
        else:
            _print_result(result, resolved.storage)
    stopped = DONE if exit_zero_when_stopped else STOPPED
    raise typer.Exit({"done": DONE, "rejected": REJECTED, "stopped": stopped}[result.outcome])


def _run(
    job: Job, display: Display, signals: Signals, address: str | None, *, retry_rejected: bool, changed: Changed
) -> Result:
    from unipic.pipeline.run import run

    return run(
        job,
        address=address,
        on_progress=signals.before(display),
        stop=signals.stop,
        verbose=logs.verbose(),
        retry_rejected=retry_rejected,
        redo_changed=changed is Changed.REDO,
    )


def _print_result(result: Result, storage: StorageOptions) -> None:
    rows = f"{result.ok:,} of {count(result.rows, 'row')} ok, {result.rejected:,} rejected"
    new = result.ok + result.rejected - result.earlier
    pace = f"{duration(result.seconds)}, {rate(new / result.seconds, 'rows')}" if new and result.seconds > 0 else "none"
    heading = {"done": "done", "rejected": "too many rejected rows", "stopped": "stopped early"}[result.outcome]
    say(f"{heading}: {rows} ({result.earlier:,} from earlier runs; this run: {pace})")
    if result.message:
        say(f"  reason    {result.message}")
    say(f"  output    {result.output}")
    if result.rejected:
        for line in _rejected_lines(result.output, storage):
            say(f"  rejected  {line}")
    if result.outcome == "stopped":
        say(f"  resume    {RESUME}")


def _rejected_lines(output: str, options: StorageOptions) -> Iterator[str]:
    """The kinds of rejected rows with an example each; a store that fails now costs only these lines."""
    from unipic.pipeline.audit.rejections import summarise
    from unipic.pipeline.errors import UniPicError
    from unipic.pipeline.storage.storage import Storage

    with contextlib.suppress(UniPicError):
        yield from kind_lines(summarise(output, Storage(options)))
    yield f"`unipic rejected {output}` lists them"
