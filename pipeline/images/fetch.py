"""Fetching: the cell of a manifest's image column becomes encoded bytes, or one row's error.

Whatever a manifest points at is hostile: no network but the job's own store (and the web, where the job allows it),
no path outside the root, no archive and no pickle, no more bytes than allowed.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from dataclasses import dataclass
from typing import Any

from unipic.pipeline.errors import (
    AccessDenied,
    ObjectMissing,
    RejectionKind,
    RowError,
    StorageError,
    StorageUnavailable,
    bare,
    is_address,
    redact,
    redact_address,
)
from unipic.pipeline.images.archives import archive_kind
from unipic.pipeline.images.decode import ImageLimits, too_many_bytes
from unipic.pipeline.images.http import HttpSource
from unipic.pipeline.images.own_store import OwnStore
from unipic.pipeline.places import READ_ONLY
from unipic.pipeline.storage.errors import TooManyBytes, credentials_at_fault
from unipic.pipeline.storage.paths import is_remote, join, local_path
from unipic.pipeline.storage.storage import Storage

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*):")
_NEVER_PATHS = {"http", "https", "file", "ftp", "ftps", "data", "gs", "gcs", "az", "hf", "hdfs", "javascript"}
_WEB = re.compile(r"^https?:", re.IGNORECASE)
_USERINFO = re.compile(r"^[A-Za-z0-9+.-]+://[^/]*@")


@dataclass(frozen=True)
class Fetched:
    """An encoded image: `source` as the manifest names it, without secrets ("" for bytes without a path)."""

    data: bytes
    source: str
    sha256: str


def fetch(
    value: object,
    *,
    root: str,
    storage: Storage,
    limits: ImageLimits,
    allow_outside_root: bool,
    alias: str = "",
    http: HttpSource | None = None,
    own: OwnStore | None = None,
) -> Fetched:
    """The bytes of a manifest's image cell.

    Args:
        value: a path or s3:// URI, bytes, a struct {bytes, path}, or None.
        root: folder that relative paths start from and, unless `allow_outside_root`, local paths stay within.
        alias: what paths call `root`, where they were written from elsewhere.
        http: how web addresses are fetched; None refuses them.
        own: tells which buckets are the job's own; None takes all for its own.

    Raises:
        RowError: MissingPicture, ForbiddenSource, PictureTooLarge, WrongType, UnreadablePicture, AccessDenied,
            SourceUnavailable.
        StorageUnavailable: the job's own store is down, whatever the row. AccessDenied: its credentials are refused.
    """
    data, path = _parts(value)
    if data is not None:
        return _fetched(data, path, limits)
    if not path:
        raise RowError(RejectionKind.MISSING_PICTURE, "The row names no picture.")
    if is_address(path):  # in a plain path a blank may be part of the name
        path = bare(path)
    _refuse_archive(path)
    if http is not None and _WEB.match(path):
        return _fetched(http.get(path, max_bytes=limits.max_bytes), path, limits)
    uri = _resolve(_unaliased(path, alias), root, allow_outside_root)
    if own is None or own.owns(uri):
        return _fetched(_read(uri, path, storage, limits), path, limits)
    own.refuse_unreachable(uri)
    try:
        return _fetched(_read(uri, path, storage, limits), path, limits)
    except StorageUnavailable as error:
        raise own.as_rows_fault(uri, error) from error
    except AccessDenied as error:
        raise _refused(RejectionKind.ACCESS_DENIED, error, uri, path, remedy=error.remedy) from error


def _parts(value: object) -> tuple[bytes | None, str]:
    """The cell's bytes, if it has any, and its path, or "". Raises RowError for a cell of another type."""
    path = ""
    if isinstance(value, dict):
        path, value = value.get("path") or "", value.get("bytes")
        if not isinstance(path, str):
            raise RowError(RejectionKind.WRONG_TYPE, f"The picture's path is a {type(path).__name__}, not text.")
    elif isinstance(value, str):
        path, value = value, None
    if value is not None and not isinstance(value, (bytes, bytearray, memoryview)):
        raise RowError(
            RejectionKind.WRONG_TYPE, f"A picture is a path, a URI, bytes or {{bytes, path}}, not {_kind(value)}."
        )
    return None if value is None else bytes(value), path


def _read(uri: str, path: str, storage: Storage, limits: ImageLimits) -> bytes:
    """The object's bytes. Raises RowError for what is this object's own, StorageError for what is the store's."""
    try:
        return storage.read(uri, max_bytes=limits.max_bytes)
    except TooManyBytes as error:
        raise _refused(RejectionKind.PICTURE_TOO_LARGE, error, uri, path) from error
    except ObjectMissing as error:
        raise _refused(RejectionKind.MISSING_PICTURE, error, uri, path) from error
    except StorageUnavailable:
        raise
    except AccessDenied as error:
        if credentials_at_fault(error):
            raise
        raise _refused(RejectionKind.ACCESS_DENIED, error, uri, path, remedy=error.remedy) from error
    except StorageError as error:
        raise _refused(RejectionKind.UNREADABLE_PICTURE, error, uri, path) from error


def _fetched(data: bytes, path: str, limits: ImageLimits) -> Fetched:
    if len(data) > limits.max_bytes:
        raise too_many_bytes(len(data), limits)
    return Fetched(data, _public(path), hashlib.sha256(data).hexdigest())


def _refused(kind: RejectionKind, error: StorageError, uri: str, path: str, *, remedy: str = "") -> RowError:
    """`error` as the row's own. It names the image as the manifest does: `uri` may hold what is not shown, such as a
    signature or a folder of this machine."""
    return RowError(kind, error.message.replace(uri, _shown(path)), remedy=remedy)


def _unaliased(path: str, alias: str) -> str:
    inside = join(alias, "") if alias else ""
    return path.removeprefix(inside) if inside else path


def _resolve(path: str, root: str, allow_outside_root: bool) -> str:
    scheme = _SCHEME.match(path)
    known = path.startswith("s3://") or (
        path.startswith(READ_ONLY) and path.partition("/")[0] == root.partition("/")[0]
    )
    if scheme is not None and not known and ("://" in path or scheme[1].lower() in _NEVER_PATHS):
        raise RowError(
            RejectionKind.FORBIDDEN_SOURCE,
            f"{_shown(path)} is a {scheme[1].lower()}: address; pictures come from paths, s3:// and the manifest's own "
            "store only.",
            remedy="Copy the pictures to a folder or a bucket, or put their bytes into the manifest."
            + (" Or set input.allow_http." if _WEB.match(path) else ""),
        )
    if "\0" in path or _USERINFO.match(path):
        raise RowError(
            RejectionKind.FORBIDDEN_SOURCE, f"{_shown(path)} holds a user name, a password or a null character."
        )
    if known:
        if ".." in path.split("/"):
            raise RowError(RejectionKind.FORBIDDEN_SOURCE, f'{_shown(path)} holds "..", which no key needs.')
        return path
    if is_remote(root) and not path.startswith("/"):
        below = posixpath.normpath(path)
        if below == ".." or below.startswith("../"):
            raise _outside(path, root)
        return join(root, below)
    if is_remote(root):
        if not allow_outside_root:
            raise _outside(path, root)
        return path
    root = local_path(root)
    full, inside = os.path.realpath(os.path.join(root, path)), os.path.realpath(root or ".")
    if not allow_outside_root and os.path.commonpath([full, inside]) != inside:
        raise _outside(path, root)
    return full


def _refuse_archive(path: str) -> None:
    kind = archive_kind(_public(path))
    if kind:
        raise RowError(
            RejectionKind.FORBIDDEN_SOURCE,
            f"{_shown(path)} is {kind}, not a picture; it was not opened.",
            remedy="Unpack it and name the pictures, or put their bytes into the manifest.",
        )


def _outside(path: str, root: str) -> RowError:
    return RowError(
        RejectionKind.FORBIDDEN_SOURCE,
        f"{_shown(path)} leads outside {root or 'the working folder'}.",
        remedy="Set input.image_root to a folder that holds all pictures, or input.allow_outside_root.",
    )


def _shown(path: str) -> str:
    path = _public(path)
    return path if len(path) <= 300 else path[:300] + "…"


def _public(path: str) -> str:
    """`path` as messages and lineage may show it."""
    return redact_address(path) if is_address(path) else redact(path)


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}"
