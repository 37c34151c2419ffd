"""Tells a bucket that only rows name, and that fails, from the job's own store, whose failure stops a run."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from unipic.pipeline.errors import RejectionKind, RowError, StorageUnavailable
from unipic.pipeline.storage.paths import is_remote
from unipic.pipeline.storage.storage import Storage

RETRY = "`unipic run … --retry-rejected` tries again."


class OwnStore:
    """For the rows of one unit: a bucket that could not be reached once is not waited for again.

    Args:
        places: URIs of the job's own, the most telling first: its manifest file, its output, the root of its images.
    """

    def __init__(self, places: Sequence[str], storage: Storage) -> None:
        self._places = [place for place in places if is_remote(place)]
        self._storage = storage
        self._lock = threading.Lock()
        self._unreachable: set[str] = set()

    def owns(self, uri: str) -> bool:
        """Whether `uri` is where the job's own data is: on this machine, or in a bucket of its manifest or output."""
        return not is_remote(uri) or _bucket(uri) in {_bucket(place) for place in self._places}

    def refuse_unreachable(self, uri: str) -> None:
        """Raises RowError where the bucket of `uri` was found unreachable."""
        with self._lock:
            unreachable = is_remote(uri) and _bucket(uri) in self._unreachable
        if unreachable:
            raise _unavailable(uri)

    def as_rows_fault(self, uri: str, error: StorageUnavailable) -> RowError:
        """What a failed request for an object that is not the job's own means for its row.

        Raises:
            StorageUnavailable: the job's own store is down, too.
        """
        if self._places:
            self._storage.exists(self._places[0])
        with self._lock:
            self._unreachable.add(_bucket(uri))
        fault = _unavailable(uri)
        fault.__cause__ = error
        return fault


def _bucket(uri: str) -> str:
    return "/".join(uri.split("/", 3)[:3])


def _unavailable(uri: str) -> RowError:
    return RowError(RejectionKind.SOURCE_UNAVAILABLE, f"The bucket {_bucket(uri)} cannot be reached.", remedy=RETRY)
