"""Ray's services and processes are watched from outside: a connection that is refused, a process that has ended."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from unipic.pipeline.execution import ray_watch
from unipic.pipeline.execution.ray_processes import RayProcesses
from unipic.pipeline.execution.ray_watch import RayWatch, services
from unipic.pipeline.supervision.failures import RayLost


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_a_service_that_answers_is_left_alone(server: socket.socket) -> None:
    with RayWatch(services=[("GCS", "127.0.0.1", server.getsockname()[1])]) as watch:
        watch.check(wait_s=2.0)


def test_a_service_that_refuses_for_some_seconds_is_gone(
    server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_watch, "UNREACHABLE_S", 1.0)
    port = server.getsockname()[1]
    with RayWatch(services=[("GCS", "127.0.0.1", port)]) as watch:
        server.close()
        with pytest.raises(RayLost, match=f"Ray's GCS at 127.0.0.1:{port} cannot be reached any more") as caught:
            watch.check(wait_s=30.0)
    assert caught.value.retryable


@pytest.fixture
def raylet(tmp_path: Path) -> Iterator[tuple[RayProcesses, subprocess.Popen[bytes]]]:
    """A process that is called like Ray's, started after `RayProcesses` looked."""
    processes = RayProcesses()
    shutil.copy(shutil.which("sleep") or "", tmp_path / "raylet")
    with subprocess.Popen([tmp_path / "raylet", "600"]) as process:
        processes.look()
        yield processes, process
        process.kill()


def test_a_core_process_that_ends_is_noticed_within_seconds(
    raylet: tuple[RayProcesses, subprocess.Popen[bytes]],
) -> None:
    processes, process = raylet
    with RayWatch(processes) as watch:
        watch.check(wait_s=1.0)
        process.kill()
        with pytest.raises(RayLost, match="Ray's raylet process has ended"):
            watch.check(wait_s=10.0)


def test_processes_of_ray_are_ended_and_no_others(raylet: tuple[RayProcesses, subprocess.Popen[bytes]]) -> None:
    processes, process = raylet
    with subprocess.Popen([shutil.which("sleep") or "", "600"]) as other:
        try:
            processes.end(grace_s=0.0)
            process.wait(10)  # its code is not asked for: whoever waits first is given it
            assert other.poll() is None
        finally:
            other.kill()


def test_a_driver_knows_what_it_depends_on(ray_session: None) -> None:
    names = [name for name, _, _ in services()]
    assert names == ["GCS", "raylet"]
    with RayWatch(services=services()) as watch:
        watch.check(wait_s=1.0)
    assert ray.is_initialized() and os.getpid()


def test_a_call_that_takes_long_says_so_and_is_given_up_when_ray_is_gone(server: socket.socket) -> None:
    said: list[str] = []
    port, asked = server.getsockname()[1], threading.Event()

    def on_wait(words: str) -> None:
        said.append(words)
        asked.set()

    with RayWatch(services=[("GCS", "127.0.0.1", port)], on_wait=on_wait) as watch:
        assert watch.call(lambda: asked.wait(30), "looking at its machines")
        assert said[0].startswith("Ray is up; looking at its machines, ")
        watch.failure = "Ray's GCS is gone"
        watch.noticed.set()
        with pytest.raises(RayLost, match="Ray's GCS is gone"):
            watch.call(threading.Event().wait, "looking at its machines")
