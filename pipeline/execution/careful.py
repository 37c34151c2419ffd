"""A unit that has killed workers outside a model is attempted carefully: the rows at fault are found and rejected."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from unipic.pipeline.context import RunContext
from unipic.pipeline.errors import RejectionKind
from unipic.pipeline.records import FAULT, Unit
from unipic.pipeline.stages.parts import data_rows
from unipic.pipeline.stages.prepare import prepare
from unipic.pipeline.supervision.bisection import CRASHES_BEFORE_SPLIT, deadly_rows
from unipic.pipeline.supervision.client import SupervisorClient
from unipic.pipeline.supervision.health import Rows
from unipic.pipeline.supervision.supervisor import task_key

CAREFUL_DEATHS = 50  # of a unit's workers while its rows are halved: nine for one row among 64, seven for each other


def prepare_carefully(unit: Unit, context: RunContext, supervisor: SupervisorClient) -> pa.Table | None:
    """`prepare`, with rows rejected that kill the process that reads or decodes them. None if the run is stopping."""
    rows = sorted({row for row, _ in unit.only}) or list(range(unit.first_row, unit.first_row + unit.rows))
    found = _find(unit, len(rows), lambda part: prepare(_part(unit, rows, part), context), supervisor, "prepare")
    return None if found is None else prepare(unit, context, deadly=frozenset(rows[at] for at in found))


def checked_carefully(
    unit: Unit, answered: pa.Table, context: RunContext, supervisor: SupervisorClient
) -> pa.Table | None:
    """`answered`, with rows rejected that kill the process that encodes them. None if the run is stopping."""

    def encode(part: Rows) -> None:
        data_rows(unit, answered.slice(part[0], part[1] - part[0]), context)

    found = _find(unit, answered.num_rows, encode, supervisor, "commit")
    return None if found is None else _rejected(answered, found)


def _find(
    unit: Unit, count: int, work: Callable[[Rows], object], supervisor: SupervisorClient, stage: str
) -> list[int] | None:
    """Positions of the rows that `work` dies of."""
    worker = f"{socket.gethostname()}:{os.getpid()}"
    key = task_key(unit.id, stage)
    history = supervisor.start_unit(key, worker)
    if history is None:
        return None

    def attempt(part: Rows) -> None:
        supervisor.attempt(key, part, worker)
        work(part)
        supervisor.answered(key, part, 0)

    found = list(deadly_rows((0, count), history.crashed, attempt))
    supervisor.flush()
    return found


def _part(unit: Unit, rows: list[int], part: Rows) -> Unit:
    """`unit` with some of its `rows` alone."""
    chosen = rows[part[0] : part[1]]
    if unit.only:
        return replace(unit, only=tuple(pair for pair in unit.only if pair[0] in set(chosen)))
    return replace(unit, first_row=chosen[0], rows=len(chosen))


def _rejected(answered: pa.Table, positions: list[int]) -> pa.Table:
    if not positions:
        return answered
    fault = {
        "kind": RejectionKind.WORKER_CRASHED,
        "message": f"{CRASHES_BEFORE_SPLIT} processes died while they encoded this row alone",
        "stage": "commit",
        "attempts": CRASHES_BEFORE_SPLIT,
    }
    faults = answered.column("fault").to_pylist()
    for at in positions:
        faults[at] = fault
    table = answered.set_column(answered.column_names.index("fault"), "fault", pa.array(faults, FAULT))
    answers = pc.if_else(pc.is_null(table.column("fault")), table.column("answer"), None)
    return table.set_column(table.column_names.index("answer"), "answer", answers)
