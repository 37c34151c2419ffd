"""What a run takes for progress, and the words it has where it, or what it stands on, gets nowhere."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.fakes import first_unit, make_job, write_prompts
from unipic.jobs.cli import main
from unipic.pipeline.errors import EngineError
from unipic.pipeline.execution.graph import cluster
from unipic.pipeline.execution.quiet import NATIVE_LINE
from unipic.pipeline.execution.ray_address import somebody_listens
from unipic.pipeline.supervision import watchdog
from unipic.pipeline.supervision.supervisor import Supervisor


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=1000.0)
    for module in ("supervisor", "gate"):
        monkeypatch.setattr(f"pipeline.{module}.time.monotonic", lambda: clock.now)
    return clock


def test_loading_again_and_answering_again_is_no_progress(clock: SimpleNamespace) -> None:
    supervisor = Supervisor(moved_at=clock.now)
    supervisor.start("a", "one")
    supervisor.attempt("a", (0, 4), "one")
    supervisor.answered("a", (0, 4), 4)
    for replica in ("two", "three"):
        clock.now += 100
        supervisor.loading(replica)
        supervisor.loaded(replica)
        supervisor.start("a", replica, alone=True)
        supervisor.attempt("a", (0, 4), replica)
        supervisor.answered("a", (0, 4), 4)
    assert supervisor.vitals().still_s == 200
    assert supervisor.rows_answered == 4
    supervisor.answered("a", (4, 8), 4)
    assert supervisor.vitals().still_s == 0


def test_a_micro_batch_within_its_own_limit_is_no_stall_however_slow(clock: SimpleNamespace) -> None:
    supervisor = Supervisor(moved_at=clock.now)
    supervisor.start("a", "one")
    supervisor.attempt("a", (0, 4), "one")
    clock.now += 900
    vitals = supervisor.vitals()
    assert vitals.still_s == 900 and vitals.idle_s(batch_timeout_s=1000) == 0
    clock.now += 150  # its replica should be dead by now; for the next one to come there is as much time as ever
    assert supervisor.vitals().idle_s(batch_timeout_s=1000) == 50
    supervisor.start("a", "two")
    assert supervisor.vitals().idle_s(batch_timeout_s=1000) == 0


def test_the_first_row_of_all_has_the_limit_of_a_micro_batch_too(clock: SimpleNamespace) -> None:
    supervisor = Supervisor(moved_at=clock.now)
    supervisor.may_load("one")
    supervisor.trial_loaded(1.0)
    clock.now += 900
    assert supervisor.vitals().idle_s(batch_timeout_s=1000) == 0
    assert supervisor.vitals().idle_s(batch_timeout_s=100) == 800


def test_a_stall_names_who_holds_a_unit_with_nothing_on_its_device() -> None:
    supervisor = Supervisor()
    supervisor.start("u-0", "host:1")
    assert supervisor.vitals().who_waits() == "host:1 has unit u-0, with no row on the device"


@pytest.mark.parametrize("form", ["{}", "ray://{}"])
def test_an_address_where_nobody_listens_is_refused_in_seconds(form: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = form.format(f"127.0.0.1:{taken.getsockname()[1]}")  # bound, and not listening
        started = time.monotonic()
        with (
            pytest.raises(EngineError, match=rf"no Ray cluster at {address}: .*refused\. Look at --address"),
            cluster(address, cpus=1, verbose=False),
        ):
            pass
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "no-such-host.invalid:6379", "[::1]:1"])
def test_an_address_that_names_nothing_is_refused_too(address: str) -> None:
    with pytest.raises(EngineError, match="there is no Ray cluster at"):
        somebody_listens(address)


def test_what_ray_looks_up_itself_is_left_to_it_and_its_failure_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", init)
    words = r"Ray at auto could not be used: ConnectionError: Could not find .* Look at --address"
    with pytest.raises(EngineError, match=words), cluster("auto", cpus=1, verbose=False):
        pass


@pytest.mark.parametrize("place", ["core_worker.cc:2465", "rpc_client.h:202"])
def test_lines_of_rays_native_side_are_known_by_their_form(place: str) -> None:
    assert NATIVE_LINE.match(f"[2026-01-31 12:00:00,000 E 123 456] (unipic) {place}: Failed to connect".encode())


@pytest.mark.parametrize(("room", "stacks"), [("store", "_unipic/reports"), ("nowhere", "is a file, not a folder")])
def test_a_process_that_leaves_over_a_slow_micro_batch_says_so(
    room: str, stacks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a", "b"])
    unit, context = first_unit(make_job(tmp_path, limits__batch_timeout_s=2.5))
    if room == "nowhere":
        (tmp_path / "out").touch()
    left: list[int] = []
    monkeypatch.setattr(watchdog.os, "_exit", left.append)
    watchdog._leave(unit, (0, 2), context)
    said = capsys.readouterr().err
    assert left == [1]
    assert f"error: no answer for rows 0 to 1 of unit {unit.id} within 2.5 s: this process ends" in said
    assert "limits.batch_timeout_s" in said and stacks in said


def test_an_evaluations_option_that_no_job_takes_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--num-iterations", "5000", "--batch-size", "9999", "--output", str(tmp_path / "evaluation")]
    with pytest.raises(SystemExit, match="1"):
        main(["evaluate", "shapes", *options])
    said = capsys.readouterr().err
    assert "--num-iterations: must be at most 4096, got 5000" in said
    assert "--batch-size: must be at most 4096, got 9999" in said
    assert "pydantic" not in said and "fault of UniPic" not in said
    assert not (tmp_path / "evaluation").exists()
