"""Preflight on the cluster: one replica loads and answers a row before any other loads and before any unit is tried.

It is the pool's own first replica, so that no model is loaded twice.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from unipic.pipeline.context import RunContext
from unipic.pipeline.errors import EngineError, UniPicError
from unipic.pipeline.records import Unit
from unipic.pipeline.stages.engine import Engine, MakeEngine
from unipic.pipeline.stages.infer import Replica
from unipic.pipeline.stages.prepare import PREPARED, prepare
from unipic.pipeline.supervision.failures import Failure, essence
from unipic.pipeline.supervision.supervisor import Door
from unipic.pipeline.supervision.watchdog import time_limit

POLL_S = 0.1
PLAIN_PROMPT = "a grey square"


def admitted(context: RunContext, door: Door, make_engine: MakeEngine, *, unit: Unit, actor: str) -> Replica | None:
    """A replica, once the run's first one is known to work; None where the run is stopping before that.

    Args:
        unit: whose first row the first replica tries.
        actor: tells this replica from others, and stays the same when its process dies and is started again.
    """
    while (word := door.may_load(actor)) == "wait":
        time.sleep(POLL_S)
    if word == "leave":
        return None
    started = time.monotonic()
    replica = Replica(context, door, make_engine)
    if word == "first":
        try:
            if replica.broken is not None:
                raise replica.broken
            door.trial_loaded(time.monotonic() - started)
            door.trial_passed(prove(replica.engine, unit, context))
        except EngineError as error:
            door.trial_failed(Failure.of(error, "preflight"))
    return replica


def row_of(unit: Unit) -> Unit:
    """The first row of `unit` alone, with one sample."""
    row, sample = unit.only[0] if unit.only else (unit.first_row, 0)
    return replace(unit, first_row=row, rows=1, only=((row, sample),))


def prove(engine: Engine, unit: Unit, context: RunContext) -> str:
    """Have a loaded engine answer the first row of `unit`, and a plain one where that row is at fault itself.

    Returns:
        What came of it, in words.

    Raises:
        EngineError: the engine cannot answer a row that nothing is wrong with.
    """
    started = time.monotonic()
    fault = _first_row(engine, unit, context)
    if not fault:
        return f"one row answered in {time.monotonic() - started:.1f} s"
    started = time.monotonic()
    try:
        _answer(engine, unit, context, _plain_row(context))
    except Exception as error:
        raise EngineError(f"the replica loaded its model, and cannot answer a row: {essence(error)}") from error
    return f"the first row is at fault ({fault}), another answered in {time.monotonic() - started:.1f} s"


def _first_row(engine: Engine, unit: Unit, context: RunContext) -> str:
    """What is wrong with the first row, or the empty word."""
    try:
        (row,) = prepare(row_of(unit), context).select(PREPARED.names).to_pylist()
    except UniPicError as error:  # its unit will say so too, and whether that may pass
        return error.message
    except Exception as error:  # so will it of this, with a traceback; what is tried here is the replica
        return essence(error)
    if row["fault"] is not None:
        return f"{row['fault']['kind']}: {row['fault']['message']}"
    if (why := engine.fault_of(row["prompt"])) is not None:
        return str(why)
    try:
        _answer(engine, unit, context, row)
    except Exception as error:
        return essence(error)
    return ""


def _answer(engine: Engine, unit: Unit, context: RunContext, row: dict[str, Any]) -> None:
    with time_limit(unit, (0, 1), context):
        answers = engine.answer([row])
    if len(answers) != 1:
        raise EngineError(f"the engine gave {len(answers)} answers for 1 row")


def _plain_row(context: RunContext) -> dict[str, Any]:
    job = context.job
    grey = None if job.task == "generate" else b"\x80" * (3 * job.image_size**2)
    return {"prompt": PLAIN_PROMPT, "seed": 0, "pixels": grey}
