"""Stopping is ordinary: units in flight finish or leave no trace, the exit code says so, the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.e2e.command_line import SIZE, unipic, write_job
from tests.fakes import write_prompts
from tests.patience import HANGS_S
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.storage.storage import Storage

pytestmark = pytest.mark.slow

ROWS = 240


def wait_for_receipt(output: Path, run: subprocess.Popen[str]) -> None:
    """Return when the first unit is committed."""
    tick = threading.Event()
    for _ in range(int(HANGS_S * 20)):
        if list((output / "_unipic" / "receipts").glob("*.json")):
            return
        assert run.poll() is None, run.communicate()[0]
        tick.wait(0.05)
    raise AssertionError(f"no unit was committed within {HANGS_S:.0f} s")


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_exits_with_3_and_the_same_command_goes_on(
    random_checkpoint: Path, tmp_path: Path, sign: signal.Signals
) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", [f"thing {n}" for n in range(ROWS)])
    job = write_job(
        tmp_path,
        "generate",
        checkpoint=random_checkpoint,
        manifest=str(tmp_path / "manifest"),
        output=str(tmp_path / "out"),
        params={**SIZE, "num_iterations": 16, "diffusion_steps": 50},
        compute={"rows_per_unit": 8},
    )
    command = [sys.executable, "-m", "unipic.jobs.cli", "run", job]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    wait_for_receipt(tmp_path / "out", run)
    os.kill(run.pid, sign)
    said, _ = run.communicate(timeout=HANGS_S)
    assert run.returncode == 3, said
    assert "stopped early" in said and "run the same command again to resume" in said
    storage = Storage()
    early = verify(str(tmp_path / "out"), storage)
    assert set(early.counts) == {"missing unit"}
    unipic("run", job)
    late = verify(str(tmp_path / "out"), storage)
    assert late.ok and late.data == ROWS
