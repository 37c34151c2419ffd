"""Every name and path of an output folder, written and read in this one place.

<output>/data/part-<unit>.parquet              published data rows
<output>/data/pack-<unit>-<id>.e<epoch>.parquet    published data rows of many units, merged
<output>/rejected/part-<unit>.parquet          published rejected rows
<output>/images/<unit's file key>-<row>-<sample>.png    published images, where they are not inside the Parquet
<output>/README.md                             the data-set card
<output>/_unipic/run.json                      whose output this is; written once
<output>/_unipic/claims/<process>.json         announcements of runs that claim a store without conditional puts
<output>/_unipic/epochs/<number>.json          the manifest as recorded, one file an epoch; each written once
<output>/_unipic/receipts/<unit>.json          one a commit; each written once
<output>/_unipic/packs/<id>.e<epoch>.json      the receipts of the units in a pack; written once
<output>/_unipic/staging/<unit>-<attempt>/…    what an attempt wrote, not published yet
<output>/_unipic/staging/pack-<id>.e<epoch>/…  likewise, of a compaction
<output>/_unipic/listings/<name>.parquet       what a folder of images held when it was first seen
<output>/_unipic/running/<run>.json            heartbeats of runs at work
<output>/_unipic/events/<run>.ndjson           OpenLineage events
<output>/_unipic/events/<run>.unsent           says that some of them may still have to be sent
<output>/_unipic/withdrawn/<number>.json       nothing is left that the epochs up to this one took back
<output>/_unipic/seal.json                     a digest over everything above, where the output was sealed
<output>/_unipic/reports/…                     stacks of workers that hung
<output>/_unipic/set-aside/…                   foreign files that `unipic verify --repair` moved

Names of a later commit of a unit carry its revision's tag, such as `part-<unit>.e2.r1.parquet`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from unipic.pipeline.records import Receipt, Revision, Unit, UnitId

META = "_unipic"
CARD = "README.md"
RUN = f"{META}/run.json"
CLAIMS = f"{META}/claims"
EPOCHS = f"{META}/epochs"
RECEIPTS = f"{META}/receipts"
PACKS = f"{META}/packs"
STAGING = f"{META}/staging"
LISTINGS = f"{META}/listings"
RUNNING = f"{META}/running"
EVENTS = f"{META}/events"
REPORTS = f"{META}/reports"
WITHDRAWN = f"{META}/withdrawn"
SET_ASIDE = f"{META}/set-aside"
SEAL = f"{META}/seal.json"
DATA, REJECTED, IMAGES = "data", "rejected", "images"
FIRST = Revision()
PUBLISHED = (DATA, REJECTED, IMAGES)

_UNIT = r"(?P<unit>[0-9a-f]{16}-\d{10,18})"
_TAG = r"(?P<tag>(?:\.e\d+)?(?:\.r\d+)?)"
_PART = re.compile(rf"(?P<folder>{DATA}|{REJECTED})/part-{_UNIT}{_TAG}\.parquet")
_RECEIPT = re.compile(rf"{RECEIPTS}/{_UNIT}{_TAG}\.json")
_ATTEMPT = re.compile(rf"{_UNIT}{_TAG}-[0-9a-f]{{12}}")
_STAGED = re.compile(rf"{STAGING}/(?P<attempt>{_UNIT}{_TAG}-[0-9a-f]{{12}})/(?P<path>.+)")
_IMAGE = re.compile(rf"{IMAGES}/(?P<key>[0-9a-f]{{16}})-(?P<row>\d{{10,18}})-(?P<sample>\d+){_TAG}\.(?:png|jpg|webp)")
_PACK = re.compile(
    rf"(?:{STAGING}/pack-(?P<staged>[0-9a-f]{{16}}\.e\d+)/)?{DATA}/pack-{_UNIT}-(?P<id>[0-9a-f]{{16}})\.e(?P<epoch>\d+)\.parquet"
)
_PACK_RECORD = re.compile(rf"{PACKS}/(?P<id>[0-9a-f]{{16}})\.e(?P<epoch>\d+)\.json")
_EPOCH = re.compile(rf"{EPOCHS}/(\d{{6}})\.json")
_WITHDRAWN = re.compile(rf"{WITHDRAWN}/(\d{{6}})\.json")


@dataclass(frozen=True)
class Named:
    """The commit that a file's name belongs to."""

    unit: UnitId
    revision: Revision


@dataclass(frozen=True)
class StagedFile:
    """A file of an attempt that is not published yet; `path` is where it is to be published."""

    unit: UnitId
    revision: Revision
    attempt: str
    path: str


@dataclass(frozen=True)
class NamedImage:
    """The sample that an image's name belongs to."""

    file_key: str
    row: int
    sample: int
    revision: Revision


@dataclass(frozen=True)
class NamedPack:
    """The pack that a file's name belongs to.

    Attributes:
        epoch: the one that commits it.
        first: its first unit; None in the name of its record.
        staged: whether this is the staged file, not the published one.
    """

    id: str
    epoch: int
    first: UnitId | None = None
    staged: bool = False


def unit_of(file_key: str, row: int, rows_per_unit: int) -> UnitId:
    """The unit that a row of the manifest file with this key is in."""
    return UnitId.of(file_key, row - row % rows_per_unit)


def epoch_path(number: int) -> str:
    return f"{EPOCHS}/{number:06d}.json"


def epoch_number(path: str) -> int | None:
    """`epoch_path` backwards; None for any other path."""
    found = _EPOCH.fullmatch(path)
    return int(found[1]) if found else None


def withdrawn_path(number: int) -> str:
    return f"{WITHDRAWN}/{number:06d}.json"


def withdrawn_number(path: str) -> int | None:
    """`withdrawn_path` backwards; None for any other path."""
    found = _WITHDRAWN.fullmatch(path)
    return int(found[1]) if found else None


def names_of(folder: str, key: str) -> str:
    """What names in `folder` begin with, where they are of a manifest file or a unit. Args: key: its key or id."""
    return f"part-{key}" if folder in (DATA, REJECTED) else key


def receipt_path(unit: str, revision: Revision = FIRST) -> str:
    return f"{RECEIPTS}/{unit}{revision.tag}.json"


def parse_receipt(path: str) -> Named | None:
    """`receipt_path` backwards; None for any other path."""
    return _named(_RECEIPT.fullmatch(path))


def part_path(folder: str, unit: str, revision: Revision = FIRST) -> str:
    """Args: folder: DATA or REJECTED."""
    return f"{folder}/part-{unit}{revision.tag}.parquet"


def parse_part(path: str) -> Named | None:
    """`part_path` backwards; None for any other path."""
    return _named(_PART.fullmatch(path))


def check_paths(receipt: Receipt) -> None:
    """Raises ValueError for a receipt that names files of others: what it names is read, moved and deleted."""
    for part in receipt.parts:
        named = parse_part(part.path)
        if named is None or named.unit != receipt.unit:
            raise ValueError(f"it names {part.path!r:.200}, which is no part of its unit")
    if not _ATTEMPT.fullmatch(receipt.attempt):
        raise ValueError(f"its attempt cannot be called {receipt.attempt!r:.200}")


def image_path(unit: Unit, row: int, sample: int, suffix: str) -> str:
    return f"{IMAGES}/{image_name(unit, row, sample, suffix)}"


def image_name(unit: Unit, row: int, sample: int, suffix: str) -> str:
    return f"{unit.file.key}-{row:010d}-{sample}{unit.revision.tag}.{suffix}"


def parse_image(path: str) -> NamedImage | None:
    """`image_path` backwards; None for any other path."""
    found = _IMAGE.fullmatch(path)
    revision = Revision.parse(found["tag"]) if found else None
    if found is None or revision is None:
        return None
    return NamedImage(found["key"], int(found["row"]), int(found["sample"]), revision)


def pack_path(first: UnitId, id: str, epoch: int) -> str:
    """Where a pack is published. It sorts before all parts, and packs sort by their first units."""
    return f"{DATA}/pack-{first}-{id}.e{epoch}.parquet"


def pack_record_path(id: str, epoch: int) -> str:
    return f"{PACKS}/{id}.e{epoch}.json"


def pack_attempt(id: str, epoch: int) -> str:
    """The staging folder of a pack."""
    return f"pack-{id}.e{epoch}"


def parse_pack(path: str) -> NamedPack | None:
    """The pack that a published or staged pack file, or a record, is of; None for any other path."""
    if record := _PACK_RECORD.fullmatch(path):
        return NamedPack(record["id"], int(record["epoch"]))
    found = _PACK.fullmatch(path)
    if found is None or found["staged"] not in (None, f"{found['id']}.e{found['epoch']}"):
        return None
    return NamedPack(found["id"], int(found["epoch"]), UnitId(found["unit"]), found["staged"] is not None)


def attempt_name(unit: UnitId, revision: Revision, token: str) -> str:
    """Name of the staging folder of one attempt. Args: token: 12 hex digits, another for each attempt."""
    return f"{unit}{revision.tag}-{token}"


def staged_path(attempt: str, path: str) -> str:
    """Where `attempt` writes what is to be published at `path`."""
    return f"{STAGING}/{attempt}/{path}"


def parse_staged(path: str) -> StagedFile | None:
    """`staged_path` backwards; None for any other path."""
    found = _STAGED.fullmatch(path)
    named = _named(found)
    if found is None or named is None:
        return None
    return StagedFile(named.unit, named.revision, found["attempt"], found["path"])


def _named(found: re.Match[str] | None) -> Named | None:
    revision = Revision.parse(found["tag"]) if found else None
    return Named(UnitId(found["unit"]), revision) if found and revision is not None else None
