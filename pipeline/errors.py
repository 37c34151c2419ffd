"""Every way things go wrong, each answering two questions: may it be retried, and which row was it.

    UniPicError
    ├── JobError                 refused as it is: correct the job, then run again   (exit 1)
    │   ├── SpecError            the job file
    │   ├── ManifestError        the manifest: missing, unreadable, a column that is not there
    │   │   └── EmptyManifest    it is there and has no rows
    │   ├── CheckpointError      the checkpoint: missing, wrong, altered
    │   └── OutputError          the output: not writable, or another job's
    │       └── OtherOutputVersion   its rows are laid out as another version of this code does
    ├── RowError                 one row is bad: it is rejected, its neighbours are delivered
    ├── StorageError             bytes could not be read or written
    │   ├── ObjectMissing
    │   ├── AccessDenied
    │   ├── StorageFull
    │   └── StorageUnavailable   throttled, 5xx, reset, timed out                     (retryable)
    └── EngineError              a replica failed, whatever the row

Messages are whole sentences without credentials: every URI in them went through `redact`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

_SCHEME = "[a-z][a-z0-9+.-]{0,30}://"  # bounded, as are the parameters below: hostile cells are megabytes long
_WORD = re.compile(r"[^\s'\"]+")
_IN_WORD = re.compile(rf"\b{_SCHEME}", re.IGNORECASE)
_SIGNATURES = "X-Amz-|X-Goog-|X-Oss-|q-sign|Signature=|sig=|Key-Pair-Id=|(?:[a-z]{1,30}[_-])?token=|api[_-]?key="
_SIGNED = re.compile(rf"\?(?:[^\s'\"?]*&)?(?:{_SIGNATURES})[^\s'\"]*", re.IGNORECASE)
_USERINFO = re.compile(rf"(\b{_SCHEME}|^\s*//)[^\s/'\"]+@", re.IGNORECASE)
_ADDRESS = re.compile(rf"https?:|{_SCHEME}|//", re.IGNORECASE)
_STORE = re.compile(rf"(?!https?:){_SCHEME}", re.IGNORECASE)
_PARAMETERS = re.compile(r"\?[^\s?=]*=\S*")
_UNSEEN = "\ufeff\u200b\u200e\u200f"  # invisible marks before a pasted address


def redact(text: str) -> str:
    """`text` with the query string and user:password of every URI in it removed (signed URLs are secrets)."""
    return _USERINFO.sub(r"\1", _SIGNED.sub("", _WORD.sub(_without_query, text)))


def _without_query(word: re.Match[str]) -> str:
    """A word, up to the question mark behind the first address in it: one pass, however many addresses there are."""
    address = _IN_WORD.search(word[0])
    ends = word[0].find("?", address.end()) if address is not None else -1
    return word[0] if ends < 0 else word[0][:ends]


def is_address(cell: str) -> bool:
    """Whether `cell`, but for blanks around it, begins as an address does: with a scheme, or with "//"."""
    return _ADDRESS.match(bare(cell)) is not None


def bare(cell: str) -> str:
    """`cell` without blanks and invisible marks around it."""
    while (shorter := cell.strip().strip(_UNSEEN)) != cell:
        cell = shorter
    return cell


def redact_address(address: str) -> str:
    """One address as messages and lineage may show it: nothing behind its path, no user name or password.

    A store's key may hold "#"; on the web a fragment begins there.
    """
    ends = "[?]" if _STORE.match(bare(address)) else "[?#]"
    return _USERINFO.sub(r"\1", re.split(ends, address, maxsplit=1)[0])


def redact_url(cell: str) -> str:
    """A manifest cell as outputs may hold it: an address loses all that may be a signature.

    Addresses inside a longer text lose a user name and password, and a query that is a signature; other text stays.
    """
    if not is_address(cell):
        return _USERINFO.sub(r"\1", _SIGNED.sub("", cell))
    if any(mark.isspace() for mark in bare(cell)):  # a sentence that begins with one, or a path with blanks in it
        return _PARAMETERS.sub("", redact(cell))
    return redact_address(cell)


class UniPicError(Exception):
    """Base of all errors this project raises.

    Args:
        message: what happened, a full sentence; secrets in URIs are removed here.
        remedy: what the user can do about it, or "".
        row: which manifest row it was ("<file>:<row>"), or "".
    """

    retryable: bool = False

    def __init__(self, message: str, *, remedy: str = "", row: str = "") -> None:
        self.message = redact(message)
        self.remedy = remedy
        self.row = redact(row)
        super().__init__(self.message)

    def __str__(self) -> str:
        where = f"{self.row}: " if self.row else ""
        what = f"{where}{self.message}"
        if not self.remedy:
            return what
        return f"{what}{'' if what.endswith('.') else '.'} {self.remedy}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), dict(self.__dict__))


def _rebuild(cls: type[UniPicError], state: dict[str, Any]) -> UniPicError:
    error = cls.__new__(cls)
    Exception.__init__(error, state["message"])
    error.__dict__.update(state)
    return error


class JobError(UniPicError):
    """The job cannot run as it stands; nothing was started."""


class SpecError(JobError):
    """The job file is wrong; `message` lists every fault with its place."""


class ManifestError(JobError):
    """The manifest cannot be read or lacks what the task needs."""


class EmptyManifest(ManifestError):
    """The manifest is there and has no rows."""


class CheckpointError(JobError):
    """The checkpoint is missing, of another layout, or altered."""


class OutputError(JobError):
    """The output folder cannot be written, or belongs to another job."""


class OtherOutputVersion(OutputError):
    """The output was written in an output version that this code neither reads nor continues."""


class RejectionKind(StrEnum):
    """Why a row is rejected; the values are in outputs, and people and scripts filter on them."""

    EMPTY_PROMPT = "EmptyPrompt"
    PROMPT_REFUSED = "PromptRefused"
    WRONG_TYPE = "WrongType"
    UNREADABLE_ROW = "UnreadableRow"
    UNSUPPORTED_REQUEST = "UnsupportedRequest"
    MISSING_PICTURE = "MissingPicture"
    UNREADABLE_PICTURE = "UnreadablePicture"
    PICTURE_TOO_LARGE = "PictureTooLarge"
    FORBIDDEN_SOURCE = "ForbiddenSource"
    ACCESS_DENIED = "AccessDenied"
    SOURCE_UNAVAILABLE = "SourceUnavailable"
    OUT_OF_MEMORY = "OutOfMemory"
    REPLICA_FAILED = "ReplicaFailed"
    REPLICA_CRASHED = "ReplicaCrashed"
    WORKER_CRASHED = "WorkerCrashed"


class RowError(UniPicError):
    """One manifest row cannot be done.

    Args:
        kind: why the row is rejected.
        stage: "prepare", "replica" or "commit".
    """

    def __init__(
        self, kind: RejectionKind, message: str, *, stage: str = "prepare", remedy: str = "", row: str = ""
    ) -> None:
        super().__init__(message, remedy=remedy, row=row)
        self.kind = kind
        self.stage = stage


class StorageError(UniPicError):
    """Bytes could not be read or written, and trying again will not help."""


class ObjectMissing(StorageError):
    """There is nothing at this address."""


class AccessDenied(StorageError):
    """The credentials are missing, expired or not allowed to do this."""


class StorageFull(StorageError):
    """No space is left where the output goes."""


class StorageUnavailable(StorageError):
    """The store kept failing after every retry: throttled, 5xx, reset or timed out."""

    retryable = True


class EngineError(UniPicError):
    """A replica failed for a reason that is not one row's."""


def together(faults: Sequence[UniPicError], kind: type[UniPicError]) -> UniPicError:
    """One error for all of `faults`, which are not none: the only one itself, or a `kind` with a line for each."""
    lines = list(dict.fromkeys(str(fault) for fault in faults))
    return faults[0] if len(lines) == 1 else kind("\n".join([f"{len(lines)} faults", *lines]))
