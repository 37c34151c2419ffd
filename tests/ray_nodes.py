"""A Ray cluster of real `ray start` nodes on this machine, with ports and folders of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

STARTED_S = 180.0
ADDRESS = re.compile(r"ray start --address='([^']+)'")
ANY_PORT = ("--dashboard-agent-listen-port=0", "--metrics-export-port=0", "--disable-usage-stats")


def bare_environment(**variables: str) -> dict[str, str]:
    """The environment of a machine that has Ray and not this checkout; no token is asked for."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "VIRTUAL_ENV") and not name.startswith("RAY_")
    }
    return {**inherited, "RAY_AUTH_MODE": "disabled", **variables}


def python_without_unipic(folder: Path) -> Path:
    """An interpreter with all packages of this one, except those installed as checkouts: this one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    packages = next(Path(path) for path in sys.path if path.endswith("site-packages"))
    (own,) = folder.glob("lib/python*/site-packages")
    (own / "packages.pth").write_text(f"{packages}\n")
    return folder / "bin" / "python"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class Nodes:
    """Nodes of one cluster, ended by their own process ids.

    Args:
        folder: where the nodes are started from.
        python: the interpreter of Ray and of its workers.
    """

    def __init__(self, folder: Path, python: Path | str = sys.executable, **variables: str) -> None:
        self.folder = folder
        self.python = str(python)
        path = os.pathsep.join([str(Path(python).parent), os.environ["PATH"]])
        self.environment = bare_environment(PATH=path, **variables)
        self.temp = Path(tempfile.mkdtemp(prefix="nodes-"))  # a socket's path must be short
        self.processes: list[subprocess.Popen[bytes]] = []
        self.address = self.dashboard = ""

    def head(self, *options: str, dashboard: bool = False) -> str:
        """Start the head; its address."""
        self._start(
            "--head",
            "--port=0",
            f"--include-dashboard={str(dashboard).lower()}",
            f"--dashboard-port={(port := _free_port())}",
            f"--ray-client-server-port={_free_port()}",  # 0 is refused
            f"--temp-dir={self.temp}",
            *options,
        )
        self.dashboard = f"http://127.0.0.1:{port}"
        self.address = self._said(ADDRESS)
        return self.address

    def worker(self, *options: str) -> None:
        own = tempfile.mkdtemp(prefix="n", dir=self.temp)  # as on a machine of its own
        self._start(f"--address={self.address}", f"--temp-dir={own}", *options)

    def _start(self, *options: str) -> None:
        log = self.temp / f"start-{len(self.processes)}.txt"
        command = [self.python, "-m", "ray.scripts.scripts", "start", "--block", *ANY_PORT, *options]
        with log.open("wb") as out:
            started = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=out, stderr=out, start_new_session=True
            )
        self.processes.append(started)

    def _said(self, words: re.Pattern[str]) -> str:
        log = self.temp / f"start-{len(self.processes) - 1}.txt"
        for _ in range(int(STARTED_S * 10)):
            if found := words.search(log.read_text()):
                return found[1]
            assert self.processes[-1].poll() is None, log.read_text()
            time.sleep(0.1)
        raise AssertionError(log.read_text())

    def end(self) -> None:
        tree = []
        for one in self.processes:
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(one.pid)
                tree += [process, *process.children(recursive=True)]
        for one in tree:
            with contextlib.suppress(psutil.Error):
                one.kill()
        psutil.wait_procs(tree, timeout=10)
        for one in self.processes:
            one.wait(10)
        shutil.rmtree(self.temp, ignore_errors=True)


@contextlib.contextmanager
def nodes(folder: Path, python: Path | str = sys.executable, **variables: str) -> Iterator[Nodes]:
    """Nodes that are gone when the body ends."""
    folder.mkdir(parents=True, exist_ok=True)
    started = Nodes(folder, python, **variables)
    try:
        yield started
    finally:
        started.end()
