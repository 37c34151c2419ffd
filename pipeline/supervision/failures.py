"""Exceptions as data that travels between processes."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

from unipic.pipeline.errors import EngineError, StorageError, UniPicError, redact
from unipic.pipeline.records import Unit

DEATHS_PER_ATTEMPT = 3
"""Workers that may die of a unit in one attempt: fewer may be the machine's doing."""
RESUME = "Committed units are safe; run the same command again to resume."


@dataclass(frozen=True)
class Failure:
    """Why a unit, or the run, failed.

    Attributes:
        kind: class of the exception.
        message: what happened, in words.
        stage: "preflight", "prepare", "replica" or "commit".
        retryable: the unit may be attempted again in this run.
        storage: bytes could not be read or written. The remedy lies outside the job (credentials, space), so the run
            stops and can be resumed.
        deadly: workers died of the unit, so that its next attempt gets a replica to itself.
        details: a traceback, where the message alone does not explain it.
    """

    kind: str
    message: str
    stage: str
    retryable: bool = False
    storage: bool = False
    deadly: bool = False
    details: str = ""

    @classmethod
    def of(cls, error: Exception, stage: str) -> Failure:
        ours = isinstance(error, UniPicError)
        return cls(
            kind=type(error).__name__,
            message=str(error),
            stage=stage,
            retryable=isinstance(error, UniPicError) and error.retryable,
            storage=isinstance(error, StorageError),
            deadly=isinstance(error, WorkersDied),
            details="" if ours and error.__cause__ is None else "".join(traceback.format_exception(error)),
        )


class RayLost(EngineError):
    """Ray is gone, or a part of it that the run needs. The same command starts a new one, or finds the cluster back."""

    retryable = True


class WorkersDied(EngineError):
    """A unit has cost as many workers as one attempt may cost."""

    retryable = True


def check_deaths(unit: Unit, deaths: int, activity: str, *, most: int = DEATHS_PER_ATTEMPT) -> None:
    """Refuse to work on `unit` after `deaths` workers died of it in this attempt.

    Args:
        activity: what they did to the unit, past tense.
        most: how many may.

    Raises:
        WorkersDied: too many. The unit is attempted again after all others, a limited number of times.
    """
    if deaths < most:
        return
    rows = f"rows {unit.first_row} to {unit.first_row + unit.rows - 1}"
    raise WorkersDied(
        f"{unit.file.name}, {rows}: {deaths} processes died while they {activity} this unit, without an error that "
        "could be caught",
        remedy="They may have run out of memory, or one of these rows crashes an image library: give the machine more "
        "memory, or remove these rows from the manifest.",
    )


def essence(error: BaseException) -> str:
    """Class and first line of `error`, then of each cause that adds something."""
    parts: list[str] = []
    current: BaseException | None = error
    while current is not None:
        words = redact(str(current).strip())
        head = words.splitlines()[0] if words else ""
        if not any(head and head in earlier for earlier in parts):
            parts.append(f"{type(current).__name__}: {head}" if head else type(current).__name__)
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return "; caused by ".join(parts)
