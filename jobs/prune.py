"""`unipic prune`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from jobs.options import JobFile, Set
from jobs.words import count

if TYPE_CHECKING:
    from pipeline.ledger import Ledger
    from pipeline.manifest import Manifest
    from pipeline.records import ManifestFile


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
    from jobs.spec import load_job

    resolved = load_job(job, overrides or ())

    from pipeline.ledger import Ledger
    from pipeline.storage import Storage
    from pipeline.weights import describe

    storage = Storage(resolved.storage)
    ledger = Ledger(resolved.output.uri, storage)
    ledger.check_owner(resolved, describe(resolved.model.checkpoint, storage).digest)
    manifest = ledger.discover(resolved)
    gone = _gone(ledger, manifest)
    if not gone:
        typer.echo("nothing to remove: every manifest file of this output is still there")
        return
    for file in ledger.prune(manifest) if yes else gone:
        typer.echo(f"{file.name}: outputs of {count(file.rows, 'row')}{' removed' if yes else ''}")
    if not yes:
        typer.echo("nothing was removed; --yes removes them")


def _gone(ledger: Ledger, manifest: Manifest) -> list[ManifestFile]:
    """The recorded files that `manifest` no longer has.

    Raises:
        OutputError: no run has begun there.
        JobError: all of them are gone, or another run is at work, which would do their rows again or trip over it.
    """
    from pipeline.company import at_work
    from pipeline.errors import JobError
    from pipeline.run_record import removed

    run = ledger.recorded()
    gone = removed(run, manifest)
    if not gone:
        return gone
    if len(gone) == len(run.files):
        raise JobError(
            f"none of the {count(len(gone), 'manifest file')} that {ledger.output_uri} was made from "
            f"({', '.join(one.name for one in gone[:3])}{', …' if len(gone) > 3 else ''}) is in the manifest now",
            remedy="Mend input.manifest, which is probably wrong; or, if all is to go, delete that folder yourself.",
        )
    if others := at_work(ledger):
        raise JobError(
            f"another run is at work in {ledger.output_uri} ({'; '.join(others)}), and may be doing these rows",
            remedy="Prune when it has ended; `unipic status` tells when.",
        )
    return gone
