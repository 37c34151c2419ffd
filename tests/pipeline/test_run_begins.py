"""What a run looks at before it begins: whether it may, and whether the machines are there."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import FakeEngine, make_job, write_prompts
from unipic.pipeline.errors import JobError
from unipic.pipeline.execution.capacity import check_capacity
from unipic.pipeline.plan import plan
from unipic.pipeline.run import run
from unipic.pipeline.storage.storage import Storage


def machines(monkeypatch: pytest.MonkeyPatch, *resources: dict[str, float]) -> None:
    nodes = [{"Alive": True, "Resources": one} for one in resources]
    monkeypatch.setattr("ray.nodes", lambda: [*nodes, {"Alive": False, "Resources": {"GPU": 64.0, "CPU": 64.0}}])


@pytest.mark.parametrize("limits", [{}, {"limits__max_hours": 1e-9}])
def test_a_run_that_is_to_stop_before_it_begins_starts_no_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: dict[str, Any]
) -> None:
    def no_ray(*_: object, **__: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr("unipic.pipeline.run.ray_cluster", no_ray)
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a", "b"])
    stop = threading.Event()
    if not limits:
        stop.set()
    result = run(make_job(tmp_path, **limits), stop=stop, make_engine=FakeEngine)
    assert (result.outcome, result.ok) == ("stopped", 0)
    assert result.message.startswith("the deadline" if limits else "asked to stop")


def test_a_gpu_that_no_machine_has_is_refused_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines(monkeypatch, {"CPU": 8.0}, {"CPU": 8.0})
    job = make_job(tmp_path, compute__gpus_per_replica=1)
    with pytest.raises(JobError, match=r"one replica needs 1 GPU, and no machine here has more than 0\. Set compute"):
        check_capacity(job, can_grow=False)
    assert check_capacity(job, can_grow=True).endswith("waiting for machines to join, at most limits.stall_s (1800 s)")


def test_fewer_gpus_than_the_smallest_pool_needs_are_refused_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines(monkeypatch, {"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 1.0})
    job = make_job(tmp_path, compute__gpus_per_replica=1, compute__replicas=3)
    with pytest.raises(JobError, match="3 replicas need 3 GPUs, and there are 2"):
        check_capacity(job, can_grow=False)
    assert check_capacity(make_job(tmp_path, compute__gpus_per_replica=0.5, compute__replicas=3), can_grow=False) == ""


def test_a_run_tells_all_faults_of_its_job_at_once_as_its_plan_does(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a"])
    job = make_job(tmp_path, model__checkpoint=str(tmp_path / "nowhere"), input__keep=["colour"])
    for look in (lambda: run(job, make_engine=FakeEngine), lambda: plan(job, Storage())):
        with pytest.raises(JobError, match=r"(?s)2 faults\n.*nowhere.*\n.*no column \"colour\""):
            look()
