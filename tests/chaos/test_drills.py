"""A handful of the drills that `make chaos` runs in hundreds, and the promises of the drills' own tools."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.drill import drill
from tests.chaos.faults import Died, Fates, deadly_crash_points, fated
from tests.chaos.lives import Turns, World, life
from tests.chaos.overlap_drill import overlap_drill
from tests.chaos.real import real_drill
from tests.chaos.schedules import schedule
from tests.fakes import all_rows, make_job, part_bytes, write_prompts
from tests.inprocess import run_here
from tests.servers import S3Server
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.storage.storage import Storage


@pytest.mark.parametrize("seed", range(12))
def test_whatever_befalls_a_job_it_ends_as_if_nothing_had(seed: int, tmp_path: Path) -> None:
    verdict = drill(seed, tmp_path)
    assert verdict.ok, verdict


@pytest.mark.slow
def test_a_real_run_with_its_replica_killed_and_its_store_failing_ends_as_if_nothing_had(
    tmp_path: Path, rclone: S3Server
) -> None:
    verdict = real_drill(0, tmp_path, rclone)
    assert verdict.ok, verdict
    assert verdict.faults["kill a replica"] == 1
    assert any(kind.startswith("proxy: ") for kind in verdict.faults)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 8))
def test_each_kind_of_real_fault_ends_as_if_nothing_had(
    seed: int, tmp_path: Path, rclone: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    verdict = real_drill(seed, tmp_path, rclone)
    assert verdict.ok, verdict


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 4])
def test_processes_that_sleep_while_others_redo_prune_and_retry_end_as_if_alone(
    seed: int, tmp_path: Path, rclone: S3Server
) -> None:
    verdict = overlap_drill(seed, tmp_path, f"{rclone.bucket()}/out", {"endpoint_url": rclone.endpoint_url})
    assert verdict.ok, verdict
    assert verdict.rows and verdict.lives > 3


class DiesOnce(Fates):
    """Dies the first time it passes a point."""

    def __init__(self, point: str) -> None:
        super().__init__(point, Counter(), crash_rate=0.0, storage_rate=0.0)
        self.point: str | None = point

    def crash(self, point: str) -> bool:
        if point != self.point:
            return False
        self.point = None
        return True


@pytest.mark.parametrize("point", ["commit.before_receipt", "commit.after_receipt"])
@pytest.mark.parametrize("mended", [False, True])
def test_a_row_that_fails_before_a_death_and_goes_well_after_it_is_in_one_place_only(
    point: str, mended: bool, tmp_path: Path
) -> None:
    mark = tmp_path / "mended"
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a", f"flaky {mark}"])
    job = make_job(tmp_path)
    world = World(job, conditional=True, crash_rate=0.0, storage_rate=0.0)
    if mended:
        run_here(job)  # it fails, and is rejected; then it is tried again
        mark.touch()
    fates = DiesOnce(point)
    with deadly_crash_points(), fated(fates), pytest.raises(Died, match="died"):
        list(life(world, fates, retry=mended))
    mark.touch()
    list(life(world, world.fates("again"), retry=True))
    assert [row["prompt"] for row in all_rows(job)] == ["a", f"flaky {mark}"]
    assert all_rows(job, "rejected") == []
    assert verify(job.output.uri, Storage()).ok


def test_a_seed_is_one_drill(tmp_path: Path) -> None:
    assert schedule(7) == schedule(7) != schedule(8)
    seed = next(seed for seed in range(100) if schedule(seed).company and schedule(seed).crash_rate)
    first, second = (drill(seed, _empty(tmp_path / name)) for name in ("aa", "bb"))
    assert first.lives == second.lives and first.faults == second.faults and first.faults


def test_turns_are_taken_one_at_a_time_and_in_the_seeds_order() -> None:
    def order(seed: int) -> str:
        turns, said = Turns(seed), []

        def body(name: str) -> Any:
            def work() -> None:
                for _ in range(5):
                    said.append(name)
                    turns.hand_over()

            return work

        turns.run([body("a"), body("b")])
        return "".join(said)

    assert order(1) == order(1)
    assert sorted(order(1)) == sorted("aaaaabbbbb")
    assert len({order(seed) for seed in range(8)}) > 1


def test_a_drill_sees_a_byte_that_differs(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a", "b"])
    job = make_job(tmp_path)
    run_here(job)
    before = part_bytes(job)
    (name,) = before
    path = Path(job.output.uri + name)
    path.write_bytes(before[name][:-5] + b"other")
    assert hashlib.sha256(path.read_bytes()).digest() != hashlib.sha256(before[name]).digest()
    assert dict(verify(job.output.uri, Storage()).counts) == {"altered part": 1}


def _empty(path: Path) -> Path:
    path.mkdir()
    return path
