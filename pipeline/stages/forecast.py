"""What a job will need and which prompts it will reject, found from a checkpoint's small files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unipic.pipeline.errors import CheckpointError, ManifestError
from unipic.pipeline.job import CaptionParams, EditParams, ImageParams, Job
from unipic.pipeline.machine import Machine
from unipic.pipeline.manifests.columns import bindings
from unipic.pipeline.manifests.manifest import Manifest
from unipic.pipeline.manifests.reading import read_unit
from unipic.pipeline.records import Unit
from unipic.pipeline.stages.checkpoint_cache import CheckpointInfo, located, read_file
from unipic.pipeline.stages.engine import replica_config
from unipic.pipeline.storage.storage import Storage

if TYPE_CHECKING:
    from unipic.model import memory
    from unipic.model.prompts import PromptWriter

SAMPLED_PROMPTS = 200
_SAMPLED_FILES = 4
_FAR_FACTOR = 2
_ELEMENT_BYTES = {"bfloat16": 2, "float32": 4}
_MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class Needs:
    """What a replica of the job is and needs.

    Attributes:
        device: "cuda" or "cpu".
        note: one line where the device differs from what a user may expect, else "".
        trained_image_size: of the checkpoint, in pixels.
        batch_size: rows per micro-batch; None if it depends on a GPU that is not on this machine.
        replica_bytes: memory of one replica with its weights at that batch size, or at 1 row.
    """

    device: str
    note: str
    image_size: int
    trained_image_size: int
    batch_size: int | None
    replica_bytes: int

    @property
    def far_from_trained(self) -> bool:
        larger, smaller = max(self.image_size, self.trained_image_size), min(self.image_size, self.trained_image_size)
        return larger > _FAR_FACTOR * smaller


@dataclass(frozen=True)
class PromptSample:
    """`rejected` of `rows` sampled prompts cannot run. `example`: a row and the reason, or ""."""

    rows: int
    rejected: int
    example: str


def needs(job: Job, storage: Storage, machine: Machine) -> Needs:
    """Estimates from the checkpoint's sizes; loads PyTorch, but no weights. Raises CheckpointError."""
    from unipic.model import memory

    config = replica_config(job.model.checkpoint, storage)
    device, note = _device(job, machine)
    load, element_bytes = _load(job), _ELEMENT_BYTES[job.model.dtype]
    batch_size: int | None = None if job.compute.batch_size == "auto" else job.compute.batch_size
    if batch_size is None and device == "cpu":
        weights = memory.weight_count(config) * element_bytes
        free = _available_bytes() // job.compute.replicas.max - weights
        batch_size = memory.largest_batch(config, load, element_bytes=element_bytes, free_bytes=free)
    sized = memory.Load(**{**load.__dict__, "batch": batch_size or 1})
    total = memory.estimate(config, sized, element_bytes=element_bytes).total_bytes
    return Needs(device, note, job.image_size, config.trained_image_size, batch_size, total)


def sample_prompts(job: Job, manifest: Manifest, info: CheckpointInfo, storage: Storage) -> PromptSample:
    """Holds some prompts of the manifest against the tokenizer and the limits of the checkpoint.

    Raises:
        CheckpointError: the tokenizer cannot be used.
    """
    from unipic.model.limits import fault_of

    config, writer = replica_config(job.model.checkpoint, storage), _writer(info, storage)
    rows = rejected = 0
    example = ""
    for place, prompt in _prompts(job, manifest, storage):
        rows += 1
        fault = "the prompt is null" if prompt is None else fault_of(prompt, writer, config, task=job.task)
        if fault is not None:
            rejected += 1
            example = example or f"{place}: {fault}"
    return PromptSample(rows, rejected, example)


def _device(job: Job, machine: Machine) -> tuple[str, str]:
    wanted, gpus = job.model.device, job.compute.gpus_per_replica
    if wanted == "auto":
        wanted = "cuda" if (machine.gpus if gpus == "auto" else gpus) else "cpu"
    if wanted == "cuda" and not machine.gpus:
        return wanted, "this machine has no GPU, so the job runs only with --address of a cluster that has GPUs"
    if wanted == "cpu" and gpus == "auto" and job.model.device == "auto":
        return wanted, "this machine has no GPU, so replicas run on the CPU, which is much slower"
    return wanted, ""


def _load(job: Job) -> memory.Load:
    from unipic.model import memory

    params = job.params
    if isinstance(params, ImageParams):
        return memory.Load(
            task=job.task,
            batch=1,
            image_size=job.image_size,
            guided=params.guidance != 1.0,
            iterations=params.num_iterations,
            steps=params.most_diffusion_steps,
        )
    return memory.Load(task=job.task, batch=1, image_size=job.image_size, new_tokens=params.max_new_tokens)


def _available_bytes() -> int:
    lines = _MEMINFO.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def _writer(info: CheckpointInfo, storage: Storage) -> PromptWriter:
    """The tokenizer of a checkpoint, wherever that is; no weights are read."""
    from unipic.model.checkpoint import CheckpointFault
    from unipic.model.loading import load_prompts

    root = located(info.uri)
    with tempfile.TemporaryDirectory(prefix="unipic-tokenizer-") as folder:
        for name in info.files:
            if name.startswith("tokenizer/"):
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(read_file(info, name, storage))
        try:
            return load_prompts(Path(folder))
        except CheckpointFault as fault:
            raise CheckpointError(str(fault).replace(folder, root)) from fault


def _prompts(job: Job, manifest: Manifest, storage: Storage) -> Iterator[tuple[str, str | None]]:
    """(place, prompt) of rows from some of the files; of all rows at once if they share one prompt."""
    column = bindings(job).get("prompt")
    if column is None:
        if isinstance(job.params, CaptionParams):
            yield "params.question", job.params.question
        elif isinstance(job.params, EditParams):
            yield "params.instruction", job.params.instruction
        return
    files = [file for file in manifest.files if file.rows and file.uri]
    chosen = files[:: max(1, len(files) // _SAMPLED_FILES)][:_SAMPLED_FILES]
    for file in chosen:
        rows = min(file.rows, SAMPLED_PROMPTS // len(chosen))
        first = (file.rows - rows) // 2 if len(chosen) > 1 else 0
        try:
            cells = read_unit(Unit(file, first_row=first, rows=rows), [column], storage).column(column).to_pylist()
        except ManifestError:  # the run rejects rows that cannot be read
            continue
        for row, cell in enumerate(cells, start=first):
            yield f"row {row} of {file.name}", cell if cell is None else str(cell)
