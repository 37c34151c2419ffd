"""Make one row again from what its output says of it, and hold the two against each other.

Arithmetic rounds differently in micro-batches of another size, so the row's whole micro-batch is made again as its
unit's receipt describes it: then the digests must be equal on the same kind of hardware.
"""

from __future__ import annotations

import io
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from pydantic import TypeAdapter

from pipeline.context import RunContext
from pipeline.errors import CheckpointError, JobError, ManifestError
from pipeline.job import AnyJob
from pipeline.ledger import Ledger, part_of
from pipeline.lineage import sha256
from pipeline.parquet_file import read_parquet
from pipeline.parts import data_rows
from pipeline.prepare import prepare
from pipeline.records import Receipt, Unit
from pipeline.replica import MakeEngine, Replica, UniPicEngine
from pipeline.storage import Storage, join
from pipeline.supervisor import LocalDoor
from pipeline.trace import Found, find
from pipeline.verify import Problem
from pipeline.weights import describe


@dataclass(frozen=True)
class Replayed:
    """The row made again beside the row as stored.

    Attributes:
        identical: the digests agree.
        expected, made: SHA-256 of the stored output and of the new one.
        before, after: encoded pictures, or UTF-8 captions.
        max_difference: largest difference of two pixels, 0 to 255; None for captions.
        differing_px: how many pixels differ; None for captions.
        exact: False where the unit's micro-batches were not cut as planned, so that 1/255 is all that is promised.
    """

    lineage_id: str
    identical: bool
    expected: str
    made: str
    before: bytes
    after: bytes
    max_difference: int | None
    differing_px: int | None
    exact: bool


def replay(
    output_uri: str,
    row: str,
    storage: Storage,
    *,
    against: bytes | None = None,
    make_engine: MakeEngine = UniPicEngine,
) -> Replayed:
    """Make `row` (see `pipeline.trace.find`) again.

    Args:
        against: compare with this file instead of what the output holds.

    Raises:
        JobError: the row, its manifest or its checkpoint is not what it was.
    """
    found = find(output_uri, row, storage)
    replayer = Replayer(output_uri, storage, make_engine=make_engine)
    return replayer.replay(found, against=against)


def replay_sample(
    output_uri: str, rows: int, storage: Storage, *, make_engine: MakeEngine = UniPicEngine
) -> Iterator[Problem]:
    """Make `rows` randomly chosen rows again; a problem for each that comes out otherwise than promised."""
    if not rows:
        return
    replayer = Replayer(output_uri, storage, make_engine=make_engine)
    for found in _random_rows(output_uri, rows, storage):
        again = replayer.replay(found)
        close = not again.exact and again.max_difference is not None and again.max_difference <= 1
        if not again.identical and not close:
            by = "" if again.max_difference is None else f", by up to {again.max_difference} of 255"
            row = found.row["lineage"]["source_row"]
            yield Problem("differs when replayed", found.part, f"row {row} comes out otherwise{by}")


def _random_rows(output_uri: str, rows: int, storage: Storage) -> Iterator[Found]:
    """Rows of randomly chosen parts: reading a few parts is enough, however many there are."""
    parts = list(storage.list(join(output_uri, "data"), suffix=".parquet"))
    chance = random.SystemRandom()
    for part in (chance.choice(parts) for _ in range(rows if parts else 0)):
        lineages = read_parquet(storage.open(part.uri), ["lineage"]).column("lineage")
        at = chance.randrange(len(lineages))
        yield Found(output_uri, part.uri, at, {"lineage": lineages[at].as_py()})


class Replayer:
    """Holds one replica for any number of rows of one output."""

    def __init__(self, output_uri: str, storage: Storage, *, make_engine: MakeEngine = UniPicEngine) -> None:
        self.storage = storage
        self.ledger = Ledger(output_uri, storage)
        self.run = self.ledger.recorded()
        self.make_engine = make_engine
        self.replica: Replica | None = None

    def replay(self, found: Found, *, against: bytes | None = None) -> Replayed:
        lineage = found.row["lineage"]
        receipt = self._receipt(found)
        unit = self._unit(receipt)
        context = self._context(receipt, lineage["checkpoint"])
        self.replica = self.replica or Replica(context, LocalDoor(), self.make_engine)
        batch = self._micro_batch(prepare(unit, context), receipt, lineage)
        rows, files = data_rows(unit, self.replica.answer(unit, batch), context)
        again = [one for one in rows if one["lineage"]["lineage_id"] == lineage["lineage_id"]]
        if not again:
            raise ManifestError(
                f"row {lineage['source_row']} of {lineage['source_file']} no longer gives {lineage['lineage_id'][:16]}",
                remedy="Its manifest row or picture changed since.",
            )
        before = against if against is not None else self._stored(found)
        after = _output(again[0], files)
        max_difference, differing = _difference(before, after) if "caption" not in again[0] else (None, None)
        return Replayed(
            lineage_id=lineage["lineage_id"],
            identical=sha256(before) == sha256(after),
            expected=sha256(before),
            made=sha256(after),
            before=before,
            after=after,
            max_difference=max_difference,
            differing_px=differing,
            # Which rows were tried again together is not on record.
            exact=not receipt.resized and not part_of(found.part)[1],
        )

    def _receipt(self, found: Found) -> Receipt:
        return self.ledger.receipt(part_of(found.part)[0])

    def _unit(self, receipt: Receipt) -> Unit:
        file = next((one for one in self.run.files if one.name == receipt.file), None)
        if file is None:
            raise ManifestError(f"{receipt.file} is not in run.json any more")
        return Unit(file, receipt.first_row, receipt.rows)

    def _context(self, receipt: Receipt, checkpoint: str) -> RunContext:
        size = int(receipt.facts.get("micro_batch") or 1)
        job = TypeAdapter(AnyJob).validate_python({**self.run.job, "compute": {"batch_size": size}}, strict=False)
        info = describe(job.model.checkpoint, self.storage)
        if info.digest != checkpoint:
            raise CheckpointError(
                f"{job.model.checkpoint} now has digest {info.digest[:16]}, the row was made with {checkpoint[:16]}",
                remedy="Put the checkpoint back that the job used.",
            )
        return RunContext(job, checkpoint, columns=self._columns())

    def _columns(self) -> tuple[str, ...]:
        """Only whether the manifest carries lineage matters to `prepare`."""
        uri = self.run.files[0].uri
        return tuple(pq.read_schema(self.storage.open(uri)).names) if uri.endswith(".parquet") else ()

    def _micro_batch(self, prepared: pa.Table, receipt: Receipt, lineage: dict[str, Any]) -> pa.Table:
        """The rows that were on the device together with this one."""
        assert self.replica is not None
        rows = prepared.select(["row", "sample", "prompt", "fault"]).to_pylist()
        fault_of = self.replica.engine.fault_of
        well = [at for at, one in enumerate(rows) if one["fault"] is None and fault_of(one["prompt"]) is None]
        place = next(
            at
            for at, index in enumerate(well)
            if (rows[index]["row"], rows[index]["sample"]) == (lineage["source_row"], lineage["sample"])
        )
        size = int(receipt.facts.get("micro_batch") or 1)
        first = place - place % size
        return prepared.take(pa.array(well[first : first + size]))

    def _stored(self, found: Found) -> bytes:
        column = "caption" if self.run.task == "caption" else "image"
        value = read_parquet(self.storage.open(found.part), [column]).column(column)[found.at].as_py()
        if column == "caption":
            return value.encode()
        return value["bytes"] if value["bytes"] is not None else self.storage.read(value["path"])


def _output(row: Mapping[str, Any], files: Mapping[str, bytes]) -> bytes:
    """What a data row of `data_rows` holds, or has beside it."""
    if "caption" in row:
        return row["caption"].encode()
    image = row["image"]
    return image["bytes"] if image["bytes"] is not None else files["images/" + image["path"].rsplit("/", 1)[1]]


def _difference(before: bytes, after: bytes) -> tuple[int, int]:
    """(largest difference of a channel, pixels that differ) of two encoded pictures.

    Raises:
        JobError: they are not of one size.
    """
    left, right = (np.asarray(Image.open(io.BytesIO(one)).convert("RGB"), np.int16) for one in (before, after))
    if left.shape != right.shape:
        raise JobError(f"the pictures differ in size: {left.shape[:2]} and {right.shape[:2]}")
    gap = np.abs(left - right)
    return int(gap.max()), int((gap.max(axis=-1) > 0).sum())
