"""The rejected rows of an output: each with its reason, and per kind a count with one example."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from unipic.pipeline.errors import UniPicError
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.output.packs import Pack
from unipic.pipeline.output.run_record import Run
from unipic.pipeline.records import Receipt
from unipic.pipeline.storage.parquet import read_part
from unipic.pipeline.storage.paths import join
from unipic.pipeline.storage.storage import Storage


@dataclass(frozen=True)
class Rejection:
    """One rejected row.

    Attributes:
        file: the manifest file, by its name in the manifest.
        row: its number in that file, from 0.
        id: the manifest's id, None without one.
        attempts: how often the row was attempted.
    """

    file: str
    row: int
    sample: int
    id: str | None
    kind: str
    message: str
    stage: str
    attempts: int


@dataclass(frozen=True)
class RejectedKind:
    """Rows rejected for one reason; `example` is None if the part that has one is damaged."""

    kind: str
    rows: int
    example: Rejection | None


def rejections(output_uri: str, storage: Storage, *, kind: str | None = None) -> Iterator[Rejection]:
    """Every rejected row, in no particular order of units.

    Args:
        kind: only rows of this kind.

    Raises:
        OutputError: the output has no run, or a part is damaged.
    """
    ledger = Ledger(output_uri, storage)
    run = ledger.recorded()
    for receipt in ledger.receipts():
        if receipt.rejected and kind in (None, *receipt.facts.rejected_kinds):
            yield from (row for row in rejected_rows(receipt, ledger, run) if kind in (None, row.kind))


def summarise(output_uri: str, storage: Storage) -> tuple[RejectedKind, ...]:
    """The kinds of rejected rows, most frequent first. Raises OutputError if the output has no run."""
    ledger = Ledger(output_uri, storage)
    run = ledger.recorded()
    snapshot, summary = ledger.snapshot(run), Summary(ledger, run)
    closed = snapshot.closed_packs()
    for pack in closed:
        summary.add_pack(pack)
    for receipt in ledger.receipts(snapshot, snapshot.units_outside(closed)):
        summary.add(receipt)
    return summary.kinds()


class Summary:
    """Counts rejected rows by kind, from receipts. It reads one part per kind, for the example."""

    def __init__(self, ledger: Ledger, run: Run) -> None:
        self.ledger = ledger
        self.run = run
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, Rejection] = {}

    def add(self, receipt: Receipt) -> None:
        if not receipt.rejected:
            return
        self.counts.update(receipt.facts.rejected_kinds)
        self._find_examples(receipt)

    def _find_examples(self, receipt: Receipt) -> None:
        if receipt.facts.rejected_kinds.keys() <= self.examples.keys():
            return
        try:
            for row in rejected_rows(receipt, self.ledger, self.run):
                self.examples.setdefault(row.kind, row)
        except UniPicError:  # a damaged part costs an example, not the counts
            return

    def add_pack(self, pack: Pack) -> None:
        """Likewise for all receipts of a pack; its record is read only for an example."""
        self.counts.update(pack.rejected_kinds)
        if pack.rejected_kinds.keys() <= self.examples.keys():
            return
        try:
            receipts = self.ledger.packed(self.run).record(pack).receipts.values()
        except UniPicError:  # a damaged record costs an example, not the counts
            return
        for receipt in receipts:
            self._find_examples(receipt)

    def kinds(self) -> tuple[RejectedKind, ...]:
        return tuple(RejectedKind(kind, n, self.examples.get(kind)) for kind, n in self.counts.most_common() if n)


def rejected_rows(receipt: Receipt, ledger: Ledger, run: Run) -> Iterator[Rejection]:
    """Those of one unit. Raises OutputError where the part is damaged."""
    column = run.fields["columns"].get("id")
    wanted = ["rejection", *([column] if column and column != "rejection" else [])]
    for part in receipt.parts:
        if not part.path.startswith("rejected/"):
            continue
        for row in read_part(join(ledger.output_uri, part.path), ledger.storage, wanted).to_pylist():
            fault, identity = row["rejection"], row.get(column) if column else None
            yield Rejection(
                file=receipt.file,
                row=fault["source_row"],
                sample=fault["sample"],
                id=None if identity is None else str(identity),
                kind=fault["kind"],
                message=fault["message"],
                stage=fault["stage"],
                attempts=fault["attempts"],
            )
