"""`unipic verify`."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Annotated

import typer
from rich import progress as bars
from rich.console import Console

from unipic.jobs.terminal.exits import FAULT, STOPPED
from unipic.jobs.terminal.options import Anonymous, AsJson, EndpointUrl, OutputUri, Region, storage_of
from unipic.jobs.terminal.progress import Display
from unipic.jobs.terminal.signals import Signals
from unipic.jobs.terminal.words import as_json, count

if TYPE_CHECKING:
    from unipic.pipeline.audit.verify import Report
    from unipic.pipeline.job import Job
    from unipic.pipeline.run import Progress, Result
    from unipic.pipeline.storage.storage import Storage

_SHOWN = 50


def verify_output(
    output: OutputUri,
    repair: Annotated[bool, typer.Option("--repair", help="Do damaged units again, and verify once more.")] = False,
    replay: Annotated[
        int, typer.Option(metavar="N", min=0, help="Also make N random rows again and compare; loads the model.")
    ] = 0,
    json: AsJson = False,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Audit a whole output.

    Every unit, part, row, picture and lineage is held against its receipt. Exits with 1 on any problem that is left.

    --repair needs the manifest and the checkpoint where the job had them; relative paths start from this folder. A unit
    that cannot be done again stays as it is, and it says why. Nobody's files in data/, rejected/, images/ and _unipic/
    are moved to _unipic/set-aside; elsewhere in the output they stay.

    \b
    Examples:
      unipic verify demo-output/pictures
      unipic verify demo-output/pictures --replay 20
      unipic verify demo-output/pictures --repair
    """
    storage = storage_of(endpoint_url=endpoint_url, region=region, anonymous=anonymous)
    tell = (lambda report: None) if json else _tell
    report = _audited(output, storage, replay, tell)
    reports, stopped = [report], False
    if repair and not report.ok:
        stopped = _mend(output, storage, report)
        reports.append(_audited(output, storage, replay, tell))
    elif not json and (would := _repair_would(report)):
        typer.echo(f"  --repair would {would}")
    if json:
        typer.echo(as_json([one.as_dict() for one in reports] if repair else report.as_dict()))
    if not reports[-1].ok:
        raise typer.Exit(STOPPED if stopped else FAULT)


def _audited(output: str, storage: Storage, replay: int, tell: Callable[[Report], None]) -> Report:
    from unipic.pipeline.audit.replay import replay_sample
    from unipic.pipeline.audit.verify import verify

    console = Console(stderr=True, highlight=False)
    with bars.Progress(console=console, transient=True, disable=not console.is_terminal) as live:
        bar = live.add_task("auditing units", total=None)
        report = verify(output, storage, on_unit=lambda done, planned: live.update(bar, completed=done, total=planned))
    try:
        for problem in replay_sample(output, replay, storage, damaged=report.damaged_units):
            report.add(problem)
    finally:  # what the audit found is told whatever becomes of the replays
        tell(report)
    return report


def _tell(report: Report) -> None:
    rows = f"{report.data:,} data and {report.rejected:,} rejected of {count(report.rows, 'row')}"
    typer.echo(f"{report.output}: {'sound' if report.ok else 'NOT sound'}; {rows} in {count(report.units, 'unit')}")
    for kind, number in sorted(report.counts.items(), key=lambda one: -one[1]):
        typer.echo(f"  {kind}: {number:,}")
    for problem in report.problems[:_SHOWN]:
        typer.echo(f"    {problem.where}: {problem.message}")


def _repair_would(report: Report) -> str:
    """What --repair would set about; "" where it is of no help."""
    left_over = report.counts.get("superseded part", 0) + report.counts.get("interrupted retry", 0)
    what = [
        f"do {count(units, 'unit')} again" if (units := len(report.damaged_units)) else "",
        f"move {count(files, 'file')} to _unipic/set-aside" if (files := len(report.strangers)) else "",
        f"delete {count(left_over, 'part')} of tries that do not count" if left_over else "",
    ]
    return ", ".join(one for one in what if one)


def _mend(output: str, storage: Storage, report: Report) -> bool:
    """Repair and do again what was damaged; whether that was stopped early."""
    from unipic.pipeline.audit.repair import redo, repair
    from unipic.pipeline.errors import JobError

    # Before anything is forgotten: damaged units may be all there is of their rows.
    plan = redo(output, storage, report)
    done = repair(output, storage, report, plan)
    if done.swept:
        typer.echo(f"{count(done.swept, 'part')} of superseded or interrupted tries deleted", err=True)
    if done.set_aside:
        typer.echo(f"{count(done.set_aside, 'file')} moved to {output.rstrip('/')}/_unipic/set-aside", err=True)
    for why, units in sorted(Counter(plan.left.values()).items()):
        typer.echo(f"{count(units, 'damaged unit')} left untouched: {why}", err=True)
    if plan.job is None:
        return False
    typer.echo(f"{count(done.forgotten, 'damaged unit')} to be done again", err=True)
    try:
        return _run(plan.job, plan.files).outcome == "stopped"
    except JobError as error:  # something changed since `redo` looked
        typer.echo(f"run.json's job cannot do them: {error}\n  `unipic run` of the job will.", err=True)
        return False


def _run(job: Job, files: Collection[str]) -> Result:
    from unipic.pipeline.run import run

    stop = threading.Event()
    with Display() as display, Signals(stop, display.say) as signals:

        def on_progress(progress: Progress) -> None:
            signals.install()
            display(progress)

        return run(job, only=files, on_progress=on_progress, stop=stop)
