"""`unipic prune`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from unipic.jobs.terminal.options import JobFile, Set
from unipic.jobs.terminal.words import count

if TYPE_CHECKING:
    from unipic.pipeline.manifests.manifest import Manifest
    from unipic.pipeline.output.ledger import Ledger
    from unipic.pipeline.records import ManifestFile


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

    from unipic.pipeline.output.ledger import Ledger
    from unipic.pipeline.stages.checkpoint_cache import describe
    from unipic.pipeline.storage.storage import Storage

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
    from unipic.pipeline.errors import JobError
    from unipic.pipeline.output.heartbeat import at_work
    from unipic.pipeline.output.run_record import removed

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
