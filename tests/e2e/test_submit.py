"""A job that is submitted to a cluster whose machines do not have the package: the same bytes as at home."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.e2e.command_line import FAST, unipic, write_job
from tests.fakes import write_prompts
from tests.patience import HANGS_S
from tests.ray_nodes import Nodes, nodes, python_without_unipic
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.code_version import code_version
from unipic.pipeline.storage.storage import Storage

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """A head and a worker that have Ray and all libraries, and not this package."""
    root = tmp_path_factory.mktemp("cluster")
    with nodes(root / "elsewhere", python_without_unipic(root / "bare")) as started:
        started.head("--num-cpus=2", dashboard=True)
        started.worker("--num-cpus=2")
        yield started


def job_of(root: Path, checkpoint: Path, output: str, rows: int, **params: int) -> str:
    write_prompts(root / "manifest" / "a.parquet", [f"thing {n}" for n in range(rows)])
    return write_job(
        root,
        "generate",
        checkpoint=checkpoint,
        manifest=str(root / "manifest"),
        output=str(root / output),
        params={**FAST, **params},
        compute={"rows_per_unit": 4, "batch_size": 4},
        limits={"grace_s": 60},
    )


def parts(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted((folder / "data").rglob("*.parquet"))}


def test_a_submitted_job_leaves_the_bytes_of_a_local_run(
    cluster: Nodes, random_checkpoint: Path, tmp_path: Path
) -> None:
    unipic("run", job_of(tmp_path, random_checkpoint, "here", 12))
    job = job_of(tmp_path, random_checkpoint, "there", 12)
    said = unipic("submit", job, "--address", cluster.dashboard, "--wait")
    assert "submitted, 12 manifest rows" in said and "done: 12 of 12 rows ok" in said
    assert parts(tmp_path / "there") == parts(tmp_path / "here") != {}
    lineage = pq.read_table(next((tmp_path / "there" / "data").glob("*.parquet")))["lineage"].to_pylist()
    assert {row["code_version"] for row in lineage} == {code_version()}
    assert verify(str(tmp_path / "there"), Storage()).ok
    (found,) = json.loads(unipic("jobs", "--address", cluster.dashboard, "--json"))["jobs"]
    assert (found["status"], found["output"], found["exit_code"]) == ("SUCCEEDED", str(tmp_path / "there"), 0)
    assert "done: 12 of 12 rows ok" in unipic("logs", found["id"], "--address", cluster.dashboard)
    again = unipic("submit", job, "--address", cluster.dashboard, "--wait")
    assert "12 from earlier runs" in again


def test_submitting_twice_attaches_ctrl_c_detaches_and_stop_commits_what_is_in_flight(
    cluster: Nodes, random_checkpoint: Path, tmp_path: Path
) -> None:
    job = job_of(tmp_path, random_checkpoint, "out", 400, num_iterations=16, diffusion_steps=50)
    address = ("--address", cluster.dashboard)
    first = unipic("submit", job, *address)
    (job_id,) = re.findall(r"^(unipic-[0-9a-f]{16}): submitted", first, re.MULTILINE)
    command = [sys.executable, "-u", "-m", "unipic.jobs.cli", "submit", job, *address, "--wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as attached:
        assert attached.stdout is not None
        assert attached.stdout.readline() == f"{job_id}: at work already\n"
        while re.match(r"running: [1-9]", attached.stdout.readline()) is None:
            assert attached.poll() is None
        attached.send_signal(signal.SIGINT)
        rest = attached.stdout.read()
        assert (attached.wait(HANGS_S), "detached; the job goes on" in rest) == (0, True)
    said = unipic("stop", job_id, *address)
    assert said.endswith(f"{job_id}: stopped\n")
    assert "stopped early" in unipic("logs", job_id, *address)
    report = verify(str(tmp_path / "out"), Storage())
    assert set(report.counts) == {"missing unit"} and report.data > 0
