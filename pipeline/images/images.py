"""Pictures: fetch, guard, decode, encode. Pillow and numpy only.

Whatever a manifest points at is hostile until decoded: no network but the job's own store (and the web, where the job
allows it), no path outside the root, no archive and no pickle, no more bytes or pixels than allowed, and whatever
Pillow says of a broken file is one row's fault.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from unipic.pipeline.errors import (
    AccessDenied,
    ObjectMissing,
    RowError,
    StorageError,
    StorageUnavailable,
    bare,
    is_address,
    redact,
    redact_address,
)
from unipic.pipeline.images.archives import archive_kind, archive_start
from unipic.pipeline.images.encode import encode, facts_of
from unipic.pipeline.images.http import HttpSource
from unipic.pipeline.storage.errors import TooManyBytes, credentials_at_fault
from unipic.pipeline.storage.paths import is_s3, join, local_path
from unipic.pipeline.storage.storage import Storage

__all__ = ["Fetched", "PictureLimits", "decode", "encode", "facts_of", "fetch"]

Image.MAX_IMAGE_PIXELS = None  # `decode` holds each picture to the job's own limit, from its header

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*):")
_NEVER_PATHS = {"http", "https", "file", "ftp", "ftps", "data", "gs", "gcs", "hdfs", "javascript"}
_WEB = re.compile(r"^https?:", re.IGNORECASE)
_USERINFO = re.compile(r"^[A-Za-z0-9+.-]+://[^/]*@")
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")  # of a segment, or of the end
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class PictureLimits:
    """The most pixels and (encoded) bytes a picture may have."""

    max_px: int
    max_bytes: int


@dataclass(frozen=True)
class Fetched:
    """An encoded picture: `source` as the manifest names it, without secrets ("" for bytes without a path)."""

    data: bytes
    source: str
    sha256: str


def fetch(
    value: object,
    *,
    root: str,
    storage: Storage,
    limits: PictureLimits,
    allow_outside_root: bool,
    alias: str = "",
    http: HttpSource | None = None,
) -> Fetched:
    """The bytes of a manifest's picture cell.

    Args:
        value: a path or s3:// URI, bytes, a struct {bytes, path}, or None.
        root: folder that relative paths start from and, unless `allow_outside_root`, local paths stay within.
        alias: what paths call `root`, where they were written from elsewhere.
        http: how web addresses are fetched; None refuses them.
    Raises:
        RowError: MissingPicture, ForbiddenSource, PictureTooLarge, WrongType, UnreadablePicture, AccessDenied,
            SourceUnavailable.
        StorageUnavailable: the store is down, whatever the row. AccessDenied: the credentials are.
    """
    path = ""
    if isinstance(value, dict):
        path, value = value.get("path") or "", value.get("bytes")
        if not isinstance(path, str):
            raise RowError("WrongType", f"The picture's path is a {type(path).__name__}, not text.")
    elif isinstance(value, str):
        path, value = value, None
    if value is not None:
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise RowError("WrongType", f"A picture is a path, a URI, bytes or {{bytes, path}}, not {_kind(value)}.")
        return _fetched(bytes(value), path, limits)
    if not path:
        raise RowError("MissingPicture", "The row names no picture.")
    if is_address(path):  # in a plain path a blank may be part of the name
        path = bare(path)
    _refuse_archive(path)
    if http is not None and _WEB.match(path):
        return _fetched(http.get(path, max_bytes=limits.max_bytes), path, limits)
    uri = _resolve(_unaliased(path, alias), root, allow_outside_root)
    try:
        return _fetched(storage.read(uri, max_bytes=limits.max_bytes), path, limits)
    except TooManyBytes as error:
        raise _refused("PictureTooLarge", error, uri, path) from error
    except ObjectMissing as error:
        raise _refused("MissingPicture", error, uri, path) from error
    except StorageUnavailable:
        raise
    except AccessDenied as error:
        if credentials_at_fault(error):
            raise
        raise _refused("AccessDenied", error, uri, path, remedy=error.remedy) from error
    except StorageError as error:
        raise _refused("UnreadablePicture", error, uri, path) from error


def decode(data: bytes, limits: PictureLimits) -> Image.Image:
    """An encoded picture as RGB, as a viewer shows it: upright, transparent parts on white, the first frame.

    16-bit greys are scaled to 8; colour profiles are not applied. Raises RowError: PictureTooLarge (before
    decoding), UnreadablePicture (saying what the bytes are).
    """
    if len(data) > limits.max_bytes:
        raise RowError("PictureTooLarge", f"The picture has {len(data):,} bytes, the limit is {limits.max_bytes:,}.")
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as picture:
            _check_size(picture, limits)
            picture.load()
            _check_size(picture, limits)
            if not _is_whole(data, picture.format):
                raise EOFError
            return _upright(picture, _as_rgb(picture))
    except RowError:
        raise
    except MemoryError as error:
        raise RowError("PictureTooLarge", "The picture does not fit into memory.") from error
    except Exception as error:  # broken files make Pillow raise almost anything; each is this row's fault
        raise RowError("UnreadablePicture", _what_is_wrong(data, error)) from error


def _fetched(data: bytes, path: str, limits: PictureLimits) -> Fetched:
    if len(data) > limits.max_bytes:
        raise RowError("PictureTooLarge", f"The picture has {len(data):,} bytes, the limit is {limits.max_bytes:,}.")
    return Fetched(data, _public(path), hashlib.sha256(data).hexdigest())


def _refused(kind: str, error: StorageError, uri: str, path: str, *, remedy: str = "") -> RowError:
    """`error` as the row's fault. Where `path` holds what is not shown, so does `uri`, maybe as no address any more."""
    message = error.message if path == _public(path) else error.message.replace(uri, _shown(path))
    return RowError(kind, message, remedy=remedy)


def _unaliased(path: str, alias: str) -> str:
    inside = join(alias, "") if alias else ""
    return path.removeprefix(inside) if inside else path


def _resolve(path: str, root: str, allow_outside_root: bool) -> str:
    scheme = _SCHEME.match(path)
    if scheme is not None and scheme[1].lower() != "s3" and ("://" in path or scheme[1].lower() in _NEVER_PATHS):
        raise RowError(
            "ForbiddenSource",
            f"{_shown(path)} is a {scheme[1].lower()}: address; pictures come from paths and s3:// only.",
            remedy="Copy the pictures to a folder or a bucket, or put their bytes into the manifest."
            + (" Or set input.allow_http." if _WEB.match(path) else ""),
        )
    if "\0" in path or _USERINFO.match(path):
        raise RowError("ForbiddenSource", f"{_shown(path)} holds a user name, a password or a null character.")
    if path.startswith("s3://"):
        if ".." in path.split("/"):
            raise RowError("ForbiddenSource", f'{_shown(path)} holds "..", which no S3 key needs.')
        return path
    if is_s3(root) and not path.startswith("/"):
        below = posixpath.normpath(path)
        if below == ".." or below.startswith("../"):
            raise _outside(path, root)
        return join(root, below)
    if is_s3(root):
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
            "ForbiddenSource",
            f"{_shown(path)} is {kind}, not a picture; it was not opened.",
            remedy="Unpack it and name the pictures, or put their bytes into the manifest.",
        )


def _outside(path: str, root: str) -> RowError:
    return RowError(
        "ForbiddenSource",
        f"{_shown(path)} leads outside {root or 'the working folder'}.",
        remedy="Set input.image_root to a folder that holds all pictures, or input.allow_outside_root.",
    )


def _check_size(picture: Image.Image, limits: PictureLimits) -> None:
    width_px, height_px = picture.size
    if width_px < 1 or height_px < 1:
        raise RowError("UnreadablePicture", f"The picture is {width_px}×{height_px} pixels.")
    if width_px * height_px > limits.max_px:
        raise RowError(
            "PictureTooLarge",
            f"The picture is {width_px}×{height_px}: {width_px * height_px:,} pixels, the limit is {limits.max_px:,}.",
        )


def _as_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):
        grey = np.clip(np.asarray(picture).astype(np.int64), 0, 65535)
        return Image.fromarray(((grey * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        raise RowError("UnreadablePicture", "The picture has floating-point pixels, which have no agreed brightness.")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")


def _upright(picture: Image.Image, rgb: Image.Image) -> Image.Image:
    try:
        turn = _UPRIGHT.get(picture.getexif().get(_ORIENTATION, 1))
    except Exception:  # viewers show a picture whose EXIF is broken as it lies
        turn = None
    return rgb if turn is None else rgb.transpose(turn)


def _is_whole(data: bytes, image_format: str | None) -> bool:
    """Whether the end mark is there: Pillow fills in what a JPEG or PNG lacks at its very end."""
    if image_format == "PNG":
        return b"IEND\xaeB`\x82" in data[-(2**20) :]
    if image_format not in {"JPEG", "MPO"}:
        return True
    at = 2
    while (marker := _JPEG_MARKER.search(data, at)) is not None:
        if marker[0] == b"\xff\xd9":
            return True
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return False


def _what_is_wrong(data: bytes, error: Exception) -> str:
    kind = _sniff(data)
    if kind:
        return f"The bytes are {kind}, not a picture."
    said = str(error) if not isinstance(error, Image.UnidentifiedImageError) else "of no known format"
    if data[:4] == b"RIFF" and len(data) < int.from_bytes(data[4:8], "little") + 8:
        said = "truncated"
    if "truncated" in said.lower() or "premature end" in said.lower() or isinstance(error, EOFError):
        return f"The picture is truncated: its {len(data):,} bytes end too early."
    return f"The picture cannot be decoded ({len(data):,} bytes): {said}."


def _sniff(data: bytes) -> str:
    """What bytes that are no picture we decode look like; "" for anything else."""
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not data:
        return "empty (0 bytes)"
    if b"<svg" in start:
        return "an SVG drawing"
    signs: dict[bytes, str] = {
        b"<!doctype html": "an HTML page",
        b"<html": "an HTML page",
        b"<?xml": "an XML document",
        b"version https://git-lfs": "a Git LFS pointer",
        b"%pdf": "a PDF document",
        b"{": "JSON text",
    }
    for sign, what in signs.items():
        if start.startswith(sign):
            return what
    if data[4:8] == b"ftyp":
        brand = data[8:12].decode("latin-1").strip()
        return f"a HEIF, AVIF or video file (brand {brand!r})"
    return archive_start(data)


def _shown(path: str) -> str:
    path = _public(path)
    return path if len(path) <= 300 else path[:300] + "…"


def _public(path: str) -> str:
    """`path` as messages and lineage may show it."""
    return redact_address(path) if is_address(path) else redact(path)


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}"
