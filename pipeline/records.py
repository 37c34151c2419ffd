"""The values that travel: manifest file, unit, receipt; and the Arrow schemas of rows on their way.

A row's way: manifest → `PREPARED` (decoded, with its fault if it has one) → `ANSWERED` (plus what the replica said)
→ a data row or a rejected row (`parts.py`) → counted in a `Receipt`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

OUTPUT_VERSION = 1
"""Raised whenever the same input would give other bytes."""


def digest(value: Any) -> str:
    """SHA-256 (hex) of `value` as canonical JSON: sorted keys, no spaces, UTF-8."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    ).hexdigest()


@dataclass(frozen=True)
class ManifestFile:
    """One file of the manifest, as planning saw it.

    Attributes:
        uri: where to read it.
        name: its path relative to the manifest's folder, "/"-separated; stable when the whole manifest is moved.
        rows: how many rows it has.
        source_bytes: its size.
        version: ETag (S3) or "<mtime_ns>" (local): tells a file that changed under its name.
        format: "parquet", "json", "jsonl" or "csv".
        root: folder that relative picture paths in it start from.
    """

    uri: str
    name: str
    rows: int
    source_bytes: int
    version: str
    format: str = "parquet"
    root: str = ""

    @property
    def key(self) -> str:
        """16 hex digits that name this file in parts and receipts."""
        return hashlib.sha256(self.name.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Unit:
    """Consecutive rows of one manifest file: the piece of work, of retry, of commit and of lineage.

    Attributes:
        only: where rejected rows are tried again, their (row, sample) pairs; () for the whole unit.
        retry: which such try this is, from 1; 0 for the whole unit.
        again: an earlier try may have left parts behind.
    """

    file: ManifestFile
    first_row: int
    rows: int
    only: tuple[tuple[int, int], ...] = ()
    retry: int = 0
    again: bool = False

    @property
    def id(self) -> str:
        return f"{self.file.key}-{self.first_row:010d}"

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Unit:
        value = json.loads(text)
        only = tuple((row, sample) for row, sample in value["only"])
        return cls(**{**value, "file": ManifestFile(**value["file"]), "only": only})


@dataclass(frozen=True)
class Part:
    """One committed Parquet file of a unit."""

    path: str  # relative to the output folder
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Receipt:
    """A unit is done when its receipt exists. Facts above the line are deterministic, those below are volatile.

    Attributes:
        unit, file, first_row, rows: which unit.
        ok, rejected: outcomes; `ok + rejected = rows × samples per row`.
        parts: what was committed, data before rejected.
        source_version: the manifest file's version at that time.
        retry: how often rejected rows of this unit were tried again.
        resized: True where the micro-batch had to shrink, so that outputs are held to 1/255 instead of byte equality.
        facts: host, seconds by stage, attempts, micro-batch size, device.
    """

    unit: str
    file: str
    first_row: int
    rows: int
    ok: int
    rejected: int
    parts: tuple[Part, ...]
    source_version: str
    retry: int = 0
    resized: bool = False
    facts: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True, indent=1)

    @classmethod
    def from_json(cls, text: str | bytes) -> Receipt:
        value = json.loads(text)
        return cls(**{**value, "parts": tuple(Part(**part) for part in value["parts"])})


PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""How 🤗 datasets stores an Image."""

FAULT = pa.struct([("kind", pa.string()), ("message", pa.string()), ("stage", pa.string()), ("attempts", pa.int32())])
"""Why a row is rejected; null while it is well."""
