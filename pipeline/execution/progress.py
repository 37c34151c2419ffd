"""What a run reports: its progress, and its result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Stage = Literal["planning", "starting", "running", "stopping", "done"]


@dataclass(frozen=True)
class Progress:
    """How far a run is. Rows are output rows (manifest rows × samples).

    Attributes:
        stage: "starting" until the first replica has answered a row.
        rows_on_the_way: answered by a replica and not committed yet: a unit of large images takes many minutes.
        rows_per_s: committed and on the way, since the first replica was loaded.
        activity: what the run is waiting for while it is starting.
    """

    stage: Stage
    rows_total: int = 0
    rows_ok: int = 0
    rows_rejected: int = 0
    rows_earlier: int = 0
    rows_on_the_way: int = 0
    units_total: int = 0
    units_done: int = 0
    replicas: int = 0
    rows_per_s: float = 0.0
    eta_s: float | None = None
    message: str = ""
    activity: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
        outcome: "done" (every row accounted for), "rejected" (more rows rejected than allowed), "stopped" (resumable).
        rows, ok, rejected: of the whole output, this run's and earlier ones'.
        earlier: rows that earlier runs had done.
        seconds: this run's.
        message: why it ended like this, where that needs saying.
    """

    outcome: Literal["done", "rejected", "stopped"]
    rows: int
    ok: int
    rejected: int
    earlier: int
    seconds: float
    message: str
    output: str


OnProgress = Callable[[Progress], None]
