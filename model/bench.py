"""Measures one replica without the pipeline: images and captions per second, and peak memory."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from unipic.model import tasks
from unipic.model.config import ReplicaConfig
from unipic.model.engine import DTYPES, CaptionSettings, EditItem, Engine, GenerateItem, SamplingSettings
from unipic.model.init_tiny import byte_pairs, write_tokenizer
from unipic.model.memory import Task
from unipic.model.pixels import to_tensor
from unipic.model.prompts import DEFAULT_QUESTION, PromptWriter
from unipic.model.unipic import UniPic

TASKS: tuple[Task, ...] = ("generate", "edit", "caption")
_PROMPT = "a red circle on the left of a large blue square"
_INIT_DEVIATION = 0.02


@dataclass(frozen=True)
class Measurement:
    """One task at one batch size; `peak_bytes`: device memory on a GPU, resident memory of the process on a CPU."""

    task: Task
    batch_size: int
    image_size: int
    device: str
    dtype: str
    batches: int
    seconds: float
    peak_bytes: int

    @property
    def items_per_s(self) -> float:
        return self.batches * self.batch_size / self.seconds


def random_engine(config: ReplicaConfig, *, device: str, dtype: str, seed: int = 0) -> Engine:
    """A replica of these sizes with random weights, created on the device: its outputs are noise, its speed is real."""
    with torch.device("meta"):
        model = UniPic(config)
    model = model.to(DTYPES[dtype]).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=_INIT_DEVIATION, generator=generator)
    model.llm.restore_buffers(device)
    model.lay_out()
    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(Path(folder) / "tokenizer", *byte_pairs())
        prompts = PromptWriter(Path(folder) / "tokenizer")
    return Engine(model.requires_grad_(False).eval(), prompts, checkpoint_digest="random")


def measure(
    engine: Engine,
    task: Task,
    *,
    batch_size: int,
    batches: int,
    sampling: SamplingSettings,
    captioning: CaptionSettings,
) -> Measurement:
    """Run one warm-up batch, then `batches` timed ones. Captions always run to `max_new_tokens`."""
    run = _runner(engine, task, batch_size=batch_size, sampling=sampling, captioning=captioning)
    device = engine.model.device
    run()
    _reset_peak(device)
    started = time.perf_counter()
    for _ in range(batches):
        run()
    _finish(device)
    seconds = time.perf_counter() - started
    return Measurement(
        task=task,
        batch_size=batch_size,
        image_size=captioning.image_size if task == "caption" else sampling.image_size,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        dtype=str(engine.model.dtype).removeprefix("torch."),
        batches=batches,
        seconds=seconds,
        peak_bytes=_peak_bytes(device),
    )


def measure_all(
    engine: Engine,
    *,
    batch_sizes: Sequence[int],
    batches: int,
    sampling: SamplingSettings,
    captioning: CaptionSettings,
    chosen: Sequence[Task] = TASKS,
) -> Iterator[Measurement]:
    """Measures every chosen task at every batch size."""
    for task in chosen:
        for batch_size in batch_sizes:
            yield measure(
                engine, task, batch_size=batch_size, batches=batches, sampling=sampling, captioning=captioning
            )


def profile(
    engine: Engine,
    task: Task,
    *,
    batch_size: int,
    sampling: SamplingSettings,
    captioning: CaptionSettings,
    rows: int = 25,
) -> str:
    """A table of the operators of one batch, most expensive first."""
    run = _runner(engine, task, batch_size=batch_size, sampling=sampling, captioning=captioning)
    run()
    activities = [torch.profiler.ProfilerActivity.CPU]
    on_gpu = engine.model.device.type == "cuda"
    if on_gpu:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        run()
        _finish(engine.model.device)
    order = "self_cuda_time_total" if on_gpu else "self_cpu_time_total"
    return str(profiler.key_averages().table(sort_by=order, row_limit=rows, max_name_column_width=60))


def _runner(
    engine: Engine, task: Task, *, batch_size: int, sampling: SamplingSettings, captioning: CaptionSettings
) -> Callable[[], object]:
    size = captioning.image_size if task == "caption" else sampling.image_size
    picture = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    if task == "generate":
        generated = [GenerateItem(_PROMPT, seed) for seed in range(batch_size)]
        return lambda: engine.generate(generated, sampling)
    if task == "edit":
        edited = [EditItem("make the circle green", picture, seed) for seed in range(batch_size)]
        return lambda: engine.edit(edited, sampling)
    questions = [engine.prompts.caption(DEFAULT_QUESTION)] * batch_size
    pixels = to_tensor([picture] * batch_size)
    # No token has this id, so a random model never stops early and runs stay comparable.
    return lambda: tasks.caption(
        engine.model, questions, pixels=pixels, end_id=-1, max_new_tokens=captioning.max_new_tokens
    )


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    else:
        # 5 makes Linux reset the peak resident memory.
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmHWM")


if __name__ == "__main__":
    import sys

    from unipic.model.bench_card import main

    if sys.argv[1:2] != ["card"]:
        sys.exit("usage: python -m unipic.model.bench card [--help]")
    main(sys.argv[2:])
