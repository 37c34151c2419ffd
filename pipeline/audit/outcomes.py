"""The outcomes of an output in the manifest's order: each manifest row with its samples and rejections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from unipic.pipeline.audit.rejections import Rejection, rejected_rows
from unipic.pipeline.lineage import from_row
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.output.run_record import Run
from unipic.pipeline.records import Receipt, UnitId


@dataclass(frozen=True)
class Outcome:
    """What became of one manifest row.

    Attributes:
        file: the manifest file, by its name in the manifest.
        finished: when its unit was committed, in Unix seconds.
        samples: its data rows by number of sample.
        rejections: of its samples that were rejected.
    """

    file: str
    row: int
    finished: float
    samples: list[dict[str, Any]] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)

    @property
    def id(self) -> str | None:
        found = self.samples[0]["id"] if self.samples else self.rejections[0].id
        return None if found is None else str(found)


def units_of(run: Run) -> Iterator[UnitId]:
    """Every unit of the recorded manifest, in its order."""
    for file in run.files:
        for first_row in range(0, file.rows, run.rows_per_unit):
            yield UnitId.of(file.key, first_row)


def outcomes(ledger: Ledger, run: Run, columns: Sequence[str], *, rejected: bool = True) -> Iterator[Outcome]:
    """The rows that were done, a unit of them held at a time.

    Args:
        columns: of the data rows, beside `id` and `lineage`, whose digests come as hex; `sample`, where they have one.
        rejected: read the rejected rows, too.

    Raises:
        OutputError: a receipt or a part is damaged.
    """
    for receipt in ledger.receipts(ledger.snapshot(run), units_of(run)):
        rows: dict[int, Outcome] = {}
        for row in _data_rows(receipt, ledger, ["id", "lineage", *columns]):
            number = row["lineage"]["source_row"]
            rows.setdefault(number, _outcome(receipt, number)).samples.append(row)
        if rejected and receipt.rejected:
            for rejection in rejected_rows(receipt, ledger, run):
                rows.setdefault(rejection.row, _outcome(receipt, rejection.row)).rejections.append(rejection)
        for number in sorted(rows):
            rows[number].samples.sort(key=lambda row: int(row.get("sample", 0)))
            yield rows[number]


def _data_rows(receipt: Receipt, ledger: Ledger, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    for _, table in ledger.data(receipt, columns):
        for row in table.to_pylist():
            yield {**row, "lineage": from_row(row["lineage"])}


def _outcome(receipt: Receipt, row: int) -> Outcome:
    return Outcome(receipt.file, row, receipt.facts.finished)
