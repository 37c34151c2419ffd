"""What `plan` foresees: devices, memory, and prompts that a checkpoint does not take."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes import make_job, write_prompts
from unipic.pipeline.errors import CheckpointError
from unipic.pipeline.job import Job
from unipic.pipeline.machine import Machine
from unipic.pipeline.manifests.discovery import discover
from unipic.pipeline.stages.checkpoint_cache import describe
from unipic.pipeline.stages.forecast import PromptSample, needs, sample_prompts
from unipic.pipeline.storage.storage import Storage

CPU, GPU = Machine(cpus=2, gpus=0), Machine(cpus=8, gpus=1)


def tiny_job(folder: Path, task: str = "generate", **changes: object) -> Job:
    changes = {"model__checkpoint": "builtin:tiny", "model__device": "auto", "params__image_size": 64, **changes}
    return make_job(folder, task, **changes)


def sampled(job: Job) -> PromptSample:
    storage = Storage()
    info = describe(job.model.checkpoint, storage)
    return sample_prompts(job, discover(job.input, storage), info, storage)


@pytest.mark.parametrize(
    ("machine", "changes", "device", "note"),
    [
        (CPU, {}, "cpu", "replicas run on the CPU"),
        (GPU, {}, "cuda", ""),
        (GPU, {"model__device": "cpu"}, "cpu", ""),
        (GPU, {"compute__gpus_per_replica": 0}, "cpu", ""),
        (CPU, {"compute__gpus_per_replica": 0}, "cpu", ""),
        (CPU, {"compute__gpus_per_replica": 1}, "cuda", "only with --address"),
        (CPU, {"model__device": "cuda"}, "cuda", "only with --address"),
    ],
)
def test_the_device_follows_from_job_and_machine(
    tmp_path: Path, machine: Machine, changes: dict[str, object], device: str, note: str
) -> None:
    found = needs(tiny_job(tmp_path, **changes), Storage(), machine)
    assert found.device == device
    assert (note in found.note) if note else found.note == ""


def test_memory_grows_with_the_batch_and_an_automatic_batch_is_known_on_a_cpu_only(tmp_path: Path) -> None:
    one, many = (needs(tiny_job(tmp_path, compute__batch_size=n), Storage(), CPU) for n in (1, 32))
    assert 0 < one.replica_bytes < many.replica_bytes and (one.batch_size, many.batch_size) == (1, 32)
    auto = {"compute__batch_size": "auto"}
    assert (needs(tiny_job(tmp_path, **auto), Storage(), CPU).batch_size or 0) > 1
    assert needs(tiny_job(tmp_path, **auto), Storage(), GPU).batch_size is None


def test_an_image_size_far_from_the_trained_one_is_noticed(tmp_path: Path) -> None:
    sizes = {16: True, 32: False, 64: False, 128: False, 1024: True}
    for image_size, far in sizes.items():
        assert needs(tiny_job(tmp_path, params__image_size=image_size), Storage(), CPU).far_from_trained is far


def test_prompts_that_the_checkpoint_does_not_take_are_counted_with_an_example(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a red circle", "word " * 400, None, "", "a blue star"])
    assert sampled(tiny_job(tmp_path)) == PromptSample(
        5, 3, "row 1 of a.parquet: the prompt is too long: 1613 tokens, the limit is 256"
    )


def test_the_sample_is_spread_over_files_and_bounded(tmp_path: Path) -> None:
    for name in "abcdefgh":
        write_prompts(tmp_path / "manifest" / f"{name}.parquet", ["a red circle"] * 300)
    assert sampled(tiny_job(tmp_path)) == PromptSample(200, 0, "")


def test_one_question_for_all_rows_is_one_prompt(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["x"] * 3, image=["a.png"] * 3)
    found = sampled(tiny_job(tmp_path, "caption", params__question="word " * 400))
    assert (found.rows, found.rejected) == (1, 1) and found.example.startswith("params.question: ")


def test_a_checkpoint_without_sizes_or_tokenizer_is_named(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a"])
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        needs(make_job(tmp_path), Storage(), CPU)
