"""`unipic prune`."""

from __future__ import annotations

from typing import Annotated

import typer

from unipic.jobs.terminal.formatting import as_json, count
from unipic.jobs.terminal.lines import say
from unipic.jobs.terminal.options import AsJson, JobFile, Set


def prune_job(
    job: JobFile,
    overrides: Set = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove what is listed.")] = False,
    json: AsJson = False,
) -> None:
    """Remove outputs of deleted manifest files.

    A run keeps such outputs and prints a note. This command lists them; with --yes it removes them and their receipts.

    \b
    Examples:
      unipic prune configs/generate.yaml
      unipic prune configs/generate.yaml --yes
    """
    from unipic.jobs.spec.load import load_job

    resolved = load_job(job, overrides or ())

    from unipic.pipeline.audit.prune import prune
    from unipic.pipeline.storage.storage import Storage

    gone = prune(resolved, Storage(resolved.storage), remove=yes)
    if json:
        typer.echo(as_json({"removed": yes, "files": gone}))
        return
    if not gone:
        say("nothing to remove: the manifest still has every file of this output")
        return
    for file in gone:
        say(f"{file.name}: outputs of {count(file.rows, 'row')}{' removed' if yes else ''}")
    if not yes:
        say("nothing was removed; pass --yes to remove them")
