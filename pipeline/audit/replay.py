"""Make one row again from what its output says of it, and hold the two against each other.

Arithmetic rounds differently in micro-batches of another size, so the row's whole micro-batch is made again as its
unit's receipt describes it: then the digests must be equal on the same kind of hardware.
"""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from unipic.pipeline.audit.expectation import reached_with, recorded_job
from unipic.pipeline.audit.images import image_bytes
from unipic.pipeline.audit.output_rows import OutputRows, Place
from unipic.pipeline.audit.report import Problem, ProblemKind
from unipic.pipeline.audit.trace import Found, find
from unipic.pipeline.context import RunContext
from unipic.pipeline.errors import CheckpointError, EngineError, JobError, ManifestError, UniPicError
from unipic.pipeline.lineage import sha256
from unipic.pipeline.output.changes import settled_in_place
from unipic.pipeline.output.layout import Named
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.records import Receipt, Unit
from unipic.pipeline.stages.checkpoint_cache import describe
from unipic.pipeline.stages.commit import micro_batch
from unipic.pipeline.stages.engine import MakeEngine, UniPicEngine
from unipic.pipeline.stages.infer import Replica
from unipic.pipeline.stages.parts import data_rows
from unipic.pipeline.stages.prepare import prepare
from unipic.pipeline.storage.storage import Storage
from unipic.pipeline.supervision.client import LocalClient

PATIENCE_S = 86_400.0  # whoever replays sees it hang and may interrupt: no watchdog is to end the command for them


@dataclass(frozen=True)
class Replayed:
    """The row made again beside the row as stored.

    Attributes:
        identical: the digests agree.
        expected, made: SHA-256 of the stored output and of the new one.
        before, after: encoded pictures, or UTF-8 captions.
        max_difference: largest difference of two pixels, 0 to 255; None for captions.
        differing_px: how many pixels differ; None for captions.
        exact: False where the row's micro-batch cannot be had again as it was (it was not cut as planned, or a
            neighbour's picture is gone): 1/255 is all that is promised then, and of a caption nothing.
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

    @property
    def as_promised(self) -> bool:
        near = self.max_difference is None or self.max_difference <= 1
        return self.identical or (near and not self.exact)


def replay(
    output_uri: str,
    row: str,
    storage: Storage,
    *,
    against: bytes | None = None,
    make_engine: MakeEngine = UniPicEngine,
) -> Replayed:
    """Make `row` (see `unipic.pipeline.audit.trace.find`) again.

    Args:
        against: compare with this file instead of what the output holds.

    Raises:
        JobError: the row, its manifest or its checkpoint is not what it was.
        EngineError: the model cannot be loaded here.
    """
    found = find(output_uri, row, storage)
    replayer = Replayer(output_uri, storage, make_engine=make_engine)
    return replayer.replay(found, against=against)


def replay_sample(
    output_uri: str,
    rows: int,
    storage: Storage,
    *,
    damaged: Collection[str] = (),
    make_engine: MakeEngine = UniPicEngine,
) -> Iterator[Problem]:
    """Make `rows` randomly chosen rows again; a problem for each that comes out otherwise than promised, or not at all.

    Args:
        damaged: ids of units that are passed by.
    """
    if not rows:
        return
    replayer = Replayer(output_uri, storage, make_engine=make_engine)
    for found in replayer.rows.sample(rows, damaged):
        row = found.row["lineage"]["source_row"]
        try:
            again = replayer.replay(found)
        except UniPicError as error:
            yield Problem(ProblemKind.CANNOT_REPLAY, found.part, f"row {row}: {error}")
            if isinstance(error, EngineError | CheckpointError):
                return  # nor can any other
            continue
        if not again.as_promised:
            by = "" if again.max_difference is None else f", by up to {again.max_difference} of 255"
            yield Problem(ProblemKind.DIFFERS, found.part, f"row {row} comes out otherwise{by}")


class Replayer:
    """Holds a replica for any number of rows of one output, one for each kind of device it was made on."""

    def __init__(self, output_uri: str, storage: Storage, *, make_engine: MakeEngine = UniPicEngine) -> None:
        self.storage = storage
        self.ledger = Ledger(output_uri, storage)
        run = self.ledger.recorded()
        self.run = run.with_files(settled_in_place(run.files, run.digests, storage))
        self.snapshot = self.ledger.snapshot(run)
        self.rows = OutputRows(self.ledger, self.snapshot)
        self.make_engine = make_engine
        self.replicas: dict[str, Replica] = {}

    def replay(self, found: Found, *, against: bytes | None = None) -> Replayed:
        lineage = found.row["lineage"]
        place = self.rows.place(found)
        named = place.named
        latest = self.snapshot.revision(named.unit) or named.revision
        receipt = self.ledger.receipt(named.unit, latest)
        size = micro_batch(receipt, place.part)
        context = self._context(receipt, lineage["checkpoint"], size or 1)
        unit = replace(self._unit(receipt, named), only=self._together(place, size or 1))
        prepared = prepare(unit, context)
        _refuse_fault(prepared, lineage)
        answered = self._replica(context).answer(unit, prepared)
        _refuse_fault(answered, lineage)
        rows, files = data_rows(unit, answered, context)
        again = [one for one in rows if one["lineage"]["lineage_id"].hex() == lineage["lineage_id"]]
        if not again:
            raise ManifestError(
                f"row {lineage['source_row']} of {lineage['source_file']} no longer gives {lineage['lineage_id'][:16]}",
                remedy="Its manifest row or picture changed since.",
            )
        before = against if against is not None else self._stored(place)
        after = _output(again[0], files)
        max_difference, differing = _difference(before, after) if "caption" not in again[0] else (None, None)
        resized = receipt.resized or json.loads(answered.schema.metadata[b"facts"])["resized"]
        return Replayed(
            lineage_id=lineage["lineage_id"],
            identical=sha256(before) == sha256(after),
            expected=sha256(before),
            made=sha256(after),
            before=before,
            after=after,
            max_difference=max_difference,
            differing_px=differing,
            exact=size is not None and not resized and len(rows) == len(unit.only),
        )

    def _unit(self, receipt: Receipt, named: Named) -> Unit:
        file = next((one for one in self.run.files if one.name == receipt.file), None)
        if file is None:
            raise ManifestError(f"{receipt.file} is not in run.json any more")
        return Unit(file, receipt.first_row, receipt.rows, revision=named.revision)

    def _together(self, place: Place, size: int) -> tuple[tuple[int, int], ...]:
        """(row, sample) of the rows that were on the device with this one: a part has what one try answered, in order.

        Rows that failed on the device are missing in it, but then its micro-batches count as resized.
        """
        lineages = self.rows.column(place, "lineage")
        first = place.at - place.at % size
        return tuple((one["source_row"], one["sample_index"]) for one in lineages.slice(first, size).to_pylist())

    def _context(self, receipt: Receipt, checkpoint: str, size: int) -> RunContext:
        job = reached_with(recorded_job(self.run), self.storage)
        device = receipt.facts.device  # a run may have been resumed with other settings than run.json has
        changes = {
            "compute": job.compute.model_copy(update={"batch_size": size}),
            "limits": job.limits.model_copy(update={"batch_timeout_s": PATIENCE_S}),
            "model": job.model.model_copy(update={"device": device} if device in ("cpu", "cuda") else {}),
        }
        info = describe(job.model.checkpoint, self.storage)
        if info.digest != checkpoint:
            raise CheckpointError(
                f"{job.model.checkpoint} now has digest {info.digest[:16]}, the row was made with {checkpoint[:16]}",
                remedy="Put the checkpoint back that the job used.",
            )
        # What else its manifest brings, such as the lineage of its picture, changes nothing in what is made.
        return RunContext(job.model_copy(update=changes), checkpoint, columns=())

    def _replica(self, context: RunContext) -> Replica:
        """Raises EngineError where the model cannot be loaded here."""
        device = context.job.model.device
        if device not in self.replicas:
            self.replicas[device] = Replica(context, LocalClient(), self.make_engine)
        replica = self.replicas[device]
        if replica.broken is not None:
            compute = context.job.compute
            had = f"device {device}, {compute.gpus_per_replica} GPUs and {compute.cpus_per_replica} CPUs a replica"
            remedy = f"A row is made again with the checkpoint and on the hardware of its job: {had}."
            raise EngineError(replica.broken.message, remedy=remedy) from replica.broken
        replica.planned_batch_size = replica.batch_size = int(context.job.compute.batch_size)
        return replica

    def _stored(self, place: Place) -> bytes:
        column = "caption" if self.run.task == "caption" else "image"
        value = self.rows.column(place, column)[place.at].as_py()
        return value.encode() if column == "caption" else image_bytes(value, self.ledger.output_uri, self.storage)


def _refuse_fault(rows: pa.Table, lineage: Mapping[str, Any]) -> None:
    """Raises ManifestError where the row can no longer be prepared, or answered."""
    for one in rows.select(["row", "sample", "fault"]).to_pylist():
        if (one["row"], one["sample"]) == (lineage["source_row"], lineage["sample_index"]) and one["fault"] is not None:
            raise ManifestError(
                f"row {one['row']} of {lineage['source_file']} cannot be made again: "
                f"{one['fault']['kind']}: {one['fault']['message']}",
                remedy="Its manifest row or picture must be as it was, and within reach from this folder.",
            )


def _output(row: Mapping[str, Any], files: Mapping[str, bytes]) -> bytes:
    """What a data row of `data_rows` holds, or has beside it."""
    if "caption" in row:
        return row["caption"].encode()
    image = row["image"]
    return image["bytes"] if image["bytes"] is not None else files["images/" + image["path"].rsplit("/", 1)[1]]


def _difference(before: bytes, after: bytes) -> tuple[int, int]:
    """(largest difference of a channel, pixels that differ) of two encoded pictures.

    Raises:
        JobError: they are not of one size, or one is no picture.
    """
    try:
        left, right = (np.asarray(Image.open(io.BytesIO(one)).convert("RGB"), np.int16) for one in (before, after))
    except (OSError, ValueError, SyntaxError) as error:
        raise JobError(f"what the row is compared with is no picture: {error}") from error
    if left.shape != right.shape:
        raise JobError(f"the pictures differ in size: {left.shape[:2]} and {right.shape[:2]}")
    gap = np.abs(left - right)
    return int(gap.max()), int((gap.max(axis=-1) > 0).sum())
