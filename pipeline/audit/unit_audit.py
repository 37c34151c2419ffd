"""One unit held against everything that is known of it: receipt, manifest, parts, rows, lineage, images."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from unipic.pipeline.audit.expectation import Expectation
from unipic.pipeline.audit.images import image_file
from unipic.pipeline.audit.report import Problem, ProblemKind
from unipic.pipeline.errors import ObjectMissing, OutputError, RowError
from unipic.pipeline.images.decode import check_decodes
from unipic.pipeline.lineage import from_row, sha256
from unipic.pipeline.output.layout import DATA, REJECTED, image_name, part_path, staged_path
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.output.packed import Packed, Slice
from unipic.pipeline.output.packs import Pack
from unipic.pipeline.output.seal import leaf_of
from unipic.pipeline.records import Part, Receipt, Revision, Unit, UnitId
from unipic.pipeline.storage.parquet import read_parquet

Place = tuple[int, int]
"""(source row, sample) of an output row."""


@dataclass
class UnitAudit:
    """What the audit of one unit came to.

    Attributes:
        receipt: None where it is damaged.
        files: paths of the published files that belong to the unit.
        leaves: of its receipts, for the output's seal.
    """

    unit: UnitId
    receipt: Receipt | None = None
    problems: list[Problem] = field(default_factory=list)
    files: set[str] = field(default_factory=set)
    leaves: list[bytes] = field(default_factory=list)

    def add(self, kind: ProblemKind, where: str, message: str) -> None:
        self.problems.append(Problem(kind, where, message, self.unit))


def audit_unit(ledger: Ledger, expectation: Expectation, unit: UnitId, commits: Iterable[Revision]) -> UnitAudit:
    """Hold the receipts of a unit's commits, and the parts and images of the latest, against `expectation`."""
    audit = UnitAudit(unit)
    try:
        for revision in commits:  # what a retry was added to must be as it was, too
            path, data, receipt = ledger.read_receipt(unit, revision)
            audit.leaves.append(leaf_of(path, data))
        audit.receipt = receipt
    except (OutputError, ObjectMissing) as error:
        audit.add(ProblemKind.DAMAGED_RECEIPT, unit, error.message)
        return audit
    _check_receipt(audit, audit.receipt, expectation)
    seen: dict[Place, str] = {}
    packed = ledger.packed(expectation.run)
    for part in audit.receipt.parts:
        where = packed.locate(unit, part)
        if pack := packed.index.paths.get(where.path):
            table = _packed_part(audit, where, pack, packed)
        else:
            audit.files.add(part.path)
            table = _part(audit, part, ledger)
        if table is not None:
            _check_places(audit, part, table, seen)
            _check_rows(audit, part, table, ledger, expectation)
    _check_complete(audit, audit.receipt, seen, expectation)
    return audit


def _check_receipt(audit: UnitAudit, receipt: Receipt, expectation: Expectation) -> None:
    unit = audit.unit
    file = expectation.files[unit.file_key]
    rows = min(expectation.rows_per_unit, file.rows - unit.first_row)
    said = (receipt.file, receipt.first_row, receipt.rows)
    planned = (file.name, unit.first_row, rows)
    if said != planned:
        audit.add(ProblemKind.DAMAGED_RECEIPT, unit, f"the receipt is of {said}, the manifest has {planned}")
    if receipt.ok + receipt.rejected != rows * expectation.samples:
        message = f"the receipt counts {receipt.ok} + {receipt.rejected} of {rows * expectation.samples} rows"
        audit.add(ProblemKind.ROW_COUNT, unit, message)
    counts = {DATA: receipt.ok, REJECTED: receipt.rejected}
    for folder, count in counts.items():
        parts = [part for part in receipt.parts if part.path.startswith(f"{folder}/")]
        if sum(part.rows for part in parts) != count:
            audit.add(ProblemKind.ROW_COUNT, unit, f"the receipt's parts in {folder} do not hold {count} rows")
    allowed = [Revision(receipt.revision.since, number) for number in range(receipt.revision.number + 1)]
    names = {part_path(DATA, unit, one) for one in allowed} | {part_path(REJECTED, unit, receipt.revision)}
    paths = [part.path for part in receipt.parts]
    if not names.issuperset(paths) or len(set(paths)) != len(paths):
        audit.add(ProblemKind.DAMAGED_RECEIPT, unit, f"the receipt names parts that are not the unit's: {paths}")
    if sum(receipt.facts.rejected_kinds.values()) != receipt.rejected:
        audit.add(ProblemKind.DAMAGED_RECEIPT, unit, "the receipt's kinds of rejection do not add up")


def _part(audit: UnitAudit, part: Part, ledger: Ledger) -> pa.Table | None:
    """The part's rows, if its bytes are those that were committed."""
    data = _read(audit, part.path, ledger)
    if data is None:
        audit.add(ProblemKind.MISSING_PART, part.path, "is gone")
        return None
    if len(data) != part.bytes or sha256(data) != part.sha256:
        audit.add(ProblemKind.ALTERED_PART, part.path, "does not match the size and SHA-256 in its receipt")
        return None
    try:
        table = read_parquet(io.BytesIO(data))
    except (pa.ArrowException, OSError) as error:
        audit.add(ProblemKind.ALTERED_PART, part.path, f"is not readable as Parquet: {error}")
        return None
    if table.num_rows != part.rows:
        audit.add(ProblemKind.ROW_COUNT, part.path, f"holds {table.num_rows} rows, its receipt says {part.rows}")
    return table


def _packed_part(audit: UnitAudit, where: Slice, pack: Pack, packed: Packed) -> pa.Table | None:
    """The part's rows, if the bytes of the pack that has them are those that were committed."""
    try:
        found = packed.check(pack)
        if found != where.path:
            message = "is committed and not published yet; the next run publishes it"
            audit.add(ProblemKind.UNPUBLISHED, where.path, message)
        return packed.rows(where)
    except OutputError as error:
        gone = error.message.endswith("is gone")
        audit.add(ProblemKind.MISSING_PART if gone else ProblemKind.ALTERED_PART, where.path, error.message)
        return None


def _read(audit: UnitAudit, path: str, ledger: Ledger) -> bytes | None:
    """A file of the unit: published, or still staged, which is reported; None where it is neither."""
    try:
        return ledger.storage.read(ledger.uri(path))
    except ObjectMissing:
        attempt = audit.receipt.attempt if audit.receipt is not None else ""
    try:
        data = ledger.storage.read(ledger.uri(staged_path(attempt, path)))
    except ObjectMissing:
        return None
    audit.add(ProblemKind.UNPUBLISHED, path, "is committed and not published yet; the next run publishes it")
    return data


def _check_places(audit: UnitAudit, part: Part, table: pa.Table, seen: dict[Place, str]) -> None:
    """Every row of the part is one of the unit's, and no other part has it."""
    name = "lineage" if part.path.startswith(f"{DATA}/") else "rejection"
    column = table.column(name).combine_chunks() if name in table.column_names else None
    if column is None or not pa.types.is_struct(column.type):
        audit.add(ProblemKind.ALTERED_PART, part.path, f"has no column {name!r}")
        return
    sample = "sample_index" if name == "lineage" else "sample"
    rows = zip(column.field("source_row").to_pylist(), column.field(sample).to_pylist(), strict=True)
    for row, sample in rows:
        if (row, sample) in seen:
            audit.add(ProblemKind.DUPLICATE_ROW, part.path, f"row {row} sample {sample} is also in {seen[row, sample]}")
        seen[row, sample] = part.path


def _check_complete(audit: UnitAudit, receipt: Receipt, seen: dict[Place, str], expectation: Expectation) -> None:
    """The rows found are the unit's rows, each once. Not asked where a part could not be read at all."""
    if any(one.kind in (ProblemKind.MISSING_PART, ProblemKind.ALTERED_PART) for one in audit.problems):
        return
    rows = range(receipt.first_row, receipt.first_row + receipt.rows)
    expected = {(row, sample) for row in rows for sample in range(expectation.samples)}
    for row, sample in sorted(expected - seen.keys()):
        audit.add(ProblemKind.MISSING_ROW, audit.unit, f"row {row} sample {sample} is in no part")
    for row, sample in sorted(seen.keys() - expected, key=str):
        message = f"row {row} sample {sample} is none of the unit's"
        audit.add(ProblemKind.FOREIGN_ROW, seen[row, sample], message)


def _check_rows(audit: UnitAudit, part: Part, table: pa.Table, ledger: Ledger, expectation: Expectation) -> None:
    if part.path.startswith(f"{REJECTED}/"):
        _check_rejections(audit, part, table, expectation)
        return
    missing = [name for name in expectation.columns if name not in table.column_names]
    if missing:
        audit.add(ProblemKind.ALTERED_PART, part.path, f"has no column {missing[0]!r}")
        return
    for row in table.select(expectation.columns).to_pylist():
        lineage = row["lineage"]
        where = f"row {lineage['source_row']} sample {lineage['sample_index']}"
        for fault in expectation.lineage_faults(audit.unit, row):
            audit.add(ProblemKind.WRONG_LINEAGE, part.path, f"{where}: {fault}")
        _check_output(audit, part, row, where, ledger, expectation)


def _check_rejections(audit: UnitAudit, part: Part, table: pa.Table, expectation: Expectation) -> None:
    kinds: dict[str, int] = {}
    for rejection in table.column("rejection").to_pylist():
        kinds[rejection["kind"]] = kinds.get(rejection["kind"], 0) + 1
        if rejection["source_file"] != expectation.files[audit.unit.file_key].name:
            message = f"row {rejection['source_row']} names the file {rejection['source_file']}, which is not its own"
            audit.add(ProblemKind.WRONG_LINEAGE, part.path, message)
    if audit.receipt is not None and kinds != dict(audit.receipt.facts.rejected_kinds):
        audit.add(ProblemKind.ALTERED_PART, part.path, "its kinds of rejection are not those of its receipt")


def _check_output(
    audit: UnitAudit, part: Part, row: dict[str, Any], where: str, ledger: Ledger, expectation: Expectation
) -> None:
    """The row's caption or image is the one that its lineage has the digest of, and an image can be decoded."""
    expected = from_row(row["lineage"])["output_sha256"]
    if "caption" in row:
        if sha256(str(row["caption"]).encode()) != expected:
            audit.add(ProblemKind.WRONG_LINEAGE, part.path, f"{where}: the caption does not match its output_sha256")
        return
    image, named = row["image"], _named_image(audit.unit, row, part, expectation)
    path = image["path"] or ""
    if path.rsplit("/", 1)[-1] != named or (image["bytes"] is None) is expectation.inline:
        audit.add(ProblemKind.WRONG_LINEAGE, part.path, f"{where}: the image is named {path!r}, not {named}")
        return
    beside = image_file(image)
    if not expectation.inline:
        audit.files.add(beside)
    data = image["bytes"] if expectation.inline else _read(audit, beside, ledger)
    if data is None:
        audit.add(ProblemKind.MISSING_PART, beside, f"the image of {where} is gone")
    elif sha256(data) != expected:
        kind, place = (
            (ProblemKind.WRONG_LINEAGE, part.path) if expectation.inline else (ProblemKind.ALTERED_PART, beside)
        )
        audit.add(kind, place, f"{where}: the image does not match its output_sha256")
    else:
        try:
            check_decodes(data, max_px=expectation.job.image_size**2)
        except RowError as error:
            audit.add(ProblemKind.UNDECODABLE_IMAGE, part.path, f"{where}: {error.message}")


def _named_image(unit: UnitId, row: dict[str, Any], part: Part, expectation: Expectation) -> str:
    lineage = row["lineage"]
    revision = expectation.revision_of(part.path)
    made = Unit(expectation.files[unit.file_key], unit.first_row, 1, revision=revision)
    return image_name(made, lineage["source_row"], lineage["sample_index"], expectation.image_suffix)
