"""An exception told across processes, as data."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

from pipeline.errors import StorageError, UniPicError, redact


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
