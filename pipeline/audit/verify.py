"""An audit of a whole output from storage alone. It streams unit by unit: memory does not grow with rows."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import pyarrow as pa

from unipic.pipeline.errors import ObjectMissing, OutputError, RowError
from unipic.pipeline.images.decode import check_decodes
from unipic.pipeline.lineage import recompute_id, sha256
from unipic.pipeline.output.ledger import LISTINGS, META, RECEIPTS, RUN, Ledger, part_name, part_of, receipt_path
from unipic.pipeline.output.run_record import Run
from unipic.pipeline.records import Part, Receipt
from unipic.pipeline.storage.parquet import read_parquet
from unipic.pipeline.storage.paths import is_s3, join, local_path, relative
from unipic.pipeline.storage.storage import PROBE, Storage

AUDITORS = 4  # units read at once: one is decoded while others are on their way
SET_ASIDE = f"{META}/set-aside"  # where `repair` puts strangers' files
SET_ASIDE_MAX_BYTES = 1 << 30  # objects are moved through memory
OURS_ALONE = ("data/", "rejected/", "images/", f"{META}/")  # elsewhere, a stranger's file may be another output's
OURS = (RECEIPTS, LISTINGS, f"{META}/events", f"{META}/running", f"{META}/reports", SET_ASIDE)
PARTS = ("data/", "rejected/")
UNEXPECTED = "unexpected file"
LARGEST_IMAGE_PX = 4096 * 4096  # of the largest `image_size` that a job can ask for
LISTED = 1_000  # problems spelled out; all are counted


@dataclass(frozen=True)
class Problem:
    """One thing that is not as it must be.

    Attributes:
        kind: "missing unit", "missing part", "altered part", "row count", "duplicate row", "undecodable picture",
            "wrong lineage", "unexpected file", "superseded part", "interrupted retry", "damaged receipt"; of rows made
            again "differs when replayed", "cannot be replayed".
        where: the unit's id or the file's path.
        movable: True where `repair` moves the file out of the way.
        repairable: True where doing the unit again mends it.
    """

    kind: str
    where: str
    message: str
    unit: str | None = None
    movable: bool = False

    @property
    def repairable(self) -> bool:
        return self.unit is not None


@dataclass
class Report:
    """What the audit found. `ok` is the verdict.

    Attributes:
        counts: how many problems there are of each kind.
        problems: the first `LISTED` of them.
        damaged_units: ids of the units that doing again mends.
        strangers: paths of all unexpected files that `repair` moves.
    """

    output: str
    rows: int = 0
    data: int = 0
    rejected: int = 0
    units: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    damaged_units: set[str] = field(default_factory=set)
    strangers: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.counts

    def add(self, problem: Problem) -> None:
        self.counts[problem.kind] = self.counts.get(problem.kind, 0) + 1
        if len(self.problems) < LISTED:
            self.problems.append(problem)
        if problem.unit is not None:
            self.damaged_units.add(problem.unit)
        if problem.movable:
            self.strangers.append(problem.where)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: what is there, once, in lists."""
        facts = {**asdict(self), "damaged_units": sorted(self.damaged_units)}
        del facts["strangers"]
        return facts


def verify(output_uri: str, storage: Storage, *, on_unit: Callable[[int, int], None] | None = None) -> Report:
    """Hold everything under `output_uri` against its receipts, and the receipts against the manifest.

    Args:
        on_unit: told (units audited, units planned) after each unit.

    Raises:
        OutputError: no run has begun there.
    """
    output_uri = output_uri if is_s3(output_uri) else local_path(output_uri)  # as listings name what is below it
    ledger = Ledger(output_uri, storage)
    run = ledger.recorded()
    samples = int(run.fields["params"].get("samples_per_row", 1))
    planned = planned_units(run)
    report = Report(output_uri, rows=sum(one.rows for one in run.files) * samples)
    done = ledger.done()
    expected: set[str] = set()
    missing = planned.keys() - done
    unread: set[str] = set()
    for unit in sorted(missing):
        report.add(Problem("missing unit", unit, "has no receipt", unit))
    for unit in sorted(done - planned.keys()):
        report.add(Problem(UNEXPECTED, receipt_path(unit), "is of no unit of this manifest", movable=True))
    audits = _audited(ledger, storage, sorted(done & planned.keys()), samples, planned)
    for audited, (receipt, problems) in enumerate(audits, start=1):
        for problem in problems:
            report.add(problem)
        if receipt is None:
            unread.update(one.where for one in problems)
        else:
            report.units += 1
            report.data += receipt.ok
            report.rejected += receipt.rejected
            expected |= {part.path for part in receipt.parts}
        if on_unit is not None:
            on_unit(audited, len(planned))
    for problem in _strangers(ledger, run, expected=expected, undone=missing | unread, done=done & planned.keys()):
        report.add(problem)
    if report.ok and report.data + report.rejected != report.rows:
        report.add(Problem("row count", output_uri, f"{report.data} + {report.rejected} of {report.rows} rows"))
    return report


def planned_units(run: Run) -> dict[str, int]:
    """Unit id → its rows, for every unit of the recorded manifest."""
    size = run.rows_per_unit
    return {
        f"{one.key}-{first:010d}": min(size, one.rows - first)
        for one in run.files
        for first in range(0, one.rows, size)
    }


def _audited(
    ledger: Ledger, storage: Storage, units: Iterable[str], samples: int, planned: dict[str, int]
) -> Iterator[tuple[Receipt | None, list[Problem]]]:
    def audit(unit: str) -> tuple[Receipt | None, list[Problem]]:
        try:
            receipt = ledger.receipt(unit)
        except OutputError as error:
            return None, [Problem("damaged receipt", unit, error.message, unit)]
        return receipt, list(_audit(receipt, ledger.output_uri, storage, planned[unit] * samples))

    names = iter(units)
    with ThreadPoolExecutor(AUDITORS) as pool:
        while chunk := list(islice(names, AUDITORS * 4)):
            yield from pool.map(audit, chunk)


def _audit(receipt: Receipt, output: str, storage: Storage, rows: int) -> Iterator[Problem]:
    unit = receipt.unit
    if receipt.ok + receipt.rejected != rows:
        yield Problem("row count", unit, f"the receipt counts {receipt.ok} + {receipt.rejected} of {rows} rows", unit)
    seen: Counter[tuple[int, int]] = Counter()
    for part in receipt.parts:
        try:
            data = storage.read(join(output, part.path))
        except ObjectMissing:
            yield Problem("missing part", part.path, "is gone", unit)
            continue
        if sha256(data) != part.sha256:
            yield Problem("altered part", part.path, "does not match its receipt's SHA-256", unit)
            continue
        table = read_parquet(io.BytesIO(data))
        if table.num_rows != part.rows:
            yield Problem("row count", part.path, f"holds {table.num_rows} rows, its receipt says {part.rows}", unit)
        seen.update(_places(table))
        if part.path.startswith("data/"):
            yield from _audit_rows(table, part, unit, output, storage)
    for (row, sample), times in seen.items():
        if times > 1:
            yield Problem("duplicate row", unit, f"row {row} sample {sample} is there {times} times", unit)


def _places(table: pa.Table) -> Iterator[tuple[int, int]]:
    """(source row, sample) of every row of a part."""
    column = "rejection" if "rejection" in table.column_names else "lineage"
    struct = table.column(column).combine_chunks()
    yield from zip(struct.field("source_row").to_pylist(), struct.field("sample").to_pylist(), strict=True)


def _audit_rows(table: pa.Table, part: Part, unit: str, output: str, storage: Storage) -> Iterator[Problem]:
    lineages = table.column("lineage").to_pylist()
    for lineage in lineages:
        if recompute_id(lineage) != lineage["lineage_id"]:
            yield Problem(
                "wrong lineage", part.path, f"row {lineage['source_row']}: lineage_id does not recompute", unit
            )
    if lineages[0]["task"] == "caption":  # another task may keep a column of that name
        texts = [text.encode() for text in table.column("caption").to_pylist()]
        yield from _wrong_digests(zip(texts, lineages, strict=True), part, unit)
        return
    for at, lineage in enumerate(lineages):
        image = table.column("image")[at].as_py()
        where = f"row {lineage['source_row']} sample {lineage['sample']}"
        try:
            data = picture_of(image, output, storage)
            check_decodes(data, max_px=LARGEST_IMAGE_PX)
        except ObjectMissing:
            yield Problem("missing part", picture_path(image), f"the picture of {where} is gone", unit)
        except RowError as error:
            yield Problem("undecodable picture", part.path, f"{where}: {error}", unit)
        else:
            yield from _wrong_digests([(data, lineage)], part, unit)


def picture_path(image: dict[str, Any]) -> str:
    """Where in its output a picture that stands beside the Parquet is: rows name it by where the output was then."""
    return f"images/{image['path'].rsplit('/', 1)[-1]}"


def picture_of(image: dict[str, Any], output: str, storage: Storage) -> bytes:
    """The encoded picture of a data row. Raises ObjectMissing where it stood beside the Parquet and is gone."""
    data: bytes | None = image["bytes"]
    return storage.read(join(output, picture_path(image))) if data is None else data


def _wrong_digests(pairs: Iterable[tuple[bytes, dict[str, Any]]], part: Part, unit: str) -> Iterator[Problem]:
    for data, lineage in pairs:
        if sha256(data) != lineage["output_sha256"]:
            message = f"row {lineage['source_row']} sample {lineage['sample']} does not match its output_sha256"
            yield Problem("wrong lineage", part.path, message, unit)


def _strangers(ledger: Ledger, run: Run, *, expected: set[str], undone: set[str], done: set[str]) -> Iterator[Problem]:
    """Files that no receipt accounts for. Pictures beside the Parquet are named by their unit's rows."""
    keys = {one.key for one in run.files}
    for one in ledger.storage.list(ledger.output_uri, recursive=True):
        path = relative(one.uri, ledger.output_uri)
        if path.startswith((PROBE, *(f"{one}/" for one in OURS))) or path == RUN or path in expected:
            continue
        if path.startswith("images/") and path.removeprefix("images/").split("-", 1)[0] in keys:
            continue
        unit, retry = part_of(path)
        is_part = path == f"{path.split('/', 1)[0]}/{part_name(unit, retry)}" and path.startswith(PARTS)
        if is_part and unit in undone:
            continue  # written, then died, or its receipt is damaged: the unit will be done again
        yield _left_over(ledger, path) if is_part and unit in done else _unexpected(path, one.size_bytes)


def _unexpected(path: str, size_bytes: int) -> Problem:
    message = "belongs to no receipt"
    if not path.startswith(OURS_ALONE):
        where = ", ".join(OURS_ALONE)
        return Problem(UNEXPECTED, path, f"{message}; move it away: --repair moves only files inside {where}")
    if size_bytes > SET_ASIDE_MAX_BYTES:
        return Problem(UNEXPECTED, path, f"{message}; move it away: it is larger than what --repair moves")
    return Problem(UNEXPECTED, path, message, movable=True)


def _left_over(ledger: Ledger, path: str) -> Problem:
    """A part of a unit that is done, and whose receipt does not name it."""
    unit, retry = part_of(path)
    at = ledger.receipt(unit).retry
    if retry > at:
        return Problem("interrupted retry", path, "is of a try that did not end: run it again, `--retry-rejected`")
    return Problem("superseded part", path, "is of an earlier try; the next run of the job deletes it")
