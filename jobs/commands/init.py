"""`unipic init`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from unipic.jobs.terminal.options import Anonymous, EndpointUrl, Region, storage_options


class TaskName(StrEnum):
    GENERATE = "generate"
    EDIT = "edit"
    CAPTION = "caption"


Manifest = Annotated[
    str,
    typer.Argument(
        metavar="MANIFEST", help="Rows to process: a file, a glob, or a folder, local or s3://, gs://, az:// or hf://."
    ),
]
Task = Annotated[TaskName | None, typer.Option(help="Default: what the columns suggest.")]
Checkpoint = Annotated[str, typer.Option(metavar="URI", help="Checkpoint to use; default: the small one that ships.")]
Output = Annotated[str | None, typer.Option(metavar="URI", help="Output folder; default: out/NAME.")]
Instruction = Annotated[str | None, typer.Option(metavar="TEXT", help="edit: one instruction for all rows.")]
IdColumn = Annotated[str | None, typer.Option("--id", metavar="COLUMN", help="Column with ids.")]
PromptColumn = Annotated[str | None, typer.Option("--prompt", metavar="COLUMN", help="Column with prompts.")]
ImageColumn = Annotated[str | None, typer.Option("--image", metavar="COLUMN", help="Column with images.")]


def init_job(
    manifest: Manifest,
    task: Task = None,
    checkpoint: Checkpoint = "builtin:tiny",
    output: Output = None,
    instruction: Instruction = None,
    id_column: IdColumn = None,
    prompt_column: PromptColumn = None,
    image_column: ImageColumn = None,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Write a job file for a manifest.

    Finds the id, prompt and image columns by name and type, takes image size and steps from the checkpoint, and
    replicas from this machine. Prints the job; nothing else is written.

    \b
    Examples:
      unipic init prompts.parquet > job.yaml
      unipic init photos/ --task edit --instruction "make it winter" > job.yaml
      unipic init 's3://datasets/prompts/*.parquet' --task generate > job.yaml
    """
    from unipic.jobs.spec.draft import Wishes, draft

    roles = {"id": id_column, "prompt": prompt_column, "image": image_column}
    wishes = Wishes(
        manifest=manifest,
        task=task.value if task is not None else None,
        checkpoint=checkpoint,
        output=output,
        instruction=instruction,
        columns={role: column for role, column in roles.items() if column is not None},
        storage=storage_options(endpoint_url=endpoint_url, region=region, anonymous=anonymous),
    )
    typer.echo(draft(wishes), nl=False)
