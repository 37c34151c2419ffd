"""The processes of a private Ray: whether one that the run needs has ended, and that none outlives the run."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import psutil

CORE = ("gcs_server", "raylet")  # without either of them nothing works any more
GRACE_S = 3.0  # most processes of Ray end by themselves once a core process is gone


class RayProcesses:
    """Ray's processes among this process's descendants, apart from those that were there before."""

    def __init__(self) -> None:
        self.before = set(_descendants())
        self.seen: dict[psutil.Process, str] = {}

    def look(self) -> None:
        """Remember those that are alive now: once their parent has died they are no descendants of ours."""
        for process in _descendants():
            if process not in self.before and process not in self.seen:
                with contextlib.suppress(psutil.Error):
                    if (name := _ray_name(process)) is not None:
                        self.seen[process] = name

    def ended(self) -> str:
        """The name of a core process that was seen and has ended, or ""."""
        return next((name for process, name in self.seen.items() if name in CORE and not _alive(process)), "")

    def end(self, *, grace_s: float = GRACE_S) -> None:
        """End those that are still alive after `grace_s`."""
        self.look()
        _, alive = psutil.wait_procs([one for one in self.seen if _alive(one)], timeout=grace_s)
        for process in alive:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(alive, timeout=grace_s)


def _descendants() -> list[psutil.Process]:
    for _ in range(3):
        with contextlib.suppress(psutil.Error):
            return psutil.Process().children(recursive=True)
        time.sleep(0.01)
    return []


def _ray_name(process: psutil.Process) -> str | None:
    """What a process of Ray is called, or None for any other."""
    import ray

    line = process.cmdline()
    if not line:
        return None
    name = Path(line[0]).name
    if name in CORE:
        return name
    ours = line[0].startswith("ray::") or any(str(Path(ray.__file__).parent) in word for word in line[:3])
    return name if ours else None


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
