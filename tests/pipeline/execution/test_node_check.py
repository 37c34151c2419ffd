"""A machine that differs from the driver's is refused by name; what it has and what is needed are said."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import make_job, write_prompts
from tests.inprocess import run_here
from unipic.pipeline.context import RunContext
from unipic.pipeline.errors import JobError
from unipic.pipeline.execution import node_check
from unipic.pipeline.execution.node_check import check_nodes
from unipic.pipeline.execution.node_facts import NodeFacts, mark, unreachable, versions
from unipic.pipeline.preflight import preflight
from unipic.pipeline.records import ManifestFile
from unipic.pipeline.storage.storage import Storage


@pytest.fixture
def claimed(tmp_path: Path) -> tuple[RunContext, ManifestFile]:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a", "b"])
    job = make_job(tmp_path)
    run_here(job)
    context, manifest, _ = preflight(job, Storage())
    return context, manifest.files[0]


def test_a_machine_like_the_drivers_is_taken(ray_session: None, claimed: tuple[RunContext, ManifestFile]) -> None:
    assert check_nodes(*claimed) == ""


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        ("No module named 'unipic'", r"unipic-batch is not usable there \(No module named 'unipic'\); needed: "),
        (replace(versions(), package="0.0.9"), "unipic-batch is 0.0.9; needed: "),
        (replace(versions(), code="other"), "unipic-batch code is other; needed: "),
        (replace(versions(), torch="2.1.0"), "PyTorch is 2.1.0; needed: "),
        (replace(versions(), unreachable=("the checkpoint: no such folder",)), "the checkpoint: no such folder"),
    ],
)
def test_what_differs_is_named(
    found: NodeFacts | str,
    fault: str,
    ray_session: None,
    claimed: tuple[RunContext, ManifestFile],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(node_check, "_answered", lambda _: found)
    with pytest.raises(JobError, match=rf"^the cluster cannot do this job:\n\S+ \([0-9.]+\): {fault}"):
        check_nodes(*claimed)


def test_a_gpu_machine_without_cuda_is_named(claimed: tuple[RunContext, ManifestFile]) -> None:
    ours = versions()
    faults = node_check._faults(replace(ours, torch_on_cpu=True), ours, gpu=True)
    assert list(faults) == ["it has a GPU, and a PyTorch that was built without CUDA"]


def gone(name: str) -> Callable[[Path], Any]:
    return lambda root: shutil.rmtree(root / name)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (gone("checkpoint"), "the checkpoint"),
        (gone("manifest"), "the manifest"),
        (gone("out"), "the output"),
        (lambda root: (root / "checkpoint" / "digests.json").write_text("{}"), "the checkpoint"),
    ],
)
def test_what_a_machine_cannot_read_is_named(
    change: Callable[[Path], Any], fault: str, claimed: tuple[RunContext, ManifestFile], tmp_path: Path
) -> None:
    context, file = claimed
    run = mark(context, Storage())
    assert unreachable(context, file, run) == ()
    change(tmp_path)
    (said,) = unreachable(context, file, run)
    assert said.startswith(fault)
