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
from unipic.pipeline.errors import EngineError, RejectionKind
from unipic.pipeline.records import Unit
from unipic.pipeline.stages.engine import MakeEngine, UniPicEngine
from unipic.pipeline.stages.tables import ANSWERED, KEEP
from unipic.pipeline.supervision.bisection import CRASHES_BEFORE_SPLIT, decide, halves
from unipic.pipeline.supervision.client import SupervisorClient
from unipic.pipeline.supervision.failures import essence
from unipic.pipeline.supervision.health import Rows
from unipic.pipeline.supervision.watchdog import time_limit

Fault = dict[str, Any]


class Replica:
    """Holds one engine and turns prepared rows into answers.

    Safe to call from several threads: one unit is unpacked or packed while another is on the device.

    Raises:
        EngineError: from `answer`, with the cause, when the engine could not be loaded.
    """

    def __init__(
        self, context: RunContext, supervisor: SupervisorClient, make_engine: MakeEngine = UniPicEngine
    ) -> None:
        self.context = context
        self.supervisor = supervisor
        self.name = f"{socket.gethostname()}:{os.getpid()}:{id(self):x}"
        self.device_lock = threading.Lock()
        self.broken: EngineError | None = None
        supervisor.replica_loading(self.name)
        try:
            context.enter_folder()
            self.engine = make_engine(context)
            wanted = context.job.compute.batch_size
            self.planned_batch_size = max(1, self.engine.max_batch() if wanted == "auto" else wanted)
            self.batch_size = self.planned_batch_size
        except Exception as error:
            # Ray would restart a replica that cannot load for ever: the first unit reports the reason instead.
            self.broken = EngineError(f"the replica could not load its model: {essence(error)}")
            self.broken.__cause__ = error
        supervisor.replica_loaded(self.name)

    def answer(self, unit: Unit, prepared: pa.Table, crashed: Sequence[Rows] = ()) -> pa.Table:
        """Answer every valid row of `prepared`.

        Args:
            crashed: micro-batches of this unit that killed earlier replicas, as the supervisor knows them.

        Returns:
            A table of `ANSWERED` and the `keep` columns.
        """
        if self.broken is not None:
            raise self.broken
        started = time.monotonic()
        rows = prepared.drop_columns([n for n in prepared.column_names if n.startswith(KEEP)]).to_pylist()
        faults: list[Fault | None] = [row["fault"] for row in rows]
        answers: list[bytes | str | None] = [None] * len(rows)
        for at, row in enumerate(rows):
            if faults[at] is None and (refusal := self.engine.fault_of(row["prompt"])) is not None:
                faults[at] = {
                    "kind": RejectionKind.PROMPT_REFUSED,
                    "message": refusal,
                    "stage": "replica",
                    "attempts": 1,
                }
        valid = [at for at, fault in enumerate(faults) if fault is None]
        batches = _Batches(self, unit, [rows[at] for at in valid], crashed)
        for position, outcome in batches.run():
            if isinstance(outcome, dict):
                faults[valid[position]] = outcome
            else:
                answers[valid[position]] = outcome
        self.supervisor.flush()
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
    ours = {"answer": raw, "fault": faults}
    names = [*ANSWERED.names, *(name for name in prepared.column_names if name.startswith(KEEP))]
    columns = [pa.array(ours[n], ANSWERED.field(n).type) if n in ours else prepared.column(n) for n in names]
    return pa.table(columns, names=names).replace_schema_metadata({"facts": json.dumps(facts)})


class _Batches:
    """One unit's micro-batches, in row order; smaller ones where one failed.

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
        """Answer `rows`; `suspect` says they are part of a micro-batch that failed."""
        what = decide(rows, self.crashed, suspect=suspect)
        if what == "reject":
            message = f"{CRASHES_BEFORE_SPLIT} replicas died while they worked on this row alone"
            yield rows[0], _fault(RejectionKind.REPLICA_CRASHED, message, attempts=CRASHES_BEFORE_SPLIT)
        elif what == "halve":
            yield from self._halves(rows)
        else:
            yield from self._attempt(rows)

    def _halves(self, rows: Rows) -> Iterator[tuple[int, bytes | str | Fault]]:
        self.resized = True
        for half in halves(rows):
            yield from self._part(half, suspect=True)

    def _attempt(self, rows: Rows) -> Iterator[tuple[int, bytes | str | Fault]]:
        first, last = rows
        try:
            answers = self._on_device(rows)
        except MemoryError as error:
            if last - first == 1:
                yield first, _fault(RejectionKind.OUT_OF_MEMORY, str(error) or "one row alone does not fit")
                return
            # What fitted is remembered: the next micro-batch, and the next unit, start from it.
            self.size = self.replica.batch_size = min(self.size, (last - first + 1) // 2)
            yield from self._halves(rows)
        except Exception as error:
            if last - first == 1:
                message = f"{type(error).__name__}: {error}"
                yield first, _fault(RejectionKind.REPLICA_FAILED, message)
                return
            yield from self._halves(rows)
        else:
            yield from enumerate(answers, start=first)

    def _on_device(self, rows: Rows) -> list[bytes | str]:
        first, last = rows
        with self.replica.device_lock:
            self.replica.supervisor.attempt(self.unit.id, rows, self.replica.name)
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
                self.replica.supervisor.answered(self.unit.id, rows, done)
        return answers


def _fault(kind: str, message: str, *, attempts: int = 1) -> Fault:
    """`attempts`: how often the row was attempted alone. Those of its unit are in the receipt: they vary from run to
    run, and the rejected part must not."""
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
        # The rest of torch's message (free bytes, process ids) varies from attempt to attempt, and parts must not.
        raise MemoryError(str(error).splitlines()[0].split(" GPU ")[0]) from error
