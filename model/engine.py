"""One loaded replica: items in, images and captions out. `pipeline` uses a model through this file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from unipic.model import limits, memory, tasks
from unipic.model.attention import chosen
from unipic.model.checkpoint import digests
from unipic.model.config import ReplicaConfig
from unipic.model.loading import load_model, load_prompts
from unipic.model.memory import Task
from unipic.model.noise import SeededNoise
from unipic.model.pixels import to_tensor
from unipic.model.prompts import PromptWriter
from unipic.model.sampling import SamplerOptions, reveals
from unipic.model.unipic import UniPic

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class GenerateItem:
    """`seed`: 0…2⁶⁴-1, all the randomness of this row."""

    prompt: str
    seed: int


@dataclass(frozen=True)
class EditItem:
    """`picture`: (S, S, 3) uint8, already fitted to the settings' image_size."""

    instruction: str
    picture: Picture
    seed: int


@dataclass(frozen=True)
class CaptionItem:
    """`picture`: (S, S, 3) uint8, already fitted to the settings' image_size."""

    question: str
    picture: Picture


@dataclass(frozen=True)
class SamplingSettings:
    """`guidance` 1 turns guidance off; `linear` raises it from 1 as tokens are revealed; `full_stop` ends a prompt.

    `last_diffusion_steps`: the steps change to this number in equal strides over the iterations, None for constant;
    `guidance_every`: the unconditional rows are computed in every n-th iteration and reused in the others.
    """

    image_size: int = 1024
    num_iterations: int = 32
    guidance: float = 3.0
    guidance_schedule: Literal["constant", "linear"] = "constant"
    temperature: float = 1.0
    diffusion_steps: int = 100
    full_stop: bool = False
    last_diffusion_steps: int | None = None
    guidance_every: int = 1

    def __post_init__(self) -> None:
        if self.num_iterations < 1:
            raise ValueError(f"num_iterations must be at least 1, got {self.num_iterations}")
        for steps in (self.diffusion_steps, self.last_diffusion_steps):
            if steps is not None and not 1 <= steps <= 1000:
                raise ValueError(f"diffusion_steps must be from 1 to 1000, got {steps}")
        if self.guidance_every < 1:
            raise ValueError(f"guidance_every must be at least 1, got {self.guidance_every}")
        if self.guidance_schedule not in ("constant", "linear"):
            raise ValueError(f"guidance_schedule must be constant or linear, got {self.guidance_schedule!r}")
        if not (np.isfinite(self.guidance) and np.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(
                f"guidance and temperature must be finite, temperature not negative, got {self.guidance} and "
                f"{self.temperature}"
            )


@dataclass(frozen=True)
class CaptionSettings:
    image_size: int = 1024
    max_new_tokens: int = 1024

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")


class Engine:
    """A model and its tokenizer on one device."""

    def __init__(self, model: UniPic, prompts: PromptWriter, *, checkpoint_digest: str) -> None:
        self.model = model
        self.prompts = prompts
        self.checkpoint_digest = checkpoint_digest

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu", dtype: str = "float32", threads: int | None = None) -> Engine:
        """Load a converted checkpoint. Raises CheckpointFault for a bad one, ValueError for an unknown dtype."""
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
        if threads is not None:
            torch.set_num_threads(threads)
        if dtype == "float32":
            # With TF32, float32 convolutions keep ten bits of mantissa and miss the reference numbers.
            torch.backends.cudnn.allow_tf32 = False
        digest = digests(folder).checkpoint
        prompts = load_prompts(folder)
        model = load_model(folder, device=device, dtype=DTYPES[dtype])
        return cls(model, prompts, checkpoint_digest=digest)

    @property
    def config(self) -> ReplicaConfig:
        return self.model.config

    def generate(self, items: Sequence[GenerateItem], settings: SamplingSettings) -> Picture:
        """One image per item: (B, S, S, 3) uint8."""
        grid = self.config.grid_of(settings.image_size)
        latents = tasks.generate(
            self.model,
            [self.prompts.generate(item.prompt, full_stop=settings.full_stop) for item in items],
            self.prompts.generate_unconditional(),
            grid=grid,
            noise=self._noise([item.seed for item in items], grid, settings),
            options=_options(settings),
        )
        return self._pictures(latents)

    def edit(self, items: Sequence[EditItem], settings: SamplingSettings) -> Picture:
        """One edited image per item: (B, S, S, 3) uint8."""
        grid = self.config.grid_of(settings.image_size)
        latents = tasks.edit(
            self.model,
            [self.prompts.edit(item.instruction) for item in items],
            self.prompts.edit_unconditional(),
            pixels=_pixels([item.picture for item in items], settings.image_size),
            noise=self._noise([item.seed for item in items], grid, settings),
            options=_options(settings),
        )
        return self._pictures(latents)

    def caption(self, items: Sequence[CaptionItem], settings: CaptionSettings) -> list[str]:
        """One text per item, without surrounding spaces."""
        self.config.grid_of(settings.image_size)
        answers = tasks.caption(
            self.model,
            [self.prompts.caption(item.question) for item in items],
            pixels=_pixels([item.picture for item in items], settings.image_size),
            end_id=self.prompts.end_id,
            max_new_tokens=settings.max_new_tokens,
        )
        return [self.prompts.text(ids).strip() for ids in answers]

    def fault_of(self, prompt: str, *, task: Task, image_size: int | None = None) -> str | None:
        """Why this prompt cannot run, or None. `image_size`: of the job; None for the trained size."""
        return limits.fault_of(prompt, self.prompts, self.config, task=task, image_size=image_size)

    def max_batch(
        self, task: Task, settings: SamplingSettings | CaptionSettings, *, free_bytes: int | None = None
    ) -> int:
        """The largest batch that fits. `free_bytes`: memory free beside the loaded weights; None asks the device."""
        masked = chosen(self.model.device, self.model.dtype) == "masked"
        if isinstance(settings, CaptionSettings):
            load = memory.Load(
                task=task,
                batch=1,
                image_size=settings.image_size,
                new_tokens=settings.max_new_tokens,
                masked=masked,
            )
        else:
            load = memory.Load(
                task=task,
                batch=1,
                image_size=settings.image_size,
                guided=settings.guidance != 1.0,
                iterations=settings.num_iterations,
                steps=max(settings.diffusion_steps, settings.last_diffusion_steps or 0),
                masked=masked,
            )
        return memory.largest_batch(
            self.config,
            load,
            element_bytes=self.model.dtype.itemsize,
            free_bytes=_free_bytes(self.model.device) if free_bytes is None else free_bytes,
        )

    def _noise(self, seeds: Sequence[int], grid: int, settings: SamplingSettings) -> SeededNoise:
        return SeededNoise(
            seeds,
            tokens=grid * grid,
            channels=self.config.vae.latent_channels,
            steps=[reveal.steps for reveal in reveals(grid * grid, _options(settings))],
            threads=torch.get_num_threads(),
        )

    def _pictures(self, latents: torch.Tensor) -> Picture:
        return tasks.decode(self.model, latents).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def _options(settings: SamplingSettings) -> SamplerOptions:
    return SamplerOptions(
        num_iterations=settings.num_iterations,
        guidance=settings.guidance,
        guidance_schedule=settings.guidance_schedule,
        temperature=settings.temperature,
        diffusion_steps=settings.diffusion_steps,
        last_diffusion_steps=settings.last_diffusion_steps,
        guidance_every=settings.guidance_every,
    )


def _pixels(pictures: Sequence[Picture], image_size: int) -> torch.Tensor:
    wanted = (image_size, image_size, 3)
    for index, picture in enumerate(pictures):
        if picture.shape != wanted or picture.dtype != np.uint8:
            raise ValueError(f"picture {index} is {picture.shape} {picture.dtype}, expected {wanted} uint8")
    return to_tensor(pictures)


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/meminfo has no MemAvailable")
