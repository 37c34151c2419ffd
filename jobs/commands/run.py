"""`unipic run`."""

from __future__ import annotations

import threading
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from unipic.jobs.terminal.exits import DONE, REJECTED, STOPPED
from unipic.jobs.terminal.options import JobFile, Set
from unipic.jobs.terminal.progress import Display
from unipic.jobs.terminal.signals import Signals
from unipic.jobs.terminal.words import count, duration, rate

if TYPE_CHECKING:
    from unipic.pipeline.run import Result


class Changed(StrEnum):
    """`redo` forgets their units and does them again."""

    REFUSE = "refuse"
    REDO = "redo"


def run_job(
    job: JobFile,
    overrides: Set = None,
    address: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Ray cluster to use; default: a private one here.")
    ] = None,
    retry_rejected: Annotated[
        bool, typer.Option("--retry-rejected", help="Try rejected rows once more; what goes well joins the output.")
    ] = False,
    changed: Annotated[
        Changed, typer.Option(help="What to do about manifest files that changed under their name.")
    ] = Changed.REFUSE,
    allow_empty: Annotated[bool, typer.Option("--allow-empty", help="A manifest without rows is fine.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Ray's own messages, and tracebacks.")] = False,
) -> None:
    """Do a job, or what is left of it.

    Units that have a receipt are not done again.

    Ctrl-C (or SIGTERM) lets the units in flight finish, then exits with 3; the same command goes on from there.
    A second one leaves at once.

    \b
    Examples:
      unipic run configs/generate.yaml
      unipic run configs/generate.yaml --set compute.replicas=4 --set limits.max_hours=8
      unipic run configs/generate.yaml --address auto        on the cluster this machine belongs to

    \b
    Exit codes: 0 done · 1 job or usage error · 2 more rows rejected than allowed · 3 stopped early, resumable
    """
    from unipic.jobs.spec.load import load_job

    resolved = load_job(job, overrides or ())

    from unipic.pipeline.errors import EmptyManifest
    from unipic.pipeline.run import run

    stop = threading.Event()
    with Display() as display, Signals(stop, display.say) as signals:
        try:
            result = run(
                resolved,
                address=address,
                on_progress=signals.before(display),
                stop=stop,
                verbose=verbose,
                retry_rejected=retry_rejected,
                redo_changed=changed is Changed.REDO,
            )
        except EmptyManifest as error:
            if not allow_empty:
                raise EmptyManifest(error.message, remedy="With --allow-empty that is fine.") from error
            display.say(f"nothing to do: {error.message}")
            raise typer.Exit(DONE) from None
        except KeyboardInterrupt:
            display.say("left at once; what is committed stays, the same command goes on from there")
            raise typer.Exit(STOPPED) from None
    raise typer.Exit(_told(result))


def _told(result: Result) -> int:
    """Prints how the run ended; returns its exit code."""
    rows = f"{result.ok:,} of {count(result.rows, 'row')} ok, {result.rejected:,} rejected"
    new = result.ok + result.rejected - result.earlier
    pace = f"{duration(result.seconds)}, {rate(new / result.seconds, 'rows')}" if new and result.seconds > 0 else "none"
    words = {"done": "done", "rejected": "too many rows rejected", "stopped": "stopped early"}
    typer.echo(f"{words[result.outcome]}: {rows} ({result.earlier:,} from earlier runs; this one {pace})")
    if result.message:
        typer.echo(f"  why       {result.message}")
    typer.echo(f"  output    {result.output}")
    if result.rejected:
        typer.echo(f"  rejected  {result.output.rstrip('/')}/rejected says which rows, and why")
    if result.outcome == "stopped":
        typer.echo("  resume    the same command goes on from there")
    return {"done": DONE, "rejected": REJECTED, "stopped": STOPPED}[result.outcome]
