"""Heartbeats say which runs are at work, whatever else lies among them."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from unipic.pipeline.output.heartbeat import at_work
from unipic.pipeline.output.layout import RUNNING
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.storage.storage import Storage


def write(folder: Path, value: Any) -> Ledger:
    path = folder / RUNNING / f"{'a' * 32}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return Ledger(str(folder), Storage())


def sign(**changes: Any) -> dict[str, Any]:
    return {"host": "elsewhere", "pid": 7, "started": time.time() - 30, "seen": time.time(), **changes}


def test_a_run_of_another_machine_is_at_work_while_its_heart_beats(tmp_path: Path) -> None:
    (found,) = at_work(write(tmp_path, sign(started=time.time() + 30)))
    assert found == "elsewhere, process 7, since 0 s"
    assert not at_work(write(tmp_path, sign(seen=time.time() - 200)))


def test_a_heartbeat_of_a_clock_that_jumped_ahead_does_not_stay_for_ever(tmp_path: Path) -> None:
    assert not at_work(write(tmp_path, sign(seen=time.time() + 1e9)))
    assert not list((tmp_path / RUNNING).iterdir())


@pytest.mark.parametrize(
    "value",
    [[], None, "x", 3, {}, sign(seen=None), sign(seen=[]), sign(seen=10**400), sign(pid="x"), sign(pid=None)],
)
def test_what_is_no_heartbeat_is_no_run(tmp_path: Path, value: Any) -> None:
    assert not at_work(write(tmp_path, value))


def test_a_heartbeat_with_a_process_number_that_no_machine_has_is_of_no_run(tmp_path: Path) -> None:
    assert not at_work(write(tmp_path, sign(host=socket.gethostname(), pid=2**70)))
    assert at_work(write(tmp_path, sign(host=socket.gethostname(), pid=os.getpid())))
