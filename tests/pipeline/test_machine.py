"""This machine's devices, from the device files alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from unipic.pipeline.machine import Machine, this_machine


@pytest.mark.parametrize(
    ("visible", "gpus"), [(None, 2), ("0", 1), ("", 0), ("-1", 0), ("1,-1,0", 1), ("0,1,2", 2), ("GPU-5ebe9eb4", 1)]
)
def test_gpus_are_those_that_cuda_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, gpus: int
) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert this_machine(tmp_path).gpus == gpus


def test_a_machine_reads_as_people_say_it() -> None:
    assert [str(Machine(1, 0)), str(Machine(16, 2))] == ["1 CPU core, no GPU", "16 CPU cores, 2 GPUs"]
