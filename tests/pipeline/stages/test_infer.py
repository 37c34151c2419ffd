"""One row in, one outcome out: whatever the engine does, no neighbour pays for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.fakes import BrokenEngine, FakeEngine, first_unit, make_job, write_prompts
from unipic.pipeline.errors import EngineError
from unipic.pipeline.stages.infer import CRASHES_BEFORE_SPLIT, Replica
from unipic.pipeline.stages.prepare import prepare
from unipic.pipeline.stages.tables import ANSWERED, KEEP
from unipic.pipeline.supervision.supervisor import Supervisor, UnitHistory


def answered(
    tmp_path: Path, prompts: Sequence[str | None], supervisor: Supervisor | None = None, **changes: Any
) -> pa.Table:
    write_prompts(tmp_path / "manifest" / "a.parquet", prompts)
    unit, context = first_unit(make_job(tmp_path, **changes))
    return Replica(context, supervisor or Supervisor(), FakeEngine).answer(unit, prepare(unit, context))


def kinds(table: pa.Table) -> list[str | None]:
    return [fault and fault["kind"] for fault in table.column("fault").to_pylist()]


def facts(table: pa.Table) -> dict[str, Any]:
    return json.loads(table.schema.metadata[b"facts"])


def test_every_row_gets_exactly_one_outcome_in_its_own_place(tmp_path: Path) -> None:
    table = answered(tmp_path, ["a cat", "", "a dog", None, "x" * 20_000, "a hen"])
    assert kinds(table) == [None, "EmptyPrompt", None, "EmptyPrompt", "PromptRefused", None]
    assert [a is None for a in table.column("answer").to_pylist()] == [False, True, False, True, True, False]
    assert table.column("row").to_pylist() == list(range(6))


def test_a_row_that_makes_the_engine_raise_is_found_and_its_neighbours_are_delivered(tmp_path: Path) -> None:
    table = answered(tmp_path, ["a", "b", "raise", "d", "e"], compute__batch_size=4)
    assert kinds(table) == [None, None, "ReplicaFailed", None, None]
    assert facts(table)["resized"] is True


def test_out_of_memory_halves_the_micro_batch_and_the_size_that_worked_is_remembered(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["huge"] * 6)
    unit, context = first_unit(make_job(tmp_path, compute__batch_size=4))
    replica = Replica(context, Supervisor(), FakeEngine)
    first = replica.answer(unit, prepare(unit, context))
    replica.engine.batches.clear()
    second = replica.answer(unit, prepare(unit, context))
    assert kinds(first) == kinds(second) == [None] * 6
    assert replica.engine.batches == [1] * 6
    assert facts(first)["resized"] and facts(second)["resized"] and facts(second)["micro_batch"] == 1


def test_what_a_row_gets_does_not_depend_on_the_micro_batch(tmp_path: Path) -> None:
    prompts = [f"prompt {n}" for n in range(7)]
    one = answered(tmp_path, prompts, compute__batch_size=1)
    four = answered(tmp_path, prompts, compute__batch_size=4)
    assert one.column("answer") == four.column("answer")


class DyingEngine(FakeEngine):
    def answer(self, rows: Sequence[dict[str, Any]]) -> list[bytes | str]:
        if any(row["prompt"] == "die" for row in rows):
            raise KeyboardInterrupt  # passes every `except Exception`, like a death
        return super().answer(rows)


class Deaf(Supervisor):
    """A supervisor that a dying replica can no longer report to."""

    def answered(self, unit: str, rows: tuple[int, int], count: int) -> None:
        if count:
            super().answered(unit, rows, count)


@pytest.mark.parametrize("place", [0, 3, 5, 7])
def test_a_row_that_keeps_killing_replicas_is_found_by_bisection_and_no_innocent_row_is_lost(
    tmp_path: Path, place: int
) -> None:
    prompts = [f"prompt {n}" for n in range(8)]
    prompts[place] = "die"
    write_prompts(tmp_path / "manifest" / "a.parquet", prompts)
    unit, context = first_unit(make_job(tmp_path, compute__batch_size=8))
    supervisor = Deaf()
    deaths = 0
    while True:
        try:
            replica = Replica(context, supervisor, DyingEngine)
            start = supervisor.start_unit(unit.id, replica.name)
            assert start is not None
            table = replica.answer(unit, prepare(unit, context), start.crashed)
            break
        except KeyboardInterrupt:
            deaths += 1
            assert deaths < 12
    assert kinds(table) == ["ReplicaCrashed" if n == place else None for n in range(8)]
    assert table.column("fault")[place].as_py()["attempts"] == CRASHES_BEFORE_SPLIT
    assert facts(table)["attempts"] == deaths + 1
    assert deaths <= 6


def test_one_death_alone_changes_nothing_but_the_number_of_attempts(tmp_path: Path) -> None:
    supervisor = Supervisor()
    undisturbed = answered(tmp_path, ["a", "b", "c"])
    unit, context = first_unit(make_job(tmp_path))
    supervisor.start_unit(unit.id, "gone")
    supervisor.attempt(unit.id, (0, 3), "gone")
    start = supervisor.start_unit(unit.id, "new")
    assert start == UnitHistory([(0, 3)])
    again = Replica(context, supervisor, FakeEngine).answer(unit, prepare(unit, context), start.crashed)
    assert again.column("answer") == undisturbed.column("answer")
    assert facts(again)["attempts"] == 2 and facts(again)["resized"] is False


def test_a_replica_that_cannot_load_says_why_with_the_first_unit(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a"])
    unit, context = first_unit(make_job(tmp_path))
    replica = Replica(context, Supervisor(), BrokenEngine)
    with pytest.raises(EngineError, match="could not load its model: OSError: the driver is gone"):
        replica.answer(unit, prepare(unit, context))


class ShortEngine(FakeEngine):
    def answer(self, rows: Sequence[dict[str, Any]]) -> list[bytes | str]:
        return super().answer(rows)[:-1]


def test_an_engine_that_drops_an_answer_shifts_no_other_row(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a", "b"])
    unit, context = first_unit(make_job(tmp_path))
    table = Replica(context, Supervisor(), ShortEngine).answer(unit, prepare(unit, context))
    assert kinds(table) == ["ReplicaFailed", "ReplicaFailed"]
    assert "gave 0 answers for 1 rows" in table.column("fault")[0].as_py()["message"]


@pytest.mark.parametrize("task", ["generate", "edit", "caption"])
def test_what_comes_out_has_the_answered_schema_then_the_kept_columns(tmp_path: Path, task: str) -> None:
    from PIL import Image

    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    write_prompts(tmp_path / "manifest" / "a.parquet", ["p", ""], image=[str(tmp_path / "a.png")] * 2, tag=["x", "y"])
    unit, context = first_unit(make_job(tmp_path, task, input__keep=["tag"], input__allow_outside_root=True))
    table = Replica(context, Supervisor(), FakeEngine).answer(unit, prepare(unit, context))
    assert table.schema.remove_metadata() == pa.schema([*ANSWERED, (f"{KEEP}tag", pa.string())])
