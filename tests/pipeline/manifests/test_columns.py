"""Columns whose type rules out what they are read as are refused at plan, before any model loads."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.fakes import make_job
from unipic.pipeline.errors import ManifestError
from unipic.pipeline.job import Job
from unipic.pipeline.manifests.columns import column_faults
from unipic.pipeline.manifests.discovery import discover
from unipic.pipeline.plan import plan
from unipic.pipeline.preflight import preflight
from unipic.pipeline.storage.storage import Storage

STORAGE = Storage()


def job_with(root: Path, role: str, column: Any) -> Job:
    (root / "manifest").mkdir(exist_ok=True)
    pq.write_table(pa.table({"prompt": ["p"], "own": column}), root / "manifest" / "a.parquet")
    return make_job(root, input__columns={"prompt": "prompt", role: "own"})


@pytest.mark.parametrize(
    "column",
    [[1.0], [True], [b"1"], [[1]], [{"a": 1}], [date(2026, 1, 1)], [Decimal("1")]],
    ids=lambda column: type(column[0]).__name__,
)
def test_a_seed_column_of_a_type_that_holds_no_seed_is_refused_before_any_model_loads(
    tmp_path: Path, column: Any
) -> None:
    job = job_with(tmp_path, "seed", column)
    for look in (plan, preflight):
        with pytest.raises(ManifestError, match=r'Column "own" is .* reads it as seed, which must be whole numbers'):
            look(job, STORAGE)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary(1), pa.binary_view()], ids=str)
def test_ids_that_are_bytes_are_refused_before_any_model_loads(tmp_path: Path, kind: pa.DataType) -> None:
    job = job_with(tmp_path, "id", pa.array([b"x"], pa.binary()).cast(kind))
    for look in (plan, preflight):
        with pytest.raises(ManifestError, match=r'Column "own" is .* reads it as id, which must be text or numbers'):
            look(job, STORAGE)


@pytest.mark.parametrize(
    ("role", "column"),
    [
        ("seed", [1]),
        ("seed", ["9223372036854775807"]),
        ("seed", pa.array([2**63 - 1], pa.uint64())),
        ("seed", pa.nulls(1)),
        ("seed", pa.array([7], pa.int8()).dictionary_encode()),
        ("id", [1]),
        ("id", ["x"]),
        ("id", [1.5]),
        ("id", [{"a": 1}]),
    ],
)
def test_every_type_that_can_hold_one_is_taken(tmp_path: Path, role: str, column: Any) -> None:
    job = job_with(tmp_path, role, column)
    assert column_faults(discover(job.input, STORAGE), job) == []
