"""The values that travel: manifest file, unit, receipt; and the Arrow schemas of rows on their way.

A row's way: manifest → `PREPARED` (decoded, with its fault if it has one) → `ANSWERED` (plus what the replica said)
→ a data row or a rejected row (`parts.py`) → counted in a `Receipt`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import pyarrow as pa

from unipic.pipeline.sealed import build, sealed, unsealed

OUTPUT_VERSION = 2
"""Raised whenever the same input would give other bytes.

2: seeds have 63 bits, so that signed integers hold them. Lineage has field names of its own, digests as binary, names
   instead of addresses, and a code version that names the commit. What repeats is dictionary-encoded in Parquet.
"""


@dataclass(frozen=True)
class ManifestFile:
    """One file of the manifest, as planning saw it.

    Attributes:
        uri: where to read it.
        name: its path relative to the manifest's folder, "/"-separated; stable when the whole manifest is moved.
        rows: how many rows it has.
        source_bytes: its size.
        version: ETag (S3) or "<mtime_ns>" (local): tells a file that changed under its name.
        format: "parquet", "json", "jsonl", "csv", "tsv", "txt" or "webdataset".
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
        return file_key(self.name)


def file_key(name: str) -> str:
    """`ManifestFile.key` of the file with this name."""
    return hashlib.sha256(name.encode()).hexdigest()[:KEY_DIGITS]


class UnitId(str):
    """The name of a unit: `<file key>-<first row, ten digits>`; as text it is the key of every table of units."""

    @classmethod
    def of(cls, file_key: str, first_row: int) -> UnitId:
        return cls(f"{file_key}-{first_row:010d}")

    @classmethod
    def parse(cls, text: str) -> UnitId | None:
        """The unit that `text` names exactly, or None."""
        return cls(text) if _UNIT_ID.fullmatch(text) else None

    @property
    def file_key(self) -> str:
        return self[:KEY_DIGITS]

    @property
    def first_row(self) -> int:
        return int(self[KEY_DIGITS + 1 :])


KEY_DIGITS = 16
_UNIT_ID = re.compile(r"[0-9a-f]{16}-\d{10,18}")


@dataclass(frozen=True, order=True)
class Revision:
    """Which commit of a unit: every one has a name of its own that is written once.

    Attributes:
        since: the epoch from which commits of this unit count: 1, or that of the latest redo or prune of its rows.
        number: how many commits came before it since then: 0 first, then one for each retry of rejected rows.
    """

    since: int = 1
    number: int = 0

    @property
    def tag(self) -> str:
        """What follows the unit in names: "" for a first commit, else such as ".e2", ".r1" or ".e2.r1"."""
        return (f".e{self.since}" if self.since > 1 else "") + (f".r{self.number}" if self.number else "")

    @classmethod
    def parse(cls, tag: str) -> Revision | None:
        """`tag` backwards; None for text that is no tag."""
        found = _TAG.fullmatch(tag)
        return cls(int(found[1] or 1), int(found[2] or 0)) if found else None


_TAG = re.compile(r"(?:\.e([2-9]|[1-9]\d{1,8}))?(?:\.r([1-9]\d{0,3}))?")


@dataclass(frozen=True)
class Unit:
    """Consecutive rows of one manifest file: the piece of work, of retry, of commit and of lineage (a shard).

    Attributes:
        only: where rejected rows are retried, their (row, sample) pairs; () for the whole unit.
        revision: which commit of the unit this work is for.
        restores: that commit is there, and files of it are damaged.
    """

    file: ManifestFile
    first_row: int
    rows: int
    only: tuple[tuple[int, int], ...] = ()
    revision: Revision = Revision()
    restores: bool = False

    @property
    def id(self) -> UnitId:
        return UnitId.of(self.file.key, self.first_row)

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Unit:
        value = json.loads(text)
        only = tuple((row, sample) for row, sample in value["only"])
        file, revision = ManifestFile(**value["file"]), Revision(**value["revision"])
        return cls(**{**value, "file": file, "only": only, "revision": revision})


@dataclass(frozen=True)
class Part:
    """One committed Parquet file of a unit."""

    path: str  # relative to the output folder
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Facts:
    """How a unit was made: volatile, and never in a part.

    Attributes:
        replica, host, device, dtype: where and with what.
        micro_batch: rows a micro-batch had; 0 where it is not known.
        micro_batch_of_retry: number of the retry → rows a micro-batch had in it.
        attempts: times the unit was started on a replica.
        device_s, replica_s, commit_s: seconds on the device, in the replica, and in the commit stage.
        finished: Unix seconds.
        rejected_kinds: why rows are rejected → how many.
    """

    replica: str = ""
    host: str = ""
    device: str = ""
    dtype: str = ""
    micro_batch: int = 0
    micro_batch_of_retry: Mapping[str, int] = field(default_factory=dict)
    attempts: int = 1
    device_s: float = 0.0
    replica_s: float = 0.0
    commit_s: float = 0.0
    finished: float = 0.0
    rejected_kinds: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def known(cls, value: Mapping[str, Any]) -> Facts:
        """Those of `value` that have a field here."""
        names = {one.name for one in fields(cls)}
        return cls(**{name: fact for name, fact in value.items() if name in names})


@dataclass(frozen=True)
class Receipt:
    """The commit record of a unit: it is done when its receipt exists. `attempt` and `facts` are volatile.

    Attributes:
        unit, file, first_row, rows: which unit.
        revision: which commit of it.
        ok, rejected: outcomes; `ok + rejected = rows × samples per row`.
        parts: what was committed, data before rejected.
        source_version: the manifest file's version at that time.
        attempt: the staging folder its parts were written in, from where they are published.
        resized: True where the micro-batch had to shrink, so that outputs are held to 1/255 instead of byte equality.
    """

    unit: UnitId
    file: str
    first_row: int
    rows: int
    ok: int
    rejected: int
    parts: tuple[Part, ...]
    source_version: str
    revision: Revision = Revision()
    attempt: str = ""
    resized: bool = False
    facts: Facts = Facts()

    def to_json(self) -> str:
        """With a digest of itself, so that a change of any character shows."""
        return sealed(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Receipt:
        """Raises ValueError, saying what is wrong, for anything but what `to_json` wrote."""
        value = unsealed(text)
        return build(
            cls,
            value,
            unit=UnitId.parse,
            parts=lambda parts: tuple(build(Part, part) for part in parts),
            revision=lambda revision: build(Revision, revision),
            facts=lambda facts: build(Facts, facts),
        )


PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""How 🤗 datasets stores an Image."""

FAULT = pa.struct([("kind", pa.string()), ("message", pa.string()), ("stage", pa.string()), ("attempts", pa.int32())])
"""Why a row is rejected; null while it is well."""
