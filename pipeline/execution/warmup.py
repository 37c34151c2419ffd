"""The warm-up: one replica loads and answers a row before any other loads and before any unit begins.

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
from unipic.pipeline.stages.prepare import prepare
from unipic.pipeline.stages.tables import PREPARED
from unipic.pipeline.supervision.client import SupervisorClient
from unipic.pipeline.supervision.failures import Failure, essence
from unipic.pipeline.supervision.watchdog import time_limit

POLL_S = 0.1
PLAIN_PROMPT = "a grey square"


def admit(
    context: RunContext, supervisor: SupervisorClient, make_engine: MakeEngine, *, unit: Unit, actor: str
) -> Replica | None:
    """A replica, once the run's first one is known to work; None where the run is stopping before that.

    Args:
        unit: its first row is the warm-up row.
        actor: tells this replica from others, and stays the same when its process dies and is restarted.
    """
    while (permission := supervisor.request_load(actor)) == "wait":
        time.sleep(POLL_S)
    if permission == "leave":
        return None
    started = time.monotonic()
    replica = Replica(context, supervisor, make_engine)
    if permission == "warm up":
        try:
            if replica.broken is not None:
                raise replica.broken
            supervisor.warmup_loaded(time.monotonic() - started)
            supervisor.warmup_passed(warm_up(replica.engine, unit, context))
        except EngineError as error:
            supervisor.warmup_failed(Failure.of(error, "preflight"))
    return replica


def row_of(unit: Unit) -> Unit:
    """The first row of `unit` alone, with one sample."""
    row, sample = unit.only[0] if unit.only else (unit.first_row, 0)
    return replace(unit, first_row=row, rows=1, only=((row, sample),))


def warm_up(engine: Engine, unit: Unit, context: RunContext) -> str:
    """Have a loaded engine answer the first row of `unit`; a plain row where that one is to be rejected.

    Returns:
        How it went, in words.

    Raises:
        EngineError: the engine cannot answer a valid row.
    """
    started = time.monotonic()
    reason = _answer_first_row(engine, unit, context)
    if not reason:
        return f"one row answered in {time.monotonic() - started:.1f} s"
    started = time.monotonic()
    try:
        _answer(engine, unit, context, _plain_row(context))
    except Exception as error:
        raise EngineError(f"the replica loaded its model but cannot answer a row: {essence(error)}") from error
    return f"the first row failed ({reason}), a plain row was answered in {time.monotonic() - started:.1f} s"


def _answer_first_row(engine: Engine, unit: Unit, context: RunContext) -> str:
    """Why the first row has no answer, or ""."""
    try:
        (row,) = prepare(row_of(unit), context).select(PREPARED.names).to_pylist()
    except UniPicError as error:  # its unit will report it too, and whether it may be temporary
        return error.message
    except Exception as error:  # so will it this, with a traceback; what is tested here is the replica
        return essence(error)
    if row["fault"] is not None:
        return f"{row['fault']['kind']}: {row['fault']['message']}"
    if (refusal := engine.fault_of(row["prompt"])) is not None:
        return str(refusal)
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
