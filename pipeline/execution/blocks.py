"""The Arrow blocks that Ray Data moves between stages: one row a block, which is one unit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from unipic.pipeline.records import Receipt, Unit
from unipic.pipeline.supervision.failures import Failure

BLOCK = pa.schema([("unit", pa.string()), ("payload", pa.large_binary()), ("error", pa.string())])
"""`payload`: an Arrow IPC stream, opened without copying, or a receipt; null where there is nothing to work on."""


@dataclass(frozen=True)
class Outcome:
    """The end of one unit: a receipt, a failure, or neither (the run was stopping before the unit began)."""

    unit: Unit
    receipt: Receipt | None = None
    failure: Failure | None = None

    @classmethod
    def of(cls, row: dict[str, Any]) -> Outcome:
        """The outcome in a row of the last stage's block."""
        return cls(
            unit=Unit.from_json(row["unit"]),
            receipt=Receipt.from_json(row["payload"]) if row["payload"] else None,
            failure=Failure(**json.loads(row["error"])) if row["error"] else None,
        )


def pack(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def unpack(payload: pa.LargeBinaryScalar) -> pa.Table:
    return pa.ipc.open_stream(payload.as_buffer()).read_all()


def block(unit: str, payload: pa.Buffer | None = None, error: str | None = None) -> pa.Table:
    """One row of `BLOCK`; `unit` is JSON."""
    if payload is None:
        column = pa.nulls(1, pa.large_binary())
    else:  # around the bytes as they are: a unit of images is too large to copy
        offsets = pa.py_buffer(np.array([0, payload.size], np.int64))
        column = pa.LargeBinaryArray.from_buffers(pa.large_binary(), 1, [None, offsets, payload])
    return pa.table([[unit], column, pa.array([error], pa.string())], schema=BLOCK)


def through_stage(stage: str, batch: pa.Table, work: Callable[[Unit, Any], pa.Buffer | None]) -> pa.Table:
    """The block that comes out of `stage` when the one in `batch` goes in.

    A stage never raises, since that would abort the whole run: an exception from `work` becomes the block's error, and
    later stages pass that block on untouched.
    """
    unit, payload, error = (batch.column(column)[0] for column in BLOCK.names)
    if error.as_py() is not None or (stage != "prepare" and not payload.is_valid):
        return block(unit.as_py(), None, error.as_py())
    try:
        return block(unit.as_py(), work(Unit.from_json(unit.as_py()), payload))
    except Exception as caught:
        return block(unit.as_py(), None, json.dumps(asdict(Failure.of(caught, stage))))
