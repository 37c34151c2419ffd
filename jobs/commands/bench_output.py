"""`unipic bench verify`, `scale` and `requests`: what outputs cost to audit, to resume and to write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from unipic.jobs.terminal.formatting import as_json, size
from unipic.jobs.terminal.options import Anonymous, AsJson, EndpointUrl, Region, storage_options


def verify(
    rows: Annotated[int, typer.Option(min=1_000, help="Captions in the output to audit.")] = 1_000_000,
    json: AsJson = False,
) -> None:
    """Measure the audit of a large output.

    Writes an intact output of captions to a temporary folder and audits it in a separate process.

    \b
    Example:
      unipic bench verify --rows 100000
    """
    from unipic.pipeline.bench.verify import bench_verify

    audit = bench_verify(rows)
    if json:
        typer.echo(as_json({"verify": audit, "rows_per_s": audit.rows_per_s, "growth_bytes": audit.growth_bytes}))
        return
    figures = [
        f"{audit.rows:,}",
        f"{audit.units:,}",
        f"{audit.verify_s:.1f}",
        f"{audit.rows_per_s:,.0f}",
        size(audit.early_peak_bytes),
        size(audit.peak_bytes),
        size(audit.growth_bytes),
    ]
    early = f"peak at {audit.early_rows:,} rows"
    _show("Auditing an output", ["rows", "units", "seconds", "rows/s", early, "final peak", "growth"], [figures])


def scale(
    rows: Annotated[int, typer.Option(min=100_000, help="Rows of the larger output.")] = 10_000_000,
    json: AsJson = False,
) -> None:
    """Measure status, resume and verify of outputs with millions of rows.

    Makes up the receipts of an output with a tenth of the rows and of one with all of them, in a temporary folder on
    this disk, and runs each command on both in a separate process; status and resume also on the larger one as
    `unipic compact` leaves it. One unit in a hundred is left to do. Parts are empty files, so verify reports every one
    of them and decodes none; `unipic bench verify` measures that.

    \b
    Example:
      unipic bench scale --rows 1000000
    """
    from unipic.pipeline.bench.scale import bench_scale

    measured = list(bench_scale(rows))
    if json:
        typer.echo(as_json(measured))
        return
    shown = [
        [
            f"{one.command}, merged" if one.merged else one.command,
            f"{one.rows:,}",
            f"{one.units:,}",
            f"{one.seconds:.1f}",
            size(one.growth_bytes),
            ", ".join(f"{kind} {number:,}" for kind, number in one.requests.items()),
        ]
        for one in measured
    ]
    _show("Large outputs", ["command", "rows", "units", "seconds", "memory growth", "requests"], shown)


def requests(
    output: Annotated[str, typer.Argument(metavar="FOLDER", help="An empty s3:// folder to write to, and clear.")],
    units: Annotated[int, typer.Option(min=1, help="Units of each kind.")] = 128,
    json: AsJson = False,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Count the requests of a unit's commit.

    Commits units of 8 rows to an S3 store, without a model, counts requests where they leave, and deletes the units. A
    commit needs one put for each file and one for the receipt; what is beyond that is the cost of the protocol.

    \b
    Example:
      unipic bench requests s3://scratch/requests --endpoint-url http://127.0.0.1:9000
    """
    from unipic.pipeline.bench.requests import bench_requests

    storage = storage_options(endpoint_url=endpoint_url, region=region, anonymous=anonymous)
    counted = list(bench_requests(output, storage, count=units))
    if json:
        typer.echo(as_json([{"requests": one, "per_unit": one.per_unit, "extra": one.extra} for one in counted]))
        return
    rows = [
        [
            one.kind,
            str(one.units),
            str(one.files),
            f"{one.per_unit:.2f}",
            f"{one.extra:.2f}",
            ", ".join(f"{kind} {number:,}" for kind, number in one.by_kind.items()),
        ]
        for one in counted
    ]
    _show("Requests of a unit's commit", ["unit", "units", "files", "per unit", "extra", "in all"], rows)


def _show(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(title=title, title_justify="left")
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
