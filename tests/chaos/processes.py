"""A run in a process tree of its own: how far it is, and which of its processes to strike."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from tests.places import ROOT

REPLICA, TASK, IDLE = ("ReplicaStage",), ("prepare_stage", "commit_stage"), ("ray::IDLE",)
LIFE_S = 400.0
FOUND_S = 30.0
GONE_S = 120.0


class Life:
    """One start of `tests.chaos.one_run`.

    Attributes:
        said: what it reported, oldest first.
    """

    def __init__(self, spec: Path, *, env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.one_run", str(spec)],
            cwd=ROOT,
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            stderr=(spec.parent / "stderr.txt").open("ab"),
            start_new_session=True,
        )
        self.root = psutil.Process(self.process.pid)
        self.said: list[dict[str, Any]] = []
        self.tree: set[psutil.Process] = {self.root}
        self._news: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        self._ends_at = time.monotonic() + LIFE_S

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with contextlib.suppress(ValueError):
                self._news.put(json.loads(line))
        self._news.put(None)

    def wait_for_units(self, count: int) -> bool:
        """Wait until `count` units were done in this life (0: until it is at work); False if it ended before."""
        first: int | None = None
        while (news := self._next()) is not None:
            if news["stage"] == "running":
                first = news["units_done"] if first is None else first
                if news["units_done"] - first >= count:
                    return True
        return False

    def wait(self) -> int:
        """Wait for its end; its exit status.

        Raises:
            TimeoutError: it hangs.
        """
        while self._next() is not None:
            pass
        return self.process.wait(GONE_S)

    def _next(self) -> dict[str, Any] | None:
        try:
            news = self._news.get(timeout=max(0.0, self._ends_at - time.monotonic()))
        except queue.Empty:
            raise TimeoutError(
                f"a run neither ended nor died within {LIFE_S:.0f} s; it said {self.said[-1:]}"
            ) from None
        if news is not None:
            self.said.append(news)
        else:
            self._news.put(None)
        return news

    def find(self, titles: tuple[str, ...]) -> psutil.Process | None:
        """A process of this run whose title holds one of `titles`; tasks are short, so look for a while."""
        ends_at = time.monotonic() + FOUND_S
        while time.monotonic() < ends_at and self.root.is_running():
            for one in self.processes():
                with contextlib.suppress(psutil.Error):
                    if any(title in " ".join(one.cmdline()) for title in titles):
                        return one
        return None

    def processes(self) -> list[psutil.Process]:
        """The run's processes now; those seen once are remembered, whoever their parent is later."""
        with contextlib.suppress(psutil.Error):
            self.tree.update(self.root.children(recursive=True))
        return [one for one in self.tree if one.is_running()]

    def kill_all(self, *, but: psutil.Process | None = None) -> None:
        """Kill the driver and all its tree (save `but`), leaves last, as a machine that goes down would not wait."""
        there = self.processes()
        strike(self.root, signal.SIGKILL)
        for one in there:
            if one != but:
                strike(one, signal.SIGKILL)

    def left_behind(self) -> list[str]:
        """What of the tree could still write and outlived the run by GONE_S. All that is left is killed then.

        Ray's own agents live on for a while after a driver's sudden death; they touch nothing of ours.
        """
        there = self.processes()
        _, alive = psutil.wait_procs([one for one in there if _writes(one)], timeout=GONE_S)
        for one in there:
            strike(one, signal.SIGKILL)
        return [str(one) for one in alive]


def _writes(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        title = " ".join(process.cmdline())
        return any(name in title for name in (*REPLICA, *TASK, *IDLE, "one_run"))
    return False


def strike(process: psutil.Process, number: int) -> None:
    """Send a signal, unless it is gone (or another process has its number by now: psutil looks)."""
    with contextlib.suppress(psutil.Error):
        process.send_signal(number)
