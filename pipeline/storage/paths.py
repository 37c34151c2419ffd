"""What a URI says: whether it is local or on S3, its parts, its wildcards. Nothing here touches a store."""

from __future__ import annotations

import os
import re

from unipic.pipeline.errors import StorageError
from unipic.pipeline.places import READ_ONLY

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):")
_MAGIC = re.compile(r"[*?\[]")


def split_scheme(uri: str) -> tuple[str, str]:
    """("gs", "bucket/key") of `gs://bucket/key`."""
    scheme, _, path = uri.partition("://")
    return scheme, path


def is_remote(uri: str) -> bool:
    """Whether `uri` is on S3 or in a store of `READ_ONLY`.

    Raises StorageError for other schemes than file:, and for what no path can hold.
    """
    remote = uri.startswith(("s3://", *READ_ONLY))
    if "\0" in uri:
        raise StorageError(f"{uri!r} has a NUL character in it, which no path can hold.")
    try:
        uri.encode() if remote else os.fsencode(uri)
    except UnicodeEncodeError:
        raise StorageError(f"{uri!r} has characters in it that are not valid Unicode.") from None
    if remote:
        return True
    scheme = _SCHEME.match(uri)
    if scheme is not None and scheme[1].lower() != "file" and "://" in uri:
        raise StorageError(
            f"{uri} is neither a local path nor s3://, {', '.join(READ_ONLY)}.",
            remedy="Copy the data to one of them.",
        )
    return False


def store_of(uri: str) -> str:
    """What keeps the object: a bucket; a local path stands for itself."""
    return "/".join(uri.split("/", 3)[:3]) if is_remote(uri) else local_path(uri)


def local_path(uri: str) -> str:
    """The plain path of a local URI (`file:///x` is `/x`)."""
    return uri.removeprefix("file://") if uri.startswith("file:///") else uri


def join(uri: str, *parts: str) -> str:
    """`uri` and the parts below it, with one "/" between them."""
    base = uri.rstrip("/")
    if not uri:
        return "/".join(part.strip("/") for part in parts)
    return "/".join([base, *(part.strip("/") for part in parts)])


def relative(uri: str, base: str) -> str:
    """The path of `uri` from the folder `base`. Raises StorageError if it is not below it."""
    prefix = base.rstrip("/") + "/"
    if not uri.startswith(prefix):
        raise StorageError(f"{uri} is not below {base}.")
    return uri[len(prefix) :]


def split_pattern(pattern: str) -> tuple[str, str]:
    """(folder without wildcards, rest with them) of a glob; the rest is "" where there are none."""
    magic = _MAGIC.search(pattern)
    if magic is None:
        return pattern, ""
    cut = pattern.rfind("/", 0, magic.start())
    return (pattern[:cut] or "/", pattern[cut + 1 :]) if cut >= 0 else (".", pattern)


def glob_regex(pattern: str) -> str:
    """The regular expression of a glob: `*`, `?`, `[…]` stay within one folder, `**` crosses folders."""
    out, at = "", 0
    while at < len(pattern):
        char = pattern[at]
        if pattern.startswith("**/", at):
            out, at = out + r"(?:[^/]+/)*", at + 3
        elif pattern.startswith("**", at):
            out, at = out + r".*", at + 2
        elif char == "[" and "]" in pattern[at + 2 :]:
            end = pattern.index("]", at + 2)
            inside = pattern[at + 1 : end].replace("\\", r"\\")
            out, at = out + f"[{'^' + inside[1:] if inside[0] == '!' else inside}]", end + 1
        else:
            out, at = out + {"*": "[^/]*", "?": "[^/]"}.get(char, re.escape(char)), at + 1
    return out
