"""`gpus_per_replica: auto` takes what the cluster has."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes import make_job
from unipic.pipeline.execution.capacity import ON_CPU, with_gpus


@pytest.mark.parametrize(
    ("gpus", "device", "expected", "note"),
    [
        ([0, 1], "auto", 1.0, ""),
        ([0], "auto", 0.0, ON_CPU),
        ([4], "cpu", 0.0, ""),
        ([0], "cuda", 1.0, ""),
    ],
)
def test_auto_takes_a_gpu_if_a_machine_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: list[int], device: str, expected: float, note: str
) -> None:
    machines = [{"Alive": True, "Resources": {"CPU": 4.0, "GPU": float(count)}} for count in gpus]
    lost = {"Alive": False, "Resources": {"GPU": 8.0}}
    monkeypatch.setattr("ray.nodes", lambda: [*machines, lost])
    job, said = with_gpus(make_job(tmp_path, model__device=device))
    assert (job.compute.gpus_per_replica, said) == (expected, note)


def test_a_number_of_gpus_is_kept(tmp_path: Path) -> None:
    job = make_job(tmp_path, compute__gpus_per_replica=0.5)
    assert with_gpus(job) == (job, "")
