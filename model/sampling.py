"""Image generation over the parts: which tokens are revealed when, guidance, and the head's sampler.

Nothing here is random: orders and noise are handed in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from unipic.model.caches import PromptCache
from unipic.model.head_sampler import HeadSampler
from unipic.model.mar import Positions
from unipic.model.noise import NoiseSource, ahead
from unipic.model.replay import buckets
from unipic.model.unipic import UniPic

GuidanceSchedule = Literal["constant", "linear"]


@dataclass(frozen=True)
class SamplerOptions:
    """How to sample: see `model/engine.py` for the meaning of each.

    `last_diffusion_steps`: the steps go to this number in equal strides over the iterations, None for a constant one.
    `guidance_every`: the unconditional rows are computed in every n-th iteration, and stand for those after it.
    """

    num_iterations: int
    guidance: float
    guidance_schedule: GuidanceSchedule
    temperature: float
    diffusion_steps: int
    last_diffusion_steps: int | None = None
    guidance_every: int = 1

    @property
    def guided(self) -> bool:
        return self.guidance != 1.0

    def steps_at(self, iteration: int) -> int:
        """Diffusion steps of the tokens that this iteration reveals."""
        if self.last_diffusion_steps is None or self.num_iterations == 1:
            return self.diffusion_steps
        share = iteration / (self.num_iterations - 1)
        return round(self.diffusion_steps + (self.last_diffusion_steps - self.diffusion_steps) * share)


@dataclass(frozen=True)
class Reveal:
    """One iteration: `order[masked_after:masked_before]` are revealed under this guidance, in so many steps.

    `unconditional`: whether the unconditional rows are computed, or those of an earlier iteration stand for them.
    """

    masked_before: int
    masked_after: int
    guidance: float
    steps: int
    unconditional: bool = True


def reveals(tokens: int, options: SamplerOptions) -> tuple[Reveal, ...]:
    """The iterations that reveal something, in order; together they reveal each of `tokens` tokens once."""
    plan: list[Reveal] = []
    masked = tokens
    for iteration in range(options.num_iterations):
        ratio = math.cos(math.pi / 2 * (iteration + 1) / options.num_iterations)
        counted = max(1, min(masked - 1, math.floor(tokens * ratio)))
        guidance = options.guidance
        if options.guidance_schedule == "linear":
            guidance = 1 + (options.guidance - 1) * (tokens - counted) / tokens
        after = 0 if iteration == options.num_iterations - 1 else counted
        if after < masked:
            fresh = len(plan) % options.guidance_every == 0
            plan.append(Reveal(masked, after, guidance, options.steps_at(iteration), fresh))
        masked = after
    return tuple(plan)


class _Head:
    """The head's sampler of each number of steps; on a card captured and replayed, on a CPU run as it is."""

    def __init__(self, model: UniPic, options: SamplerOptions, plan: tuple[Reveal, ...], *, rows: int) -> None:
        head = model.mar.head
        self._samplers = {
            steps: HeadSampler(head, steps=steps, temperature=options.temperature)
            for steps in {reveal.steps for reveal in plan}
        }
        self._replays = model.head_replays if model.device.type != "cpu" else None
        if self._replays is not None:
            counts = [reveal.masked_before - reveal.masked_after for reveal in plan]
            most = max(self._samplers)
            sizes = [rows * size for size in buckets(counts)]
            self._replays.prepare(self._samplers[most], sizes=sizes, steps=most, guided=options.guided)

    def sample(self, z: Tensor, noise: Tensor, reveal: Reveal) -> Tensor:
        sampler = self._samplers[reveal.steps]
        if self._replays is not None:
            return self._replays.sample(sampler, z, noise, guidance=reveal.guidance)
        return sampler.sample(z, noise, guidance=reveal.guidance)


class _Conditions:
    """z of the tokens to reveal, from the latents so far: what the encoder, the LLM and the decoder make of them."""

    def __init__(self, model: UniPic, cache: PromptCache, positions: Positions, source: Tensor | None) -> None:
        self._model, self._cache, self._positions = model, cache, positions
        self._blank = None if source is None else model.mar.decoder_embed(source)
        self._kept: Tensor | None = None

    def of(self, latents: Tensor, orders: Tensor, reveal: Reveal, *, wanted: Tensor, keep: bool) -> Tensor:
        """(B or 2B, R, D), conditional rows first; `keep`: the unconditional ones serve later iterations too."""
        rows = wanted.shape[0]
        visible = orders[:, reveal.masked_before :].sort(dim=1).values
        seen = self._model.see(latents, self._positions, visible=visible)
        if self._cache.rows == rows:
            return self._decoded(*seen, self._cache, visible, wanted)
        if reveal.unconditional and not keep:
            return self._decoded(*seen, self._cache, visible, wanted)
        known = self._decoded(*seen, self._cache.part(slice(0, rows)), visible, wanted)
        if reveal.unconditional:
            everything = torch.arange(orders.shape[1], device=orders.device).expand(rows, -1)
            self._kept = self._decoded(*seen, self._cache.part(slice(rows, None)), visible, everything)
        assert self._kept is not None
        return torch.cat([known, self._kept.gather(1, wanted.unsqueeze(-1).expand_as(known))])

    def _decoded(self, x: Tensor, z: Tensor, cache: PromptCache, visible: Tensor, wanted: Tensor) -> Tensor:
        times = cache.rows // x.shape[0]
        return self._model.mar.decode(
            self._model.think(x, z, cache),
            self._positions,
            visible=visible.repeat(times, 1),
            wanted=wanted.repeat(times, 1),
            blank=None if self._blank is None else self._blank.repeat(times, 1, 1),
        )


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
    if cache.rows != times * rows:
        raise ValueError(f"{rows} rows need {times * rows} prompts, got {cache.rows}")
    plan = reveals(tokens, options)
    head = _Head(model, options, plan, rows=rows)
    conditions = _Conditions(model, cache, positions, source)
    latents = torch.zeros(rows, tokens, model.mar.head.channels, dtype=model.dtype, device=device)
    wanted = [orders[:, reveal.masked_after : reveal.masked_before] for reveal in plan]
    for reveal, places, drawn in zip(plan, wanted, ahead(noise, wanted, device), strict=True):
        z = conditions.of(latents, orders, reveal, wanted=places, keep=options.guidance_every > 1)
        sampled = head.sample(z.flatten(0, 1), drawn.flatten(1, 2), reveal)
        index = places.unsqueeze(-1).expand(-1, -1, latents.shape[-1])
        latents.scatter_(1, index, sampled.to(latents.dtype).view(index.shape))
    return latents
