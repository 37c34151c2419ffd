"""Relative paths in a job start from the driver's folder, whichever process follows them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes import make_job
from unipic.pipeline.context import RunContext
from unipic.pipeline.errors import EngineError


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This process is in a folder that is not the driver's."""
    folder = tmp_path / "worker"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    ("changes", "there"),
    [
        ({}, False),
        ({"model__checkpoint": "builtin:tiny"}, False),
        ({"output__uri": "s3://bucket/out"}, False),
        ({"output__uri": "out"}, True),
        ({"model__checkpoint": "checkpoint"}, True),
        ({"input__image_root": "images"}, True),
    ],
)
def test_a_worker_goes_to_the_drivers_folder_for_relative_paths_alone(
    changes: dict[str, str], there: bool, tmp_path: Path, worker: Path
) -> None:
    context = RunContext(make_job(tmp_path, **changes), "0" * 64, (), folder=str(tmp_path))
    context.enter_folder()
    assert Path.cwd() == (tmp_path if there else worker)
    assert context.job == make_job(tmp_path, **changes)


def test_a_machine_without_the_drivers_folder_is_named_with_the_remedy(tmp_path: Path, worker: Path) -> None:
    context = RunContext(make_job(tmp_path, output__uri="out"), "0" * 64, ())
    context = replace(context, folder=str(tmp_path / "gone"))
    with pytest.raises(EngineError, match=r"out is a path from .*/gone, which .* does not have.*Give whole paths"):
        context.enter_folder()
    assert Path.cwd() == worker
