"""The model as the pipeline sees it. `unipic.model` is imported only when it is needed."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from unipic.pipeline.context import RunContext
from unipic.pipeline.errors import CheckpointError, EngineError, ObjectMissing
from unipic.pipeline.job import Job
from unipic.pipeline.params import AnnealedSteps, CaptionParams
from unipic.pipeline.stages.checkpoint_cache import local_copy, located
from unipic.pipeline.storage.errors import TooManyBytes
from unipic.pipeline.storage.paths import join
from unipic.pipeline.storage.storage import Storage

if TYPE_CHECKING:
    import numpy as np

    from unipic.model.config import ReplicaConfig


class Engine(Protocol):
    """What a replica needs of a model: `unipic.model.engine.Engine`, or a stand-in in tests and benchmarks."""

    def answer(self, rows: Sequence[dict[str, Any]]) -> list[bytes | str]:
        """One answer a row, in order: (S, S, 3) uint8 pixels as bytes, or text."""
        ...

    def fault_of(self, prompt: str) -> str | None:
        """Why this prompt cannot be run, or None."""
        ...

    def max_batch(self) -> int: ...

    def facts(self) -> dict[str, Any]: ...


MakeEngine = Callable[[RunContext], Engine]


class UniPicEngine:
    """A loaded UniPic behind the `Engine` protocol, with one job's task and settings."""

    def __init__(self, context: RunContext) -> None:
        from unipic.model.engine import Engine as ModelEngine

        job = context.job
        folder = local_copy(job.model.checkpoint, context.checkpoint_digest, context.storage)
        self.job = job
        self.device = device_of(job)
        self.model = ModelEngine.load(
            folder, device=self.device, dtype=job.model.dtype, threads=job.compute.cpus_per_replica
        )
        self.settings = _settings(job)

    def answer(self, rows: Sequence[dict[str, Any]]) -> list[bytes | str]:
        import numpy as np

        from unipic.model.engine import CaptionItem, EditItem, GenerateItem

        def picture(row: dict[str, Any]) -> np.ndarray:
            return np.frombuffer(row["pixels"], np.uint8).reshape(self.job.image_size, self.job.image_size, 3)

        if self.job.task == "caption":
            return list(self.model.caption([CaptionItem(r["prompt"], picture(r)) for r in rows], self.settings))
        if self.job.task == "edit":
            edits = [EditItem(r["prompt"], picture(r), r["seed"]) for r in rows]
            return [one.tobytes() for one in self.model.edit(edits, self.settings)]
        prompts = [GenerateItem(r["prompt"], r["seed"]) for r in rows]
        return [one.tobytes() for one in self.model.generate(prompts, self.settings)]

    def fault_of(self, prompt: str) -> str | None:
        return self.model.fault_of(prompt, task=self.job.task)

    def max_batch(self) -> int:
        return self.model.max_batch(self.job.task, self.settings)

    def facts(self) -> dict[str, Any]:
        return {"device": self.device, "dtype": self.job.model.dtype}


def device_of(job: Job) -> str:
    """The device of a replica on this machine. Raises EngineError if it needs a GPU that is not there."""
    import torch

    device: str = job.model.device
    if device == "auto":
        gpus = job.compute.gpus_per_replica
        device = "cuda" if (torch.cuda.is_available() if gpus == "auto" else gpus > 0) else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        remedy = "Set model.device: cpu and compute.gpus_per_replica: 0, or install a build of torch for its GPU."
        raise EngineError(f"{socket.gethostname()} has no CUDA device that torch can use", remedy=remedy)
    return device


def with_trained_size(job: Job, storage: Storage) -> Job:
    """`job`, whose image size is the checkpoint's own if it names none.

    Raises:
        CheckpointError: config.json is missing or damaged.
    """
    if job.params.image_size is not None:
        return job
    size = replica_config(job.model.checkpoint, storage).default_image_size
    return job.model_copy(update={"params": job.params.model_copy(update={"image_size": size})})


def replica_config(checkpoint: str, storage: Storage) -> ReplicaConfig:
    """The sizes that a checkpoint's config.json records.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    from unipic.model.checkpoint import CONFIG_FILE, MAX_BYTES
    from unipic.model.config import from_json

    uri = join(located(checkpoint), CONFIG_FILE)
    try:
        return from_json(storage.read(uri, max_bytes=MAX_BYTES[CONFIG_FILE]).decode())
    except ObjectMissing as error:
        raise CheckpointError(f"{checkpoint} is not a checkpoint: it has no config.json") from error
    except (ValueError, TypeError, RecursionError, TooManyBytes) as error:
        raise CheckpointError(f"{uri} is damaged: {error}", remedy="Convert the checkpoint again.") from error


def _settings(job: Job) -> Any:
    from unipic.model.engine import CaptionSettings, SamplingSettings

    params = job.params
    if isinstance(params, CaptionParams):
        return CaptionSettings(image_size=job.image_size, max_new_tokens=params.max_new_tokens)
    steps = params.diffusion_steps
    return SamplingSettings(
        image_size=job.image_size,
        num_iterations=params.num_iterations,
        guidance=params.guidance,
        guidance_schedule=params.guidance_schedule,
        temperature=params.temperature,
        diffusion_steps=steps.first if isinstance(steps, AnnealedSteps) else steps,
        last_diffusion_steps=steps.last if isinstance(steps, AnnealedSteps) else None,
        guidance_every=params.guidance_every,
        full_stop=params.full_stop,
    )
