"""Progress and Ctrl-C of a call from Python."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from unipic.jobs.api.progress import showing
from unipic.jobs.terminal import signals
from unipic.pipeline.execution.progress import Progress

RUNNING = Progress("running", rows_total=4, rows_ok=2)


def test_progress_is_shown_unless_it_is_turned_off(capfd: pytest.CaptureFixture[str]) -> None:
    for progress, shown in ((True, "2 of 4 rows"), (False, "")):
        with showing(progress, threading.Event()) as on_progress:
            on_progress(RUNNING)
        said = capfd.readouterr()
        assert said.out == "" and shown in said.err and bool(said.err) is bool(shown)


def test_a_function_of_the_callers_gets_each_progress() -> None:
    seen: list[Progress] = []
    with showing(seen.append, threading.Event()) as on_progress:
        on_progress(RUNNING)
    assert seen == [RUNNING]


def test_the_first_ctrl_c_asks_to_stop_the_second_interrupts_and_the_handlers_from_before_return(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(signals, "TOGETHER_S", 0.0)
    before, stop = signal.getsignal(signal.SIGINT), threading.Event()
    with pytest.raises(KeyboardInterrupt), showing(False, stop):
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wait(10)
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(10)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_call_in_another_thread_leaves_the_handlers_alone() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def call() -> None:
        with showing(False, threading.Event()) as on_progress:
            on_progress(RUNNING)
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert seen == [before]
