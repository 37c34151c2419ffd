"""Stage two: a replica answers a unit's rows in micro-batches."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from unipic.pipeline.context import RunContext
from unipic.pipeline.crashpoints import crash_point
from unipic.pipeline.errors import EngineError
from unipic.pipeline.records import FAULT, Unit
from unipic.pipeline.stages.engine import MakeEngine, UniPicEngine
from unipic.pipeline.supervision.failures import essence
from unipic.pipeline.supervision.health import Rows
from unipic.pipeline.supervision.supervisor import Door
from unipic.pipeline.supervision.watchdog import time_limit

CRASHES_BEFORE_SPLIT = 2
"""A replica can die of many things; a micro-batch is suspected when it has been there twice."""

Fault = dict[str, Any]


class Replica:
    """Holds one engine and turns prepared rows into answers.

    Safe to call from several threads: one unit is unpacked or packed while another is on the device.

    Raises:
        EngineError: from `answer`, with the cause, when the engine could not be loaded.
    """

    def __init__(self, context: RunContext, door: Door, make_engine: MakeEngine = UniPicEngine) -> None:
        self.context = context
        self.door = door
        self.name = f"{socket.gethostname()}:{os.getpid()}:{id(self):x}"
        self.device_lock = threading.Lock()
        self.broken: EngineError | None = None
        door.loading(self.name)
        try:
            self.engine = make_engine(context)
            wanted = context.job.compute.batch_size
            self.planned_batch_size = max(1, self.engine.max_batch() if wanted == "auto" else wanted)
            self.batch_size = self.planned_batch_size
        except Exception as error:
            # Ray would start a replica that cannot load again and again: the first unit carries the reason out instead.
            self.broken = EngineError(f"the replica could not load its model: {essence(error)}")
            self.broken.__cause__ = error
        door.loaded(self.name)

    def answer(self, unit: Unit, prepared: pa.Table, crashed: Sequence[Rows] = ()) -> pa.Table:
        """Answer every well row of `prepared`.

        Args:
            crashed: micro-batches of this unit that killed earlier replicas, as the supervisor tells them.

        Returns:
            `prepared` without `pixels`, with `answer` (large_binary: pixels, or UTF-8 text) and updated `fault`;
            facts of this attempt stand in the schema's metadata under "facts".
        """
        if self.broken is not None:
            raise self.broken
        started = time.monotonic()
        rows = prepared.drop_columns([n for n in prepared.column_names if n.startswith("keep.")]).to_pylist()
        faults: list[Fault | None] = [row["fault"] for row in rows]
        answers: list[bytes | str | None] = [None] * len(rows)
        for at, row in enumerate(rows):
            if faults[at] is None and (why := self.engine.fault_of(row["prompt"])) is not None:
                faults[at] = {"kind": "PromptRefused", "message": why, "stage": "replica", "attempts": 1}
        well = [at for at, fault in enumerate(faults) if fault is None]
        batches = _Batches(self, unit, [rows[at] for at in well], crashed)
        for position, outcome in batches.run():
            if isinstance(outcome, dict):
                faults[well[position]] = outcome
            else:
                answers[well[position]] = outcome
        self.door.unit_over()
        facts = {
            "replica": self.name,
            "host": socket.gethostname(),
            "micro_batch": batches.size,
            "resized": batches.resized,
            "attempts": batches.attempts,
            "device_s": round(batches.device_s, 4),
            "replica_s": round(time.monotonic() - started, 4),
            **self.engine.facts(),
        }
        return _answered(prepared, answers, faults, facts)


def _answered(
    prepared: pa.Table, answers: Sequence[bytes | str | None], faults: Sequence[Fault | None], facts: dict[str, Any]
) -> pa.Table:
    raw = [one.encode() if isinstance(one, str) else one for one in answers]
    table = prepared.drop_columns(["pixels", "fault"])
    table = table.append_column("answer", pa.array(raw, pa.large_binary()))
    table = table.append_column("fault", pa.array(faults, FAULT))
    return table.replace_schema_metadata({"facts": json.dumps(facts)})


class _Batches:
    """One unit's way over the device: micro-batches in row order, smaller ones where something broke.

    Attributes:
        size: rows a micro-batch in the end.
        resized: True when any micro-batch was not cut as planned.
        attempts: times this unit was started on a replica.
        device_s: seconds on the device.
    """

    def __init__(self, replica: Replica, unit: Unit, rows: list[dict[str, Any]], crashed: Sequence[Rows]) -> None:
        self.replica = replica
        self.unit = unit
        self.rows = rows
        self.size = replica.batch_size
        self.crashed = crashed
        self.attempts = len(self.crashed) + 1
        self.resized = self.size != replica.planned_batch_size
        self.device_s = 0.0

    def run(self) -> Iterator[tuple[int, bytes | str | Fault]]:
        """(position, answer or fault) for every row."""
        first = 0
        while first < len(self.rows):
            last = min(first + self.size, len(self.rows))
            yield from self._part((first, last))
            first = last

    def _part(self, rows: Rows, *, suspect: bool = False) -> Iterator[tuple[int, bytes | str | Fault]]:
        """Answer `rows`; `suspect` says they are part of a micro-batch that has gone wrong."""
        first, last = rows
        deaths = sum(crash == rows for crash in self.crashed)
        inside = any(first <= crash[0] and crash[1] <= last and crash != rows for crash in self.crashed)
        if last - first == 1 and deaths >= CRASHES_BEFORE_SPLIT:
            message = f"replicas died {CRASHES_BEFORE_SPLIT} times while this row was alone on the device"
            yield first, _fault("ReplicaCrashed", message, attempts=CRASHES_BEFORE_SPLIT)
        elif last - first > 1 and (inside or deaths >= (1 if suspect else CRASHES_BEFORE_SPLIT)):
            yield from self._halves(rows)
        else:
            yield from self._try(rows)

    def _halves(self, rows: Rows) -> Iterator[tuple[int, bytes | str | Fault]]:
        self.resized = True
        middle = (rows[0] + rows[1] + 1) // 2
        yield from self._part((rows[0], middle), suspect=True)
        yield from self._part((middle, rows[1]), suspect=True)

    def _try(self, rows: Rows) -> Iterator[tuple[int, bytes | str | Fault]]:
        first, last = rows
        try:
            answers = self._on_device(rows)
        except MemoryError as error:
            if last - first == 1:
                yield first, _fault("OutOfMemory", str(error) or "one row alone does not fit")
                return
            # What fitted is remembered: the next micro-batch, and the next unit, start from it.
            self.size = self.replica.batch_size = min(self.size, (last - first + 1) // 2)
            yield from self._halves(rows)
        except Exception as error:
            if last - first == 1:
                message = f"{type(error).__name__}: {error}"
                yield first, _fault("ReplicaFailed", message)
                return
            yield from self._halves(rows)
        else:
            yield from enumerate(answers, start=first)

    def _on_device(self, rows: Rows) -> list[bytes | str]:
        first, last = rows
        with self.replica.device_lock:
            self.replica.door.attempt(self.unit.id, rows, self.replica.name)
            crash_point("replica.before_batch")
            started = time.monotonic()
            done = 0
            try:
                with _memory_errors(), time_limit(self.unit, rows, self.replica.context):
                    answers = self.replica.engine.answer(self.rows[first:last])
                if len(answers) != last - first:
                    raise EngineError(f"the engine gave {len(answers)} answers for {last - first} rows")
                done = len(answers)
                crash_point("replica.after_batch")
            finally:
                self.device_s += time.monotonic() - started
                self.replica.door.answered(self.unit.id, rows, done)
        return answers


def _fault(kind: str, message: str, *, attempts: int = 1) -> Fault:
    """`attempts`: how often the row was tried alone. The unit's own stand in its receipt: they tell of the weather, and
    would make the rejected part of a run that was disturbed another one."""
    return {"kind": kind, "message": message, "stage": "replica", "attempts": attempts}


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Every library's out-of-memory as Python's own."""
    try:
        yield
    except Exception as error:
        text = str(error).lower()
        if isinstance(error, MemoryError) or not ("out of memory" in text or "can't allocate memory" in text):
            raise
        # What follows in torch's words (free bytes, process ids) is another at each try, and parts must not be.
        raise MemoryError(str(error).splitlines()[0].split(" GPU ")[0]) from error
