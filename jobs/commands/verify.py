"""`unipic verify`."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer
from rich import progress as bars
from rich.console import Console

from unipic.jobs.terminal.exit_codes import FAULT, STOPPED
from unipic.jobs.terminal.formatting import as_json, count
from unipic.jobs.terminal.lines import say
from unipic.jobs.terminal.options import Anonymous, AsJson, EndpointUrl, OutputUri, Region, storage_from_options
from unipic.jobs.terminal.progress import Display
from unipic.jobs.terminal.signals import Signals

if TYPE_CHECKING:
    from unipic.pipeline.audit.repair import Repaired
    from unipic.pipeline.audit.report import Report
    from unipic.pipeline.storage.storage import Storage

_PROBLEMS_SHOWN = 50


def verify_output(
    output: OutputUri,
    repair: Annotated[bool, typer.Option("--repair", help="Run damaged units again, then verify again.")] = False,
    replay: Annotated[
        int, typer.Option(metavar="N", min=0, help="Also replay N random rows and compare; loads the model.")
    ] = 0,
    seal: Annotated[
        str, typer.Option(metavar="DIGEST", help="Also check that nothing changed since `unipic seal` gave DIGEST.")
    ] = "",
    json: AsJson = False,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Audit a whole output.

    Compares every unit, part, row, image and lineage with its receipt, and the receipts with the recorded job. Exits
    with code 0 for a sound output, 3 for an incomplete one (the next run finishes it), and 1 for a damaged one.

    --repair needs the manifest and the checkpoint of the job; relative paths start from this folder. A unit that cannot
    be run again stays unchanged, and the reason is printed. Unknown files in data/, rejected/, images/ and _unipic/
    move to _unipic/set-aside; other files in the output stay.

    \b
    Examples:
      unipic verify demo-output/pictures
      unipic verify demo-output/pictures --replay 20
      unipic verify demo-output/pictures --repair
      unipic verify demo-output/pictures --seal "$(cat pictures.seal)"
    """
    storage = storage_from_options(endpoint_url=endpoint_url, region=region, anonymous=anonymous)
    reports, stopped = [_audit(output, storage, replay, seal, quiet=json)], False
    if repair and not reports[0].ok:
        stopped = _repair(output, storage, reports[0])
        reports.append(_audit(output, storage, replay, seal, quiet=json))
    elif not json and (actions := _repair_actions(reports[0])):
        say(f"  --repair would {actions}")
    if json:
        typer.echo(as_json([report.as_dict() for report in reports] if repair else reports[0].as_dict()))
    if not reports[-1].ok:
        raise typer.Exit(STOPPED if stopped or reports[-1].verdict == "incomplete" else FAULT)


def _audit(output: str, storage: Storage, replay: int, seal: str, *, quiet: bool) -> Report:
    from unipic.pipeline.audit.replay import replay_sample
    from unipic.pipeline.audit.verify import verify

    console = Console(stderr=True, highlight=False)
    with bars.Progress(console=console, transient=True, disable=not console.is_terminal) as live:
        bar = live.add_task("auditing units", total=None)

        def on_unit(done: int, planned: int) -> None:
            live.update(bar, completed=done, total=planned)

        report = verify(output, storage, digest=seal, on_unit=on_unit)
    try:
        for problem in replay_sample(output, replay, storage, damaged=report.damaged_units):
            report.add(problem)
    finally:  # the audit's findings are printed even if a replay fails
        if not quiet:
            _print_report(report)
    return report


def _print_report(report: Report) -> None:
    rows = f"{report.data:,} data and {report.rejected:,} rejected of {count(report.rows, 'row')}"
    say(f"{report.output}: {report.verdict}; {rows} in {count(report.units, 'unit')}")
    if report.seal == "intact":
        say(f"  sealed: {report.digest}")
    elif report.seal == "outdated":
        say("  changed since it was sealed; `unipic seal` makes a new seal")
    for kind, number in sorted(report.counts.items(), key=lambda item: -item[1]):
        say(f"  {kind}: {number:,}")
    for problem in report.problems[:_PROBLEMS_SHOWN]:
        say(f"    {problem.where}: {problem.message}")


def _repair_actions(report: Report) -> str:
    """What --repair would do, or "" if it would do nothing."""
    from unipic.pipeline.audit.report import ProblemKind

    leftovers = sum(
        report.counts.get(kind, 0) for kind in (ProblemKind.SUPERSEDED, ProblemKind.LEFT_OVER, ProblemKind.UNPUBLISHED)
    )
    actions = [
        f"run {count(units, 'unit')} again" if (units := len(report.damaged_units)) else "",
        f"move {count(files, 'file')} to _unipic/set-aside" if (files := len(report.foreign)) else "",
        f"publish or delete {count(leftovers, 'file')} of earlier attempts" if leftovers else "",
    ]
    return ", ".join(action for action in actions if action)


def _repair(output: str, storage: Storage, report: Report) -> bool:
    """Repairs the output and prints what was done; returns whether the run of damaged units stopped early."""
    from unipic.pipeline.audit.repair import repair

    stop, display, left_before = threading.Event(), Display(), set[str]()
    with ExitStack() as live, Signals(stop, display.print) as signals:

        def on_cleared(repaired: Repaired) -> None:
            left_before.update(repaired.left)
            for line in _cleared(output, repaired):
                display.print(line)
            if repaired.units:
                live.enter_context(display)

        repaired = repair(
            output, storage, report, on_cleared=on_cleared, on_progress=signals.before(display), stop=stop
        )
    for unit, why in sorted(repaired.left.items()) if repaired.result is not None else ():
        if unit not in left_before:
            typer.echo(f"unit {unit} is still damaged: {why}", err=True)
    if repaired.refused:
        reason = f"the job in run.json cannot run: {repaired.refused}"
        typer.echo(f"{reason}\n  Run `unipic run` with the job file instead.", err=True)
    return repaired.result is not None and repaired.result.outcome == "stopped"


def _cleared(output: str, repaired: Repaired) -> Iterator[str]:
    if repaired.swept:
        yield f"published or deleted {count(repaired.swept, 'file')} of earlier attempts"
    if repaired.set_aside:
        yield f"moved {count(repaired.set_aside, 'file')} to {output.rstrip('/')}/_unipic/set-aside"
    for reason, units in sorted(Counter(repaired.left.values()).items()):
        yield f"{count(units, 'damaged unit')} unchanged: {reason}"
    if repaired.units:
        yield f"running {count(repaired.units, 'damaged unit')} again"
