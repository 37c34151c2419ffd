"""`unipic verify`."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
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
    from unipic.pipeline.audit.repair import Repaired
    from unipic.pipeline.audit.verify import Report
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
        stopped = _repair(output, storage, report)
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


def _repair(output: str, storage: Storage, report: Report) -> bool:
    """Repair, and print what was done; whether the run of the damaged units was stopped early."""
    from unipic.pipeline.audit.repair import repair

    stop, display = threading.Event(), Display()
    with ExitStack() as shown, Signals(stop, display.say) as signals:

        def on_cleared(done: Repaired) -> None:
            for line in _cleared(output, done):
                display.say(line)
            if done.forgotten:
                shown.enter_context(display)

        done = repair(output, storage, report, on_cleared=on_cleared, on_progress=signals.before(display), stop=stop)
    if done.refused:
        typer.echo(f"run.json's job cannot do them: {done.refused}\n  `unipic run` of the job will.", err=True)
    return done.result is not None and done.result.outcome == "stopped"


def _cleared(output: str, done: Repaired) -> Iterator[str]:
    if done.swept:
        yield f"{count(done.swept, 'part')} of superseded or interrupted tries deleted"
    if done.set_aside:
        yield f"{count(done.set_aside, 'file')} moved to {output.rstrip('/')}/_unipic/set-aside"
    for why, units in sorted(Counter(done.left.values()).items()):
        yield f"{count(units, 'damaged unit')} left untouched: {why}"
    if done.forgotten:
        yield f"{count(done.forgotten, 'damaged unit')} to be done again"
