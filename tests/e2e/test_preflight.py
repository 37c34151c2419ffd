"""What cannot work is refused within seconds, in words, before any unit is tried; what may work goes on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.fakes import FakeEngine, all_rows, make_job, write_prompts
from tests.patience import PROMPT_S
from unipic.model import tensorfile
from unipic.model.checkpoint import WEIGHTS_FILE, write_digests
from unipic.model.init_tiny import init_tiny
from unipic.pipeline.context import RunContext
from unipic.pipeline.errors import CheckpointError, EngineError
from unipic.pipeline.execution.warmup import PLAIN_PROMPT
from unipic.pipeline.job import Job
from unipic.pipeline.run import Progress, run

Damage = Callable[[Path], None]


@pytest.fixture(scope="module", autouse=True)
def one_ray(ray_session: None) -> Iterator[None]:
    yield


def cut_short(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:-4096])


def other_shape(weights: Path) -> None:
    tensors = {name: tensor.clone() for name, tensor in tensorfile.read(weights)}
    name = max(tensors, key=lambda one: tensors[one].ndim)
    rewrite(weights, {**tensors, name: torch.cat([tensors[name], tensors[name]])})


def one_missing(weights: Path) -> None:
    tensors = {name: tensor.clone() for name, tensor in tensorfile.read(weights)}
    del tensors[min(tensors)]
    rewrite(weights, tensors)


def rewrite(weights: Path, tensors: dict[str, torch.Tensor]) -> None:
    weights.unlink()
    tensorfile.write(weights, tensors)


def tiny_job(root: Path, **changes: Any) -> Job:
    write_prompts(root / "manifest" / "a.parquet", ["a red circle", "two dogs"])
    init_tiny(root / "tiny", image_size=16)
    params = {"image_size": 16, "num_iterations": 2, "diffusion_steps": 2}
    return make_job(root, model__checkpoint=str(root / "tiny"), params=params, **changes)


def tried(job: Job) -> list[str]:
    """What a run left under its output that speaks of units."""
    root = Path(job.output.uri)
    folders = ("data", "rejected", "images", "_unipic/receipts", "_unipic/reports")
    return [str(path.relative_to(root)) for folder in folders for path in (root / folder).glob("*")]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut_short, r"CheckpointFault: .*weights\.safetensors"),
        (one_missing, r"CheckpointFault: .*missing"),
        pytest.param(other_shape, r"CheckpointFault: .*shape", marks=pytest.mark.slow),
    ],
)
def test_weights_that_cannot_be_loaded_stop_the_run_in_seconds_with_nothing_committed(
    tmp_path: Path, damage: Damage, words: str
) -> None:
    job = tiny_job(tmp_path)
    damage(tmp_path / "tiny" / WEIGHTS_FILE)
    write_digests(tmp_path / "tiny")
    started = time.monotonic()
    with pytest.raises(EngineError, match=f"preflight: the replica could not load its model: {words}") as caught:
        run(job)
    assert time.monotonic() - started < PROMPT_S
    assert "Traceback" in caught.value.__notes__[0] and caught.value.remedy == "No unit was started."
    assert tried(job) == []


def test_a_checkpoint_that_is_not_what_its_digests_say_is_refused_with_the_files_name(tmp_path: Path) -> None:
    job = tiny_job(tmp_path)
    weights = tmp_path / "tiny" / WEIGHTS_FILE
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    with pytest.raises(CheckpointError, match=r"weights\.safetensors does not match its digest"):
        run(job)
    assert tried(job) == []


def test_a_sound_checkpoint_says_how_long_it_took_and_is_loaded_once(tmp_path: Path) -> None:
    notes: list[str] = []
    stages: list[str] = []

    def hear(progress: Progress) -> None:
        notes[:] = progress.notes
        stages.append(progress.stage)

    result = run(tiny_job(tmp_path), on_progress=hear)
    assert (result.outcome, result.ok) == ("done", 2)
    (note,) = notes
    assert note.startswith("one replica loaded in ") and "one row answered in " in note
    assert stages[:2] == ["planning", "starting"] and stages[-1] == "done"


class CountedEngine(FakeEngine):
    """Notes each load in a folder, and which rows it was given before its first micro-batch."""

    def __init__(self, context: RunContext, *, log: str) -> None:
        super().__init__(context)
        self.log = Path(log)
        (self.log / f"load-{os.getpid()}").touch()

    def answer(self, rows: Sequence[dict[str, Any]]) -> list[bytes | str]:
        with (self.log / "answered").open("a") as file:
            file.write("".join(f"{row['prompt']}\n" for row in rows))
        return super().answer(rows)


def log_of(root: Path) -> Path:
    (root / "log").mkdir()
    return root / "log"


def test_one_row_is_answered_before_all_others_and_an_output_that_is_done_needs_none(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["first", "second", "third"])
    log = log_of(tmp_path)
    job = make_job(tmp_path, compute__rows_per_unit=1)
    engine = partial(CountedEngine, log=str(log))
    run(job, make_engine=engine)
    assert (log / "answered").read_text().splitlines()[0] == "first"
    assert sorted((log / "answered").read_text().split()) == ["first", "first", "second", "third"]
    assert len(list(log.glob("load-*"))) == 1
    run(job, make_engine=engine)
    assert len(list(log.glob("load-*"))) == 1


class DeadEngine(FakeEngine):
    """Loads, and then cannot do anything."""

    def answer(self, rows: Sequence[dict[str, Any]]) -> list[bytes | str]:
        try:
            raise OSError("an illegal memory access was encountered")
        except OSError as error:
            raise RuntimeError("the device is lost") from error


def test_an_engine_that_loads_and_answers_nothing_is_the_jobs_error_with_its_cause(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a", "b"])
    job = make_job(tmp_path)
    words = "cannot answer a row: RuntimeError: the device is lost; caused by OSError: an illegal memory access"
    with pytest.raises(EngineError, match=words):
        run(job, make_engine=DeadEngine)
    assert tried(job) == []


class DiesLoading(FakeEngine):
    def __init__(self, context: RunContext) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_replicas_that_die_while_they_load_end_the_run_without_a_unit_tried(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a", "b"])
    job = make_job(tmp_path, compute={"replicas": {"min": 2, "max": 2}, "rows_per_unit": 1})
    with pytest.raises(EngineError, match="preflight: replicas die while they load"):
        run(job, make_engine=DiesLoading)
    assert tried(job) == []


@pytest.mark.slow
def test_the_others_load_only_after_the_first_has_answered(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", [f"row {n}" for n in range(6)])
    job = make_job(tmp_path, compute={"replicas": {"min": 2, "max": 2}, "rows_per_unit": 1})
    log = log_of(tmp_path)
    run(job, make_engine=partial(OrderedEngine, log=str(log)))
    told = (log / "order").read_text().split()
    assert told[:2] == ["load", "answer"] and told.count("load") <= 2


class OrderedEngine(FakeEngine):
    def __init__(self, context: RunContext, *, log: str) -> None:
        super().__init__(context)
        self.order = Path(log) / "order"
        self._note("load")

    def answer(self, rows: Sequence[dict[str, Any]]) -> list[bytes | str]:
        self._note("answer")
        return super().answer(rows)

    def _note(self, word: str) -> None:
        with self.order.open("a") as file:
            file.write(f"{word} ")


@pytest.mark.parametrize(
    ("first", "kind", "words"),
    [
        ("die", "ReplicaCrashed", "died of its first row; going on"),
        pytest.param(
            "raise",
            "ReplicaFailed",
            "the first row failed (ValueError: the engine cannot do this row), a plain row was",
            marks=pytest.mark.slow,
        ),
        ("", "EmptyPrompt", "the first row failed (EmptyPrompt: the prompt is empty), a plain row was"),
    ],
)
def test_a_first_row_that_is_at_fault_itself_stops_nothing(tmp_path: Path, first: str, kind: str, words: str) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", [first, "b", "c"])
    job = make_job(tmp_path)
    notes: list[str] = []
    result = run(job, make_engine=FakeEngine, on_progress=lambda progress: notes.extend(progress.notes))
    assert (result.outcome, result.ok, result.rejected) == ("done", 2, 1)
    (row,) = all_rows(job, "rejected")
    assert (row["prompt"], row["rejection"]["kind"]) == (first, kind)
    assert words in notes[0]
    assert PLAIN_PROMPT not in {row["prompt"] for row in all_rows(job)}
