"""`unipic prune`."""

from __future__ import annotations

import typer

from jobs.options import JobFile, Set
from jobs.words import count


def prune_job(job: JobFile, overrides: Set = None) -> None:
    """Remove outputs whose manifest file is gone.

    A run keeps them and says so; this takes them, and the receipts that name them, out of the output folder.

    \b
    Example:
      unipic prune configs/generate.yaml
    """
    from jobs.spec import load_job

    resolved = load_job(job, overrides or ())

    from pipeline.ledger import Ledger
    from pipeline.storage import Storage
    from pipeline.weights import describe

    storage = Storage(resolved.storage)
    ledger = Ledger(resolved.output.uri, storage)
    ledger.check_owner(resolved, describe(resolved.model.checkpoint, storage).digest)
    gone = ledger.prune(ledger.discover(resolved))
    for file in gone:
        typer.echo(f"{file.name}: outputs of {count(file.rows, 'row')} removed")
    if not gone:
        typer.echo("nothing to remove: every manifest file of this output is still there")
