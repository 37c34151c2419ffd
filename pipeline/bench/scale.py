"""What `status`, a resume and `verify` take of an output of millions of rows, whose receipts are made up."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unipic.pipeline.bench.outputs import CHECKPOINT, claimed, generate_job, manifest_of
from unipic.pipeline.bench.plan import peak_bytes
from unipic.pipeline.lineage import sha256
from unipic.pipeline.manifests.manifest import units
from unipic.pipeline.output.attempt import Attempt
from unipic.pipeline.output.layout import (
    DATA,
    PACKS,
    RECEIPTS,
    epoch_path,
    pack_path,
    pack_record_path,
    part_path,
    receipt_path,
)
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.output.packed import PackRecord
from unipic.pipeline.output.packs import pack_of
from unipic.pipeline.output.run_record import Run, with_packs
from unipic.pipeline.records import Facts, Part, Receipt, Unit
from unipic.pipeline.storage.storage import FileInfo, Storage

PAGE = 1_000  # names that S3 lists in one request
PACKED = 4_000  # units in a pack
LEFT = 100  # of so many units one is left to do, for the resume
NOTHING = sha256(b"")


@dataclass(frozen=True)
class ScaleBench:
    """What one command took.

    Attributes:
        merged: whether the parts were merged, as `unipic compact` does.
        growth_bytes: of the peak of resident memory, from after the imports.
        requests: that a store would have got, by kind; a listing is one for each 1000 names.
    """

    command: str
    rows: int
    units: int
    merged: bool
    seconds: float
    growth_bytes: int
    requests: dict[str, int]


class CountingStorage(Storage):
    """Local files; it counts what would be requests to S3."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def read(self, uri: str, *, max_bytes: int | None = None) -> bytes:
        self.counts["GET"] += 1
        return super().read(uri, max_bytes=max_bytes)

    def info(self, uri: str) -> FileInfo:
        self.counts["HEAD"] += 1
        return super().info(uri)

    def write(self, uri: str, data: bytes) -> None:
        self.counts["PUT"] += 1
        super().write(uri, data)

    def list(self, folder_uri: str, **how: Any) -> Iterator[FileInfo]:
        listed = 0
        for found in super().list(folder_uri, **how):
            self.counts["LIST"] += listed % PAGE == 0
            listed += 1
            yield found
        self.counts["LIST"] += listed == 0


def bench_scale(rows: int = 10_000_000) -> Iterator[ScaleBench]:
    """Measure an output of a tenth of `rows`, one of `rows`, and that one merged, each command in its own process.

    Parts are empty files: `verify` reads every receipt, finds every part altered, and decodes none.
    """
    for count, merged in ((rows // 10, False), (rows, False), (rows, True)):
        with tempfile.TemporaryDirectory(prefix="unipic-bench-") as folder:
            output = str(Path(folder) / "out")
            made = fabricate(output, count, merged=merged)
            for command in (_status, _resume) if merged else (_status, _resume, _verify):
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    seconds, growth_bytes, requests = pool.apply(_measured, (command, output, count))
                name = command.__name__.removeprefix("_")
                yield ScaleBench(name, count, made, merged, seconds, growth_bytes, requests)


def fabricate(output: str, rows: int, *, merged: bool = False) -> int:
    """Claim `output` for a generate job, and put a receipt and an empty part for all units but each LEFT-th one.

    Args:
        merged: put them into packs instead.

    Returns:
        How many units it has.
    """
    job = generate_job(output, "inline")
    manifest = manifest_of(job, rows)
    run, _ = claimed(job, manifest, Storage())
    for folder in (RECEIPTS, DATA):
        Path(output, folder).mkdir(parents=True)
    count = 0
    receipts: list[Receipt] = []
    for unit in units(manifest, run.rows_per_unit):
        count += 1
        if count % LEFT and merged:
            receipts.append(_receipt(unit, output))
        elif count % LEFT:
            Path(output, receipt_path(unit.id)).write_text(_receipt(unit, output).to_json())
            Path(output, part_path(DATA, unit.id)).touch()
    if merged:
        _merge(output, run, sorted(receipts, key=lambda one: one.unit))
    return count


def _merge(output: str, run: Run, receipts: list[Receipt]) -> None:
    """Open the epoch in which these receipts are in packs."""
    packs = []
    for first in range(0, len(receipts), PACKED):
        group = receipts[first : first + PACKED]
        record, name = PackRecord(group), sha256(group[0].unit.encode())[:16]
        data, path = record.to_json(), pack_path(group[0].unit, name, 2)
        Path(output, PACKS).mkdir(parents=True, exist_ok=True)
        Path(output, pack_record_path(name, 2)).write_bytes(data)
        Path(output, path).touch()
        packs.append(pack_of(group, name, 2, Part(path, record.rows, 0, NOTHING), sha256(data), run.rows_per_unit))
    epoch = with_packs(run, packs)
    Path(output, epoch_path(epoch.number)).write_bytes(epoch.to_json())


def _receipt(unit: Unit, output: str) -> Receipt:
    facts = Facts("replica-0", "host-0", "cuda", "bfloat16", 8, finished=1_700_000_000.0 + unit.first_row / 64)
    return Receipt(
        unit=unit.id,
        file=unit.file.name,
        first_row=unit.first_row,
        rows=unit.rows,
        ok=unit.rows,
        rejected=0,
        parts=(Part(part_path(DATA, unit.id), unit.rows, 80_000_000, NOTHING),),
        source_version=unit.file.version,
        attempt=Attempt(unit, output, Storage()).name,
        facts=facts,
    )


def _measured(
    command: Callable[[str, int, Storage], None], output: str, rows: int
) -> tuple[float, int, dict[str, int]]:
    """(seconds, growth of peak memory in bytes, requests) of a command in this process."""
    _load()
    storage = CountingStorage()
    before_bytes, started = peak_bytes(), time.perf_counter()
    command(output, rows, storage)
    return time.perf_counter() - started, peak_bytes() - before_bytes, dict(sorted(storage.counts.items()))


def _load() -> None:
    """Import what the commands use: that is not what grows."""
    import unipic.pipeline.audit.status
    import unipic.pipeline.audit.verify
    import unipic.pipeline.run  # noqa: F401


def _status(output: str, rows: int, storage: Storage) -> None:
    from unipic.pipeline.audit.status import status

    found = status(output, storage)
    _check(found.rows == rows and 0 < found.units_done < found.units, "status")


def _resume(output: str, rows: int, storage: Storage) -> None:
    """All that a run does between its plan and its first unit, and its last look when it ends."""
    from unipic.pipeline.context import RunContext
    from unipic.pipeline.output.claims import claim
    from unipic.pipeline.output.recovery import recover
    from unipic.pipeline.run import reconciled, what_is_left

    job = generate_job(output, "inline")
    ledger = Ledger(output, storage)
    record, manifest = claim(ledger, job, manifest_of(job, rows), CHECKPOINT)
    known = ledger.snapshot(record)
    recover(ledger, known)
    work = what_is_left(RunContext(job, CHECKPOINT, manifest.columns), manifest, ledger, known)
    left = sum(len(wave.units) for wave in work.queue.waves())
    seen = reconciled(work)
    _check(0 < left == seen.missing == work.tally.units_left, "resume")


def _verify(output: str, rows: int, storage: Storage) -> None:
    from unipic.pipeline.audit.verify import verify

    report = verify(output, storage)
    _check(report.rows == rows and set(report.counts) == {"missing unit", "altered part"}, "verify")


def _check(sound: bool, command: str) -> None:
    if not sound:
        raise RuntimeError(f"{command} does not find what the benchmark made up")
