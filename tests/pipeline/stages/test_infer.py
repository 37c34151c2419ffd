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
from unipic.pipeline.supervision.admission import LOAD_DEATHS, PATIENCE_S, Gate
from unipic.pipeline.supervision.supervisor import Start, Supervisor


def answered(tmp_path: Path, prompts: Sequence[str | None], door: Supervisor | None = None, **changes: Any) -> pa.Table:
    write_prompts(tmp_path / "manifest" / "a.parquet", prompts)
    unit, context = first_unit(make_job(tmp_path, **changes))
    return Replica(context, door or Supervisor(), FakeEngine).answer(unit, prepare(unit, context))


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
    """A supervisor that a dying replica can no longer tell anything."""

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
            start = supervisor.start(unit.id, replica.name)
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
    supervisor.start(unit.id, "gone")
    supervisor.attempt(unit.id, (0, 3), "gone")
    start = supervisor.start(unit.id, "new")
    assert start == Start([(0, 3)])
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


def test_what_was_answered_is_told_with_the_next_attempt_and_blames_nobody(tmp_path: Path) -> None:
    supervisor = Supervisor()
    for unit in ("a", "b"):
        supervisor.start(unit, "one")
    supervisor.attempt("a", (0, 4), "one")
    supervisor.attempt("b", (0, 4), "one", [("a", (0, 4), 4)])
    assert (supervisor.rows_answered, supervisor.start("a", "two")) == (4, Start([]))
    assert supervisor.start("b", "two") == Start([(0, 4)])
    supervisor.attempt("b", (0, 2), "two")
    supervisor.all_answered([("b", (0, 2), 2)])
    assert (supervisor.rows_answered, supervisor.start("b", "two")) == (6, Start([(0, 4)]))


@pytest.mark.parametrize("order", ["answers", "dies answering", "dies loading"])
def test_the_gate_lets_one_replica_load_first_and_knows_a_death_by_who_asks_again(order: str) -> None:
    gate = Gate()
    assert (gate.ask("one"), gate.ask("two")) == ("first", "wait")
    if order == "dies loading":
        assert [gate.ask("one") for _ in range(LOAD_DEATHS)] == ["first"] * (LOAD_DEATHS - 1) + ["leave"]
        assert gate.ask("two") == "leave" and gate.report().failure is not None
        return
    gate.loaded(3.1)
    assert gate.ask("two") == "wait"
    if order == "answers":
        gate.passed("one row answered in 0.2 s")
        assert gate.report().said == "one replica loaded in 3.1 s, one row answered in 0.2 s"
    else:
        assert gate.ask("one") == "load"
    assert gate.report().open and gate.ask("two") == gate.ask("three") == "load"


def test_replicas_do_not_wait_for_ever_for_one_whose_node_is_lost() -> None:
    gate = Gate()
    gate.ask("lost")
    gate.since -= PATIENCE_S
    assert gate.ask("two") == "load"
