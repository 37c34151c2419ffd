"""A run on a Ray that another program started, from another folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes import make_job, part_bytes, write_prompts
from tests.inprocess import run_here
from tests.patience import HANGS_S
from tests.ray_nodes import bare_environment, nodes

RUN = """
import sys
from pathlib import Path
from tests.fakes import FakeEngine, make_job
from unipic.pipeline.run import run
job = make_job(Path(""), output__images="files")
assert job.output.uri == "out"
print(run(job, address=sys.argv[1], make_engine=FakeEngine).outcome)
"""


@pytest.mark.slow
def test_relative_paths_of_a_job_start_where_its_driver_is_and_leave_no_trace_in_the_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", [f"row {n}" for n in range(20)])
    environment = bare_environment(PYTHONPATH=os.environ["PYTHONPATH"])
    with nodes(tmp_path / "elsewhere", PYTHONPATH=os.environ["PYTHONPATH"]) as cluster:
        address = cluster.head("--num-cpus=4")
        done = subprocess.run(
            [sys.executable, "-c", RUN, address],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=HANGS_S,
            check=False,
        )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stdout + done.stderr
    assert list((tmp_path / "elsewhere").iterdir()) == []
    monkeypatch.chdir(tmp_path)
    there = part_bytes(make_job(Path("")))
    os.rename("out", "there")
    run_here(make_job(Path(""), output__images="files"))
    assert part_bytes(make_job(Path(""))) == there
