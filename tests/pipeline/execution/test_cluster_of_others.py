"""A run on a Ray that another program started, from another folder."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes import make_job, part_bytes, write_prompts
from tests.inprocess import run_here
from tests.patience import HANGS_S
from tests.ray_nodes import bare_environment, nodes, python_without_unipic

RUN = """
import sys
from pathlib import Path
from tests.fakes import FakeEngine, make_job
from unipic.pipeline.run import run
job = make_job(Path(""), output__images="files")
assert job.output.uri == "out"
print(run(job, address=sys.argv[1], make_engine=FakeEngine).outcome)
"""


def call(code: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env=bare_environment(PYTHONPATH=os.environ["PYTHONPATH"]),
        capture_output=True,
        text=True,
        timeout=HANGS_S,
        check=False,
    )


@pytest.mark.slow
def test_relative_paths_of_a_job_start_where_its_driver_is_and_leave_no_trace_in_the_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", [f"row {n}" for n in range(20)])
    with nodes(tmp_path / "elsewhere", PYTHONPATH=os.environ["PYTHONPATH"]) as cluster:
        address = cluster.head("--num-cpus=4")
        done = call(RUN, address, folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stdout + done.stderr
    assert list((tmp_path / "elsewhere").iterdir()) == []
    monkeypatch.chdir(tmp_path)
    there = part_bytes(make_job(Path("")))
    os.rename("out", "there")
    run_here(make_job(Path(""), output__images="files"))
    assert part_bytes(make_job(Path(""))) == there


REFUSED = """
import sys, time
from pathlib import Path
from tests.fakes import FakeEngine, make_job
from unipic.pipeline.errors import JobError
from unipic.pipeline.run import run
try:
    run(make_job(Path(sys.argv[2])), address=sys.argv[1], make_engine=FakeEngine)
except JobError as error:
    print(error)
"""


@pytest.mark.slow
def test_machines_without_the_package_are_refused_by_name_before_any_unit(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", [f"row {n}" for n in range(20)])
    with nodes(tmp_path / "elsewhere", python_without_unipic(tmp_path / "bare")) as cluster:
        done = call(REFUSED, cluster.head("--num-cpus=4"), str(tmp_path), folder=tmp_path)
    host = socket.gethostname()
    assert done.stdout.startswith("the cluster cannot do this job:"), done.stdout + done.stderr
    assert f"\n{host} (" in done.stdout
    assert "unipic-batch is not usable there (No module named 'unipic'); needed: " in done.stdout
    assert "`unipic submit` brings the package along" in done.stdout
    assert not (tmp_path / "out" / "data").exists()
