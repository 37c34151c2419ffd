"""`unipic export`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unipic.jobs.terminal.formatting import as_json, count
from unipic.jobs.terminal.lines import say
from unipic.jobs.terminal.options import Anonymous, AsJson, EndpointUrl, OutputUri, Region, storage_from_options

if TYPE_CHECKING:
    from unipic.pipeline.storage.storage import Storage


class FileFormat(StrEnum):
    CSV = "csv"
    JSONL = "jsonl"
    OPENAI_BATCH = "openai-batch"


To = Annotated[Path | None, typer.Option(metavar="FILE", help="File to write.")]
Format = Annotated[FileFormat | None, typer.Option("--format", help="Format of FILE; default: from its name.")]
Images = Annotated[Path | None, typer.Option(metavar="DIR", help="Folder to write images to, a file each.")]
Name = Annotated[
    str | None,
    typer.Option(metavar="TEMPLATE", help="Names of images: {id}, {sample}, {row}, {file}, {seed}, {lineage}."),
]


def export_output(
    output: OutputUri,
    to: To = None,
    file_format: Format = None,
    images: Images = None,
    name: Name = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
    json: AsJson = False,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Write captions to a file, or images to a folder.

    --to x.csv or x.jsonl writes one row per caption in manifest order: id, source, question, caption, lineage_id, and
    the columns the job keeps. In CSV, an apostrophe protects text that a spreadsheet would run as a formula; JSON lines
    are verbatim.

    --format openai-batch writes the result file of an OpenAI batch, with images as base64, and an error file beside it.

    --images writes each image to a file, and metadata.jsonl, which 🤗 datasets reads. The same command resumes it.

    \b
    Examples:
      unipic export demo-output/captions --to captions.csv
      unipic export demo-output/pictures --images files --name '{id}.png'
      unipic export demo-output/pictures --format openai-batch --to results.jsonl
    """
    if (to is None) == (images is None):
        raise typer.BadParameter("give either --to FILE or --images DIR")
    if images is None and name is not None:
        raise typer.BadParameter("--name needs --images")
    if to is None and file_format is not None:
        raise typer.BadParameter("--format needs --to")
    storage = storage_from_options(endpoint_url=endpoint_url, region=region, anonymous=anonymous)
    if images is not None:
        _images(output, images, storage, name=name, force=force, json=json)
    elif to is not None and file_format is FileFormat.OPENAI_BATCH:
        _batch(output, to, storage, force=force, json=json)
    elif to is not None:
        _captions(output, to, storage, file_format=file_format, force=force, json=json)


def _captions(
    output: str, to: Path, storage: Storage, *, file_format: FileFormat | None, force: bool, json: bool
) -> None:
    from unipic.pipeline.audit.export import export

    exported = export(output, to, storage, file_format=file_format, force=force)
    if json:
        typer.echo(as_json(exported))
        return
    say(f"wrote {count(exported.rows, 'caption')} to {to}")
    if exported.rejected or exported.undone:
        missing = f"{count(exported.rejected, 'row')} rejected, {count(exported.undone, 'row')} not done yet"
        say(f"  without a caption: {missing}")
    if exported.left_out:
        say(f"  columns left out: {', '.join(exported.left_out)} (neither text nor numbers)")


def _images(output: str, folder: Path, storage: Storage, *, name: str | None, force: bool, json: bool) -> None:
    from unipic.pipeline.audit.export_images import LIST, export_images

    exported = export_images(output, folder, storage, name=name, force=force)
    if json:
        typer.echo(as_json(exported))
        return
    earlier = f" ({exported.earlier:,} were there already)" if exported.earlier else ""
    say(f"wrote {count(exported.images, 'image')} to {folder}{earlier}, listed in {LIST}")
    if exported.rejected or exported.undone:
        say(f"  without an image: {exported.rejected:,} rejected, {exported.undone:,} not done yet")


def _batch(output: str, to: Path, storage: Storage, *, force: bool, json: bool) -> None:
    from unipic.pipeline.audit.export_batch import export_batch

    exported = export_batch(output, to, storage, force=force)
    if json:
        typer.echo(as_json(exported))
        return
    say(f"wrote {count(exported.answers, 'result')} to {to}")
    if exported.partial:
        say(f"  {count(exported.partial, 'result')} with fewer images than asked for: the others were rejected")
    if exported.errors:
        say(f"wrote {count(exported.errors, 'error')} to {exported.errors_file}")
    if exported.undone:
        say(f"  not done yet: {count(exported.undone, 'request')}, in neither file")
