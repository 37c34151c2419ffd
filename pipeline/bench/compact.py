"""What compaction gains: files, bytes a row, and seconds to open an output of captions before and after."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow.dataset as ds

from unipic.pipeline.bench.verify import write_captions
from unipic.pipeline.output.compaction import compact
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.storage.storage import Storage


@dataclass(frozen=True)
class CompactBench:
    """What `bench_compact` measured.

    Attributes:
        seconds: of the compaction.
        files, row_bytes, open_s: data files, their bytes a row, and seconds to count the rows and read all captions
            with pyarrow; before and after.
    """

    rows: int
    units: int
    seconds: float
    files: tuple[int, int]
    row_bytes: tuple[float, float]
    open_s: tuple[float, float]


def bench_compact(rows: int = 1_000_000) -> CompactBench:
    """Write an output of `rows` captions into a temporary folder, and compact it."""
    with tempfile.TemporaryDirectory(prefix="unipic-bench-") as folder:
        units = write_captions(folder, rows)
        before = _look(Path(folder, "data"), rows)
        started = time.perf_counter()
        compact(Ledger(folder, Storage()))
        seconds = time.perf_counter() - started
        after = _look(Path(folder, "data"), rows)
    return CompactBench(
        rows=rows,
        units=units,
        seconds=seconds,
        files=(before[0], after[0]),
        row_bytes=(before[1], after[1]),
        open_s=(before[2], after[2]),
    )


def _look(data: Path, rows: int) -> tuple[int, float, float]:
    sizes = [path.stat().st_size for path in data.iterdir()]
    started = time.perf_counter()
    found = ds.dataset(data)
    if found.count_rows() != rows or found.to_table(columns=["caption"], use_threads=False).num_rows != rows:
        raise RuntimeError(f"the benchmark's own output does not have {rows:,} rows")
    return len(sizes), sum(sizes) / rows, time.perf_counter() - started
