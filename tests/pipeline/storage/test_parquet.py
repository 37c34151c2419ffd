from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

_COUNT_THREADS = """
import os, sys
import pyarrow.parquet
from unipic.pipeline.storage.parquet import open_parquet, read_parquet
pyarrow.set_cpu_count(4)
read = {
    "whole": lambda file: read_parquet(file),
    "columns": lambda file: read_parquet(file, ["lineage"]),
    "batches": lambda file: list(open_parquet(file).iter_batches(100, use_threads=False)),
    "arrow's own": pyarrow.parquet.read_table,
}
before = len(os.listdir("/proc/self/task"))
rows = read[sys.argv[2]](open(sys.argv[1], "rb"))
print(len(os.listdir("/proc/self/task")) - before, flush=True)
os._exit(0)  # else Arrow's own reader does abort here, once in a while
"""


@pytest.mark.parametrize("reader", ["whole", "columns", "batches", "arrow's own"])
def test_reading_parquet_starts_no_thread_that_could_abort_a_process_that_ends(tmp_path: Path, reader: str) -> None:
    part = tmp_path / "part.parquet"
    lineage = [{"lineage_id": str(row), "row": row} for row in range(1000)]
    pq.write_table(pa.table({"lineage": lineage, "text": [str(row) for row in range(1000)]}), part)
    command = [sys.executable, "-c", _COUNT_THREADS, str(part), reader]
    started = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert (started > 0) == (reader == "arrow's own")
