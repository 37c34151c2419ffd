"""On real Ray, in a process of its own: what a user reads when replicas die."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes import all_rows, make_job
from tests.patience import HANGS_S
from tests.places import ROOT
from unipic.pipeline.supervision.failures import DEATHS_PER_ATTEMPT

REAL = """
import os, signal, sys, time
from pathlib import Path
from unipic.pipeline.errors import EngineError
from unipic.pipeline.run import run
from tests.fakes import FakeEngine, make_job, write_prompts

root, deaths = Path(sys.argv[1]), int(sys.argv[2])

class DiesAnswered(FakeEngine):
    doomed = False
    def answer(self, rows):
        self.doomed |= any(row["prompt"] == "deadly" for row in rows)
        return super().answer(rows)
    def facts(self):
        died = len(list(root.glob("death-*")))
        if self.doomed and died < deaths:
            (root / f"death-{died}").touch()
            time.sleep(0.5)  # what was answered is on its way to the supervisor
            os.kill(os.getpid(), signal.SIGKILL)
        return super().facts()

if __name__ == "__main__":
    write_prompts(root / "manifest" / "a.parquet", [*(f"row {n}" for n in range(9)), "deadly"])
    try:
        print(run(make_job(root), make_engine=DiesAnswered).outcome)
    except EngineError as error:
        print(error)
"""


def run_script(script: Path, root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `script`, with `root` as its first argument and on the workers' path."""
    path = os.pathsep.join([os.environ["PYTHONPATH"], str(root)])
    env = {**os.environ, "PYTHONPATH": path, "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, str(script), str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT, timeout=HANGS_S, check=False)


@pytest.mark.parametrize(
    ("deaths", "said", "rows"),
    [
        (1, "done\n", 10),
        pytest.param(
            1000, "replica: a.parquet, rows 8 to 9: 3 processes died while they held", 8, marks=pytest.mark.slow
        ),
    ],
)
def test_on_real_ray_replicas_that_die_outside_a_micro_batch_leave_our_words_alone(
    deaths: int, said: str, rows: int, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(REAL)
    done = run_script(script, tmp_path, str(deaths))
    assert done.stdout.startswith(said) and done.stdout.count("\n") == 1, done.stdout + done.stderr
    assert done.stderr == ""
    assert len(list(tmp_path.glob("death-*"))) == min(deaths, 2 * DEATHS_PER_ATTEMPT)
    assert len(all_rows(make_job(tmp_path))) == rows


HOOK = """
import os, signal
from unipic.pipeline.stages import parts, prepare
from tests.tables import grey_png

def dies(real, deadly):
    def stand_in(*args, **named):
        if deadly(*args, **named):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **named)
    return stand_in

def holds_17(unit, answered, context):
    return any(row["row"] == 17 and row["fault"] is None for row in answered.select(["row", "fault"]).to_pylist())

def install():
    prepare.decode = dies(prepare.decode, lambda data, *_: data == grey_png(3))
    parts.data_rows = dies(parts.data_rows, holds_17)
"""

CAPTIONS = """
import sys
from pathlib import Path
import ray
from unipic.pipeline.run import run
from tests.fakes import FakeEngine, make_job, write_prompts
from tests.tables import grey_png

if __name__ == "__main__":
    root = Path(sys.argv[1])
    images = [grey_png(n) for n in range(20)]
    write_prompts(root / "manifest" / "a.parquet", [f"row {n}" for n in range(20)], image=images)
    ray.init(address="local", include_dashboard=False, num_cpus=4,
             log_to_driver=False, runtime_env={"worker_process_setup_hook": "hook.install"})
    columns = {"id": "id", "image": "image"}
    print(run(make_job(root, "caption", input__columns=columns), make_engine=FakeEngine).outcome)
"""


@pytest.mark.slow
def test_on_real_ray_rows_that_kill_tasks_are_rejected_and_their_neighbours_delivered(tmp_path: Path) -> None:
    (tmp_path / "hook.py").write_text(HOOK)
    script = tmp_path / "script.py"
    script.write_text(CAPTIONS)
    done = run_script(script, tmp_path)
    assert "done" in done.stdout.splitlines(), (
        done.stdout + done.stderr
    )  # this Ray was started by the script: it prints
    job = make_job(tmp_path, "caption")
    rejected = {(row["id"], row["rejection"]["stage"]) for row in all_rows(job, "rejected")}
    assert rejected == {("a-3", "prepare"), ("a-17", "commit")}
    assert len(all_rows(job)) == 18
