"""Claiming an output folder, and opening its epochs: the writes that decide whose rows count.

`run.json` is put if absent: of two jobs that begin at once, one is refused. Every change of the recorded manifest is
the next epoch, put if absent: of two processes that open the same number, one reads what the other wrote and thinks
again. On a store without conditional puts a new folder is claimed by a short announcement (see `_claim_weakly`).
"""

from __future__ import annotations

import json
import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from unipic.pipeline.errors import ManifestError, OutputError
from unipic.pipeline.job import Job
from unipic.pipeline.manifests.manifest import Manifest
from unipic.pipeline.output.changes import changed, removed, settled
from unipic.pipeline.output.layout import CLAIMS, RUN, epoch_path, unit_of
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.output.pack_files import settle_packs, without_units
from unipic.pipeline.output.run_record import Epoch, Identity, Run, next_epoch, redoing, without
from unipic.pipeline.output.unchanged import check_unchanged
from unipic.pipeline.output.withdrawal import finish_withdrawals, withdraw
from unipic.pipeline.records import ManifestFile, UnitId

ATTEMPTS = 20  # at opening an epoch while other processes open some, too
SETTLE_S = 2.0  # longer than a small put takes, on a store that cannot decide between two
LOOKS = 3  # at the announcement of another process, each 2 × SETTLE_S after the one before: it lives no longer


def claim(
    ledger: Ledger, job: Job, manifest: Manifest, checkpoint_digest: str, *, redo_changed: bool = False
) -> tuple[Run, Manifest]:
    """Claim the folder for `job`, or join the output that it already has there.

    Args:
        redo_changed: units of manifest files and images that changed no longer count, instead of being refused.

    Returns:
        The run as recorded, and the manifest with its new listing of images, if any, in place.

    Raises:
        OutputError: the folder is another job's.
        ManifestError: a manifest file, or an image that was answered, changed under its name; or, where it is to be
            redone, changed once more since `manifest` was discovered.
    """
    announced: Counter[str] = Counter()
    for _ in range(ATTEMPTS):
        there = ledger.check_owner(job, checkpoint_digest)
        if there is None:
            _claim_new(ledger, Identity.of(job, checkpoint_digest), announced)
            continue
        stored = there.epoch
        there = there.with_files(settled(there.files, there.digests, manifest.files, ledger.storage))
        if not redo_changed:
            check_unchanged(ledger, there, manifest, job)
        redone = _redone(there, manifest) if redo_changed else []
        if redone:
            _check_current(manifest, ledger.discover(job))
        ready = _with_listing(ledger, manifest)
        epoch = next_epoch(there, ready, ledger.storage, redone=redone)
        if redone:
            epoch = _unpacked(ledger, there, epoch)
        if stored.number and epoch.same_content(stored):
            run = replace(there, epoch=stored)
        elif _open(ledger, epoch):
            run = replace(there, epoch=epoch)
        else:
            continue
        # After the epoch: a death in between leaves a listing that the next run finds as outdated as this one did.
        for one in manifest.replaced:
            ledger.storage.write(ledger.listing_uri(one.name), one.listing)
        if run.epoch.since:
            finish_withdrawals(ledger, run)
        return run, replace(ready, listing=None)
    raise OutputError(f"{ledger.output_uri} changes too fast to join", remedy="Run the same command again.")


def take_back(ledger: Ledger, job: Job, files: Sequence[ManifestFile]) -> list[ManifestFile]:
    """Take back the rows of those of `files` that the manifest does not have; `audit/prune.py` has the guards.

    Returns:
        The files whose rows went.
    """
    gone: list[ManifestFile] = []

    def next_one(run: Run) -> Epoch:
        # Looked at after the epoch: a file that came back, and another run's rows of it, are left alone.
        names = {one.name for one in files}
        gone[:] = [one for one in removed(run.files, ledger.discover(job).files) if one.name in names]
        return _unpacked(ledger, run, without(run, gone))

    epoch = open_epoch(ledger, next_one)
    run = replace(ledger.recorded(), epoch=epoch)
    withdraw(ledger, run, [one.key for one in gone])
    settle_packs(ledger, run)
    return gone


def take_back_units(ledger: Ledger, units: Collection[UnitId]) -> Epoch:
    """Open an epoch in which the commits so far of these units do not count any more, to repair them."""
    return open_epoch(ledger, lambda run: _unpacked(ledger, run, redoing(run, sorted(units))))


def open_epoch(ledger: Ledger, next_one: Callable[[Run], Epoch]) -> Epoch:
    """Open the epoch that `next_one` makes of the current run; it is asked again where another process was faster.

    Raises:
        OutputError: there is no output, or others open epochs all the time.
    """
    for _ in range(ATTEMPTS):
        epoch = next_one(ledger.recorded())
        if _open(ledger, epoch):
            return epoch
    raise OutputError(f"{ledger.output_uri} changes too fast", remedy="Run the same command again.")


def _unpacked(ledger: Ledger, run: Run, epoch: Epoch) -> Epoch:
    """`epoch`, its packs without the units whose commits it takes back."""
    after = replace(run, epoch=epoch)
    keys = {one.key for one in epoch.files}

    def is_gone(unit: UnitId) -> bool:
        return unit.file_key not in keys or after.since(unit) == epoch.number

    return replace(epoch, packs=without_units(ledger, run, is_gone))


def _check_current(manifest: Manifest, now: Manifest) -> None:
    """Refuse to redo for a manifest that is out of date: another run may have made the rows of the present one.

    The epoch was read before `now` was looked at, so that a redo in between shows as a later epoch.

    Raises:
        ManifestError: it is.
    """
    if changed(manifest.files, now.files) or removed(manifest.files, now.files) or manifest.replaced != now.replaced:
        raise ManifestError("The manifest changed while this run began.", remedy="Run the same command again.")


def _redone(there: Run, manifest: Manifest) -> list[str]:
    """File keys of changed manifest files, and unit ids of replaced images."""
    keys = {one.name: one.key for one in manifest.files}
    files = [one.key for one in changed(there.files, manifest.files)]
    units = {
        unit_of(keys[one.name], row, there.rows_per_unit)
        for one in manifest.replaced
        if one.name in keys
        for row in one.rows
    }
    return [*files, *sorted(units)]


def _with_listing(ledger: Ledger, manifest: Manifest) -> Manifest:
    """The manifest with the listing of new images stored, so that their row numbers stay what they are."""
    if manifest.listing is None:
        return manifest
    files: Sequence[ManifestFile] = [
        one if one.uri else replace(one, uri=ledger.listing_uri(one.name)) for one in manifest.files
    ]
    for before, now in zip(manifest.files, files, strict=True):
        if not before.uri:
            ledger.storage.write(now.uri, manifest.listing)
    return replace(manifest, files=tuple(files))


def _open(ledger: Ledger, epoch: Epoch) -> bool:
    """Whether this epoch is the one that counts under its number."""
    return ledger.storage.put_if_absent(ledger.uri(epoch_path(epoch.number)), epoch.to_json())


def _claim_new(ledger: Ledger, identity: Identity, announced: Counter[str]) -> None:
    """Put `run.json` if there is none; the caller reads back whose it is. Args: announced: as of `_claim_weakly`."""
    if ledger.storage.conditional(ledger.output_uri):
        ledger.storage.put_if_absent(ledger.uri(RUN), identity.to_json())
    else:
        _claim_weakly(ledger, identity, announced)


def _claim_weakly(ledger: Ledger, identity: Identity, announced: Counter[str]) -> None:
    """Decide between claimants on a store that puts without conditions.

    Each announces itself, waits until every other's announcement must be there, and the first by name writes. A process
    that sleeps longer than that between its two steps can still collide with another.

    Args:
        announced: how often this process has seen each announcement of others. One that stays is of a process that
            died: it decides nothing, and is deleted.
    """
    name = f"{CLAIMS}/{secrets.token_hex(8)}.json"
    mine = ledger.uri(name)
    ledger.storage.write(mine, json.dumps({"name": identity.name, "fingerprint": identity.fingerprint}).encode())
    try:
        time.sleep(SETTLE_S)
        others = [path for path in ledger.list(CLAIMS, suffix=".json") if path != name]
        announced.update(others)
        dead = [path for path in others if announced[path] > LOOKS]
        ledger.storage.delete_all(map(ledger.uri, dead))
        if not any(path < name for path in others if path not in dead):
            ledger.storage.put_if_absent(ledger.uri(RUN), identity.to_json())
            ledger.storage.delete_all(map(ledger.uri, others))  # decided: theirs mean nothing any more
        else:
            time.sleep(SETTLE_S)
    finally:
        ledger.storage.delete(mine)
