"""Where a job's manifest, checkpoint and output may be: a local path or an `s3://` address, checked as text alone."""

from __future__ import annotations

import os
import re
from typing import Annotated

from pydantic import AfterValidator

_ELSEWHERE = re.compile(r"(?!s3://|file:///)([A-Za-z][A-Za-z0-9+.-]*://|(?:file|ftps?|https?|data):)", re.IGNORECASE)
_VARIABLE = re.compile(r"(?:^|/)\$[A-Za-z_]|\$\{")


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
Checkpoint = Annotated[Place, AfterValidator(_known_builtin)]
