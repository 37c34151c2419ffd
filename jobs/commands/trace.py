"""`unipic trace`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from unipic.jobs.terminal.formatting import as_json
from unipic.jobs.terminal.lines import say
from unipic.jobs.terminal.options import (
    Anonymous,
    AsJson,
    EndpointUrl,
    OfJob,
    Region,
    output_of,
)

if TYPE_CHECKING:
    from unipic.pipeline.audit.trace import Step


Words = Annotated[
    list[str],
    typer.Argument(
        metavar="OUTPUT ROW",
        help="Output folder of a job, which --job replaces; and the row: an id of the manifest, FILE:ROW, or a lineage "
        "id (its first 8 digits or more). Append #SAMPLE to choose a sample.",
    ),
]


def trace_row(
    words: Words,
    job: OfJob = None,
    json: AsJson = False,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Trace a row back to its first manifest.

    Shows each job on the way with its prompt, its source file and row, and the content of that row.

    \b
    Examples:
      unipic trace demo-output/edits edit-01
      unipic trace edit-01 --job configs/edit.yaml
    """
    from unipic.pipeline.audit.trace import trace

    if len(words) > 2:
        raise typer.BadParameter(f"expected OUTPUT and ROW, got {len(words)} words")
    given = words[0] if len(words) == 2 else None
    output, storage = output_of(given, job, endpoint_url=endpoint_url, region=region, anonymous=anonymous)
    steps = trace(output, words[-1], storage)
    if json:
        typer.echo(as_json(steps))
        return
    for depth, step in enumerate(steps):
        for line in _lines(step):
            say("   " * depth + line)


def _lines(step: Step) -> list[str]:
    lineage = step.lineage
    lines = [
        f"{step.job} ({step.task}) {lineage['lineage_id'][:16]}",
        f"  prompt  {lineage['prompt_sent']}",
        f"  from    {step.source_uri or lineage['source_file']}, row {lineage['source_row']}",
    ]
    if step.source:
        lines.append("  source  " + ", ".join(f"{name}: {value}" for name, value in step.source.items()))
    if step.unread:
        lines.append(f"  source  cannot be read: {step.unread}")
    return lines
