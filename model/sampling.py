"""Image generation: the order of revealed tokens, guidance, and the head's sampler.

This file draws nothing at random; orders and noise are arguments.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from unipic.model import diffusion
from unipic.model.head import DiffusionHead
from unipic.model.llm import PromptCache
from unipic.model.mar import Positions
from unipic.model.unipic import UniPic

GuidanceSchedule = Literal["constant", "linear"]


class NoiseSource(Protocol):
    """Source of a batch's permutations and noise."""

    def orders(self) -> Tensor:
        """(B, N) int64 permutations; tokens are revealed from the end towards the start."""

    def draw(self, places: Tensor) -> Tensor:
        """(K, B, R, C) float32 for the tokens at `places` (B, R), each asked for once.

        Entry 0 is the start noise, entry k the noise added after the k-th of K sampler calls.
        """


@dataclass(frozen=True)
class SamplerOptions:
    """How to sample: see `model/engine.py` for the meaning of each."""

    num_iterations: int
    guidance: float
    guidance_schedule: GuidanceSchedule
    temperature: float
    diffusion_steps: int

    @property
    def guided(self) -> bool:
        return self.guidance != 1.0


@dataclass(frozen=True)
class Reveal:
    """One iteration: `order[masked_after:masked_before]` are revealed under this guidance."""

    masked_before: int
    masked_after: int
    guidance: float


def reveals(tokens: int, options: SamplerOptions) -> tuple[Reveal, ...]:
    """The iterations that reveal something, in order; together they reveal each of `tokens` tokens once."""
    plan, masked = [], tokens
    for iteration in range(options.num_iterations):
        ratio = math.cos(math.pi / 2 * (iteration + 1) / options.num_iterations)
        counted = max(1, min(masked - 1, math.floor(tokens * ratio)))
        guidance = options.guidance
        if options.guidance_schedule == "linear":
            guidance = 1 + (options.guidance - 1) * (tokens - counted) / tokens
        after = 0 if iteration == options.num_iterations - 1 else counted
        if after < masked:
            plan.append(Reveal(masked, after, guidance))
        masked = after
    return tuple(plan)


class SeededNoise:
    """Randomness per row: drawn on the CPU from the row's seed, only as much as needed."""

    def __init__(self, seeds: Sequence[int], *, tokens: int, channels: int, steps: int) -> None:
        """`seeds`: one integer in 0…2⁶⁴-1 a row."""
        wrong = [seed for seed in seeds if not 0 <= seed < 2**64]
        if wrong:
            raise ValueError(f"a seed must be from 0 to 2**64 - 1, got {wrong[0]}")
        self._generators = [np.random.Generator(np.random.Philox(key=seed)) for seed in seeds]
        self._tokens, self._channels, self._steps = tokens, channels, steps

    def orders(self) -> Tensor:
        return torch.from_numpy(np.stack([generator.permutation(self._tokens) for generator in self._generators]))

    def draw(self, places: Tensor) -> Tensor:
        shape = (self._steps, places.shape[1], self._channels)
        noise = np.empty((self._steps, len(self._generators), *shape[1:]), dtype=np.float32)
        for row, generator in enumerate(self._generators):
            noise[:, row] = generator.standard_normal(shape, dtype=np.float32)
        return torch.from_numpy(noise)


class _Step(NamedTuple):
    of_x: float
    of_noise: float
    mean_of_clean: float
    mean_of_x: float
    log_posterior: float
    log_beta: float


class HeadSampler:
    """Ancestral sampling of token latents with the diffusion head; it keeps what does not depend on the tokens."""

    def __init__(self, head: DiffusionHead, *, steps: int, temperature: float) -> None:
        tables = diffusion.tables(steps)
        weight = head.input_proj.weight
        self._head, self._temperature = head, temperature
        self._times = head.time_embed(torch.tensor(tables.steps, device=weight.device))
        self._steps = [
            _Step(*row)
            for row in zip(
                tables.recip_sqrt_alphas_cumprod.tolist(),
                tables.recipm1_sqrt_alphas_cumprod.tolist(),
                tables.posterior_mean_coef1.tolist(),
                tables.posterior_mean_coef2.tolist(),
                tables.posterior_log_variance.tolist(),
                tables.log_betas.tolist(),
                strict=True,
            )
        ]

    def sample(self, z: Tensor, noise: Tensor, *, guidance: float) -> Tensor:
        """`z`: (M, D), or (2M, D) to guide, conditional rows first; `noise`: (K, M, C) float32 → (M, C) float32."""
        condition = self._head.cond_embed(z)
        guided = z.shape[0] == 2 * noise.shape[1]
        x = noise[0]
        for call, index in enumerate(reversed(range(len(self._steps))), start=1):
            y = self._times[index] + condition
            if guided:
                estimate, v = self._head.estimate_guided(x, y, guidance=guidance)
            else:
                estimate, v = self._head.estimate(x, y)
            step = self._steps[index]
            clean = step.of_x * x - step.of_noise * estimate
            x = step.mean_of_clean * clean + step.mean_of_x * x
            if index:
                share = (v + 1) / 2
                log_variance = share * step.log_beta + (1 - share) * step.log_posterior
                x = x + torch.exp(0.5 * log_variance) * noise[call] * self._temperature
        return x


@torch.inference_mode()
def sample_latents(
    model: UniPic,
    *,
    cache: PromptCache,
    noise: NoiseSource,
    options: SamplerOptions,
    positions: Positions,
    source: Tensor | None = None,
) -> Tensor:
    """Generate the latents of B images.

    `cache`: prompts of B rows, or with guidance of 2B, conditional rows first; `positions`: of the token grid;
    `source`: x_enc (B, S + N, D_m) of the images to edit, None to generate. Returns (B, N, C), scaled latents.
    """
    device, times = model.device, 2 if options.guided else 1
    orders = noise.orders().to(device)
    rows, tokens = orders.shape
    if cache.lengths.shape[0] != times * rows:
        raise ValueError(f"{rows} rows need {times * rows} prompts, got {cache.lengths.shape[0]}")
    sampler = HeadSampler(model.mar.head, steps=options.diffusion_steps, temperature=options.temperature)
    latents = torch.zeros(rows, tokens, model.mar.head.channels, dtype=model.dtype, device=device)
    blank = None if source is None else model.mar.decoder_embed(source).repeat(times, 1, 1)
    for reveal in reveals(tokens, options):
        visible = orders[:, reveal.masked_before :].sort(dim=1).values
        wanted = orders[:, reveal.masked_after : reveal.masked_before]
        drawn = noise.draw(wanted).to(device, non_blocking=True).flatten(1, 2)
        x = model.think(*model.see(latents, positions, visible=visible), cache)
        z = model.mar.decode(
            x, positions, visible=visible.repeat(times, 1), wanted=wanted.repeat(times, 1), blank=blank
        )
        sampled = sampler.sample(z.flatten(0, 1), drawn, guidance=reveal.guidance)
        index = wanted.unsqueeze(-1).expand(-1, -1, latents.shape[-1])
        latents.scatter_(1, index, sampled.to(latents.dtype).view(index.shape))
    return latents
