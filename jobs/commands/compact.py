"""`unipic compact`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich import progress as bars
from rich.console import Console

from unipic.jobs.terminal.formatting import as_json, count
from unipic.jobs.terminal.lines import say
from unipic.jobs.terminal.options import Anonymous, AsJson, EndpointUrl, OutputUri, Region, storage_from_options


def compact_output(
    output: OutputUri,
    part_mb: Annotated[
        int, typer.Option(metavar="MIB", min=1, max=1024, help="Size of a merged file, about, in MiB.")
    ] = 256,
    json: AsJson = False,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Merge the small data files of an output into few large ones.

    Rows and lineage stay as they are; `verify`, `trace`, `replay`, `--retry-rejected` and resuming work as before.
    Readers of data/ may miss some rows while it runs, and never see one twice. Interrupt it at any time: the same
    command goes on. No run may be active on the output. `output.part_mb` in a job does the same when a run ends.

    A sealed output needs a new seal then: compact before you seal. A job that reads this output as its manifest takes
    the merged files for new ones: compact before you chain.

    \b
    Examples:
      unipic compact demo-output/pictures
      unipic compact s3://datasets/captions --part-mb 128
    """
    from unipic.pipeline.output.compaction import compact
    from unipic.pipeline.output.layout import SEAL
    from unipic.pipeline.output.ledger import Ledger

    storage = storage_from_options(endpoint_url=endpoint_url, region=region, anonymous=anonymous)
    console = Console(stderr=True, highlight=False)
    with bars.Progress(console=console, transient=True, disable=not console.is_terminal) as live:
        bar = live.add_task("merging units", total=None)
        done = compact(
            Ledger(output, storage),
            part_mb=part_mb,
            on_units=lambda merged, total: live.update(bar, completed=merged, total=total),
        )
    if json:
        typer.echo(as_json(done))
    elif done.packs:
        files = f"{count(done.files_before, 'data file')} merged into {done.files_after:,}"
        say(f"{output}: {files}; {count(done.units, 'unit')} in {count(done.packs, 'new file')}")
        if storage.exists(f"{output.rstrip('/')}/{SEAL}"):
            say("  changed since it was sealed; `unipic seal` makes a new seal")
    else:
        say(f"{output}: nothing to merge; {count(done.files_after, 'data file')}")
