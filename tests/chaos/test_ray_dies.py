"""A part of Ray dies: the run says so within seconds in our words, can be resumed, and leaves no process behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.fakes import make_job, write_prompts
from tests.places import ROOT
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.storage.storage import Storage

SAID_S = 10.0  # on an idle machine
SLOWER = 4.0  # than that, at most, where others work on the machine too
STARTED_S = 240.0
AGENTS = {"dashboard agent": "DashboardAgent", "runtime environment agent": "RuntimeEnvAgent"}


class Run:
    """`tests.chaos.one_run` in a process of its own, and the processes below it."""

    def __init__(self, root: Path, *options: str) -> None:
        write_prompts(root / "manifest" / "a.parquet", [f"row {n}" for n in range(160)])
        self.job = make_job(root)
        spec = {"job": self.job.model_dump(mode="json"), "work_s": 0.3, "log": str(root / "log"), "address": None}
        (root / "spec.json").write_text(json.dumps(spec))
        self.stderr = root / "stderr.txt"
        self.said: list[dict[str, Any]] = []
        self.at_work = threading.Event()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.one_run", str(root / "spec.json"), *options],
            cwd=ROOT,
            env={**os.environ, "RAY_AUTH_MODE": "disabled"},
            stdout=subprocess.PIPE,
            stderr=self.stderr.open("wb"),
        )
        self.tree: set[psutil.Process] = set()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(json.loads(line))
            if self.said[-1]["stage"] == "running" and self.said[-1]["units_done"]:
                self.at_work.set()
        self.at_work.set()

    def find(self, called: Callable[[str], bool]) -> psutil.Process | None:
        for process in psutil.Process(self.process.pid).children(recursive=True):
            self.tree.add(process)
            try:
                if called(process.cmdline()[0]):
                    return process
            except (psutil.Error, IndexError):
                continue
        return None

    def end(self) -> int:
        status = self.process.wait(SAID_S * SLOWER)
        self.reader.join(10)
        return status

    def left(self) -> list[str]:
        _, alive = psutil.wait_procs(self.tree, timeout=5.0)
        names = [one.name() for one in alive if one.status() != psutil.STATUS_ZOMBIE]
        for one in alive:
            one.kill()
        return names


def is_core(name: str) -> Callable[[str], bool]:
    return lambda word: word.rpartition("/")[2] == name


def is_agent(name: str) -> Callable[[str], bool]:
    return lambda word: word.startswith("ray::") and name in word


@pytest.mark.slow
@pytest.mark.parametrize("called", map(is_agent, AGENTS.values()), ids=AGENTS)
def test_an_agent_that_dies_takes_ray_and_the_run_with_it_and_the_guard_says_so(
    called: Callable[[str], bool], tmp_path: Path
) -> None:
    run = Run(tmp_path, "--guarded")
    assert run.at_work.wait(STARTED_S) and run.process.poll() is None, run.stderr.read_text()
    target = run.find(called)
    assert target is not None
    target.send_signal(signal.SIGKILL)
    began = time.monotonic()
    assert run.end() == 3
    assert time.monotonic() - began < SAID_S * SLOWER
    said = run.stderr.read_text() + run.said[-1].get("message", "")
    assert "Ray ended the run without a message" in said or "Ray's raylet process has ended" in said
    assert "run the same command again to resume" in said
    assert run.left() == []
    assert set(verify(run.job.output.uri, Storage()).counts) == {"missing unit"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_a_part_of_ray_that_dies_during_a_run_ends_it_resumably(name: str, tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.at_work.wait(STARTED_S) and run.process.poll() is None, run.stderr.read_text()
    target = run.find(is_core(name))
    assert target is not None
    target.send_signal(signal.SIGKILL)
    began = time.monotonic()
    status = run.end()
    assert time.monotonic() - began < SAID_S * SLOWER
    assert (status, run.said[-1]["stage"]) == (3, "error"), run.stderr.read_text()
    assert f"Ray's {name} process has ended" in run.said[-1]["message"]
    assert "run the same command again to resume" in run.said[-1]["message"]
    assert run.stderr.read_text() == ""
    assert run.left() == []
    assert set(verify(run.job.output.uri, Storage()).counts) == {"missing unit"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_a_part_of_ray_that_dies_while_ray_starts_ends_the_run_resumably(name: str, tmp_path: Path) -> None:
    run = Run(tmp_path)
    target = None
    while target is None:
        assert run.process.poll() is None, run.stderr.read_text()
        target = run.find(is_core(name))
    time.sleep(0.5)  # the watch has to have seen it
    target.send_signal(signal.SIGKILL)
    status = run.end()
    assert (status, run.said[-1]["stage"]) == (3, "error"), run.stderr.read_text()
    assert "run the same command again" in run.said[-1]["message"]
    assert run.stderr.read_text() == ""
    assert run.left() == []
