"""`unipic prune`."""

from __future__ import annotations

from typing import Annotated

import typer

from unipic.jobs.terminal.options import JobFile, Set
from unipic.jobs.terminal.words import count


def prune_job(
    job: JobFile,
    overrides: Set = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove what is listed; without it nothing is.")] = False,
) -> None:
    """Remove outputs whose manifest file is gone.

    A run keeps them and says so; this lists them, and with --yes takes them, and the receipts that name them, out of
    the output folder.

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
    if not gone:
        typer.echo("nothing to remove: every manifest file of this output is still there")
        return
    for file in gone:
        typer.echo(f"{file.name}: outputs of {count(file.rows, 'row')}{' removed' if yes else ''}")
    if not yes:
        typer.echo("nothing was removed; --yes removes them")
