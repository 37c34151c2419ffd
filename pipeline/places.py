"""Where a job's data may be, checked as text alone: a local path or an `s3://` address; for what is only read, more."""

from __future__ import annotations

import os
import re
from typing import Annotated

from pydantic import AfterValidator

READ_ONLY = ("gs://", "az://", "hf://")
"""Begin addresses that manifests and images are also read from, through fsspec."""
_ELSEWHERE = re.compile(r"(?!s3://|file:///)([A-Za-z][A-Za-z0-9+.-]*://|(?:file|ftps?|https?|data):)", re.IGNORECASE)
_VARIABLE = re.compile(r"(?:^|/)\$[A-Za-z_]|\$\{")


def _readable(value: str) -> str:
    if value.startswith(READ_ONLY) and "\0" not in value and not _VARIABLE.search(value):
        return value
    try:
        return _local_or_s3(value)
    except ValueError as error:
        others = " or ".join((", ".join(READ_ONLY[:-1]), READ_ONLY[-1]))
        raise ValueError(f"{error}; {others} would be read, too" if _ELSEWHERE.match(value) else str(error)) from None


def _local_or_s3(value: str) -> str:
    found = _ELSEWHERE.match(value)
    if found is not None:
        raise ValueError(f"must be a local path or an s3:// address, got one that begins with {found[0]}")
    if "\0" in value:
        raise ValueError("must not contain a NUL character")
    if _VARIABLE.search(value):
        raise ValueError("must be a whole path: environment variables are not expanded in a job")
    expanded = os.path.expanduser(value)
    if value.startswith("~") and expanded == value:
        raise ValueError(f"names the home folder {value.split('/')[0]}, which is not known here; write the whole path")
    return expanded


def _known_builtin(value: str) -> str:
    if value.startswith("builtin:") and value != BUILTIN_CHECKPOINT:
        raise ValueError(f"must be {BUILTIN_CHECKPOINT}, a local path or an s3:// address, got {value!r}")
    return value


BUILTIN_CHECKPOINT = "builtin:tiny"
"""The small trained checkpoint inside the installed package, wherever a machine has it."""

Place = Annotated[str, AfterValidator(_local_or_s3)]
Source = Annotated[str, AfterValidator(_readable)]
Checkpoint = Annotated[Place, AfterValidator(_known_builtin)]
