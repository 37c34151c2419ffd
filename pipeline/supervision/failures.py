"""An exception told across processes, as data."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

from unipic.pipeline.errors import EngineError, StorageError, UniPicError, redact
from unipic.pipeline.records import Unit

LOSSES = 3
"""Workers that may die of a unit in one try: fewer may be the machine's doing."""


@dataclass(frozen=True)
class Failure:
    """Why something did not come about.

    Attributes:
        kind: class of the exception.
        message: what happened, in words.
        stage: "preflight", "prepare", "replica" or "finish".
        retryable: the unit may be tried again in this run.
        storage: bytes could not be read or written. Somebody mends that outside the job (new credentials, space), so
            the run stops and can be resumed.
        details: a traceback, where the message alone does not explain it.
    """

    kind: str
    message: str
    stage: str
    retryable: bool = False
    storage: bool = False
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
            details="" if ours and error.__cause__ is None else "".join(traceback.format_exception(error)),
        )


def not_deadly(unit: Unit, lost: int, doing: str) -> None:
    """Hold that `unit` may be worked on once more, after `lost` deaths.

    Raises:
        EngineError: it has cost too many workers. Other units go first; then it is tried again, a few times.
    """
    if lost < LOSSES:
        return
    rows = f"rows {unit.first_row} to {unit.first_row + unit.rows - 1}"
    error = EngineError(
        f"{unit.file.name}, {rows}: {lost} processes died while they {doing} this unit, without an error that could "
        "be caught",
        remedy="Their memory may not suffice, or one of these rows breaks what decodes or encodes pictures: give the "
        "machine more memory, or take these rows out of the manifest.",
    )
    error.retryable = True
    raise error


def essence(error: BaseException) -> str:
    """Class and first line of `error`, then of each cause that says something new."""
    said: list[str] = []
    one: BaseException | None = error
    while one is not None:
        words = redact(str(one).strip())
        head = words.splitlines()[0] if words else ""
        if not any(head and head in earlier for earlier in said):
            said.append(f"{type(one).__name__}: {head}" if head else type(one).__name__)
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return "; caused by ".join(said)
