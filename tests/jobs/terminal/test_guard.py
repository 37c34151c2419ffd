"""A process that ends without a message has a parent that says what happened; all else passes through unchanged."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import psutil
import pytest

from unipic.jobs.terminal.guard import uses_ray

CHILD = """
import os, signal, sys
from unipic.jobs.terminal.guard import guard
state = guard()
{body}
"""
WAIT_S = 60


@contextmanager
def guarded(body: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    code = CHILD.format(body=body)
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes, **options) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("code", [0, 1, 2, 3])
@pytest.mark.parametrize("end", ["os._exit(7)", "os.kill(os.getpid(), signal.SIGSEGV)"], ids=["calm", "crash"])
def test_a_command_that_states_its_exit_code_keeps_it_and_its_words_however_its_teardown_goes(
    code: int, end: str
) -> None:
    with guarded(f"print('done'); sys.stdout.flush(); state({code}); {end}") as process:
        assert process.communicate(timeout=WAIT_S) == ("done\n", "")
        assert process.returncode == code


@pytest.mark.parametrize(
    ("end", "code", "words"),
    [
        ("os._exit(1)", 3, "error: Ray ended the run without a message; one of its processes"),
        (
            "os.kill(os.getpid(), signal.SIGKILL)",
            3,
            "error: the run was ended by SIGKILL; the machine may have run out",
        ),
        ("os.kill(os.getpid(), signal.SIGSEGV)", 128 + signal.SIGSEGV, "error: the run was ended by SIGSEGV."),
    ],
)
def test_a_silent_end_is_explained_and_can_be_resumed(end: str, code: int, words: str) -> None:
    with guarded(end) as process:
        _, said = process.communicate(timeout=WAIT_S)
        assert process.returncode == code
        assert words in said and "run the same command again to resume" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_parent_reaches_the_child_once(number: signal.Signals) -> None:
    body = """
signal.signal(signal.SIGINT, lambda *_: print("INT", flush=True))
signal.signal(signal.SIGTERM, lambda *_: print("TERM", flush=True))
print("ready", flush=True)
sys.stdin.readline()
state(0)
"""
    with guarded(body) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == f"{number.name.removeprefix('SIG')}\n"
        said, _ = process.communicate("go on\n", timeout=WAIT_S)
        assert (said, process.returncode) == ("", 0)


def test_ctrl_c_on_a_terminal_reaches_the_child_once() -> None:
    body = """
came = []
signal.signal(signal.SIGINT, lambda *_: came.append(1))
print("ready", flush=True)
print(sys.stdin.readline().strip(), len(came), flush=True)
state(0)
"""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", CHILD.format(body=body)])
    with os.fdopen(terminal, "r+b", buffering=0) as keyboard:
        assert _until(keyboard, b"ready")
        keyboard.write(b"\x03")
        assert _until(keyboard, b"^C")
        keyboard.write(b"times\n")
        assert _until(keyboard, b"times 1")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0  # before the terminal closes, which hangs it up


def _until(keyboard: IO[bytes], words: bytes) -> bool:
    said = b""
    while words not in said:
        said += (more := keyboard.read(1024))
        if not more:
            return False
    return True


def test_a_parent_that_a_scheduler_and_a_group_signal_both_reach_stops_gently() -> None:
    body = """
import threading
from unipic.jobs.terminal.signals import Signals
stop = threading.Event()
with Signals(stop, print):
    print("ready", flush=True)
    stop.wait()
    sys.stdin.readline()
    state(3)
"""
    with guarded(body, start_new_session=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        os.killpg(process.pid, signal.SIGTERM)
        said, error = process.communicate("go on\n", timeout=WAIT_S)
        assert (process.returncode, error) == (3, "")
        assert said.count("stopping: waiting for the units in flight") == 1


def test_what_the_child_forked_does_not_keep_the_parent_waiting() -> None:
    body = """
if os.fork() == 0:
    os.close(1); os.close(2)
    sys.stdin.readline()
    os._exit(0)
os._exit(1)
"""
    with guarded(body) as process:
        assert process.wait(WAIT_S) == 3


def test_the_child_dies_with_its_parent() -> None:
    with guarded("print(os.getpid(), flush=True); signal.pause()") as process:
        assert process.stdout is not None
        child = psutil.Process(int(process.stdout.readline()))
        os.kill(process.pid, signal.SIGKILL)
        psutil.wait_procs([child], timeout=WAIT_S)
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("run job.yaml", True),
        ("-v run job.yaml", True),
        ("evaluate shapes", True),
        ("bench pipeline", True),
        ("verify out --repair job.yaml", True),
        ("verify out", False),
        ("plan run", False),
        ("", False),
    ],
)
def test_commands_that_start_ray_are_guarded(command: str, expected: bool) -> None:
    assert uses_ray(command.split()) is expected
