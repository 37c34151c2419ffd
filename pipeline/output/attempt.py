"""One attempt at a unit: files staged under names of its own, published only from the receipt that names them."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from unipic.pipeline.errors import ObjectMissing
from unipic.pipeline.output.layout import DATA, IMAGES, REJECTED, attempt_name, staged_path
from unipic.pipeline.records import Receipt, Unit
from unipic.pipeline.storage.paths import join
from unipic.pipeline.storage.storage import Storage

MOVERS = 8  # images published at once; each move is one small request
ORDER = {IMAGES: 0, REJECTED: 1, DATA: 2}
"""Images are there before the rows that name them, rejected rows before the rows beside them."""


class Attempt:
    """The staging folder of one attempt."""

    def __init__(self, unit: Unit, output_uri: str, storage: Storage) -> None:
        self.name = attempt_name(unit.id, unit.revision, secrets.token_hex(6))
        self.output_uri = output_uri
        self.storage = storage
        self.paths: list[str] = []

    def write(self, path: str, data: bytes) -> None:
        """Stage what is to be published at `path`."""
        self.storage.write(join(self.output_uri, staged_path(self.name, path)), data)
        self.paths.append(path)

    def publish(self) -> None:
        publish(self.name, self.paths, self.output_uri, self.storage, lazily=True)

    def hand_over(self, committed: str) -> None:
        """Hand what was staged over to the committed attempt: whoever takes that back takes it back, too."""
        for path in self.paths:
            source, target = (join(self.output_uri, staged_path(name, path)) for name in (self.name, committed))
            with suppress(ObjectMissing):  # taken back meanwhile, by an epoch that the caller looks for next
                self.storage.move(source, target)

    def discard(self) -> None:
        """Another attempt was committed: nothing of this one will ever be published."""
        self.storage.delete_all(join(self.output_uri, staged_path(self.name, path)) for path in self.paths)


def supersede(before: Receipt, counts: Receipt, output_uri: str, storage: Storage) -> None:
    """Take back the rejected rows of the commit before `counts`: what is staged first, so that no process that wakes
    late publishes it. It comes before `counts` is published, so that readers see no row twice."""
    for part in before.parts:
        if part.path not in {one.path for one in counts.parts}:
            storage.delete(join(output_uri, staged_path(before.attempt, part.path)))
            storage.delete(join(output_uri, part.path))


def publish(attempt: str, paths: Iterable[str], output_uri: str, storage: Storage, *, lazily: bool = False) -> None:
    """Move files of a committed attempt to where readers look. Safe to repeat, and for several processes at once.

    A file that is no longer staged was published by another process, or taken back by a redo, a prune or a retry: a
    process that comes late finds nothing to move, and so it changes nothing.

    Args:
        lazily: on S3, staged copies may stay for a while after they are published: `recover` deletes what is left.
    """

    def move(path: str) -> None:
        try:
            storage.move(join(output_uri, staged_path(attempt, path)), join(output_uri, path), lazily=lazily)
        except ObjectMissing:
            return

    ordered = sorted(paths, key=lambda path: (ORDER[path.split("/", 1)[0]], path))
    images = [path for path in ordered if path.startswith(f"{IMAGES}/")]
    if images:
        with ThreadPoolExecutor(MOVERS) as pool:
            list(pool.map(move, images))
    for path in ordered[len(images) :]:
        move(path)
