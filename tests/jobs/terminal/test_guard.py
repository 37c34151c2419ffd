"""A process that ends without a message has a parent that says what happened; all else passes through unchanged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from unipic.jobs.terminal.guard import uses_ray

CHILD = """
import os, signal, sys
from unipic.jobs.terminal.guard import guard
finished = guard()
{body}
"""
WAIT_S = 60


@contextmanager
def guarded(body: str) -> Iterator[subprocess.Popen[str]]:
    code = CHILD.format(body=body)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("code", [0, 1, 2, 3])
def test_a_command_that_finishes_keeps_its_exit_code_and_its_words(code: int) -> None:
    with guarded(f"print('done'); sys.stdout.flush(); finished(); os._exit({code})") as process:
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
def test_a_silent_end_is_told_and_can_be_resumed(end: str, code: int, words: str) -> None:
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
finished()
"""
    with guarded(body) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == f"{number.name.removeprefix('SIG')}\n"
        said, _ = process.communicate("go on\n", timeout=WAIT_S)
        assert (said, process.returncode) == ("", 0)


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
        ("verify out --repair job.yaml", True),
        ("verify out", False),
        ("plan run", False),
        ("", False),
    ],
)
def test_commands_that_start_ray_are_guarded(command: str, expected: bool) -> None:
    assert uses_ray(command.split()) is expected
