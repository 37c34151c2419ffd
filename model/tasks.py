"""The three tasks as functions of a model, prompts, images and noise; the engine adds text, pixels and seeds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unipic.model.captioning import greedy
from unipic.model.noise import NoiseSource
from unipic.model.pixels import to_uint8
from unipic.model.prompts import Prompt
from unipic.model.sampling import SamplerOptions, sample_latents
from unipic.model.unipic import UniPic

# The VAE's activations are the largest of all: it works on so many pixels at once, and on one image at least.
_VAE_PIXELS_AT_ONCE = 1024 * 1024


@torch.inference_mode()
def generate(
    model: UniPic,
    prompts: Sequence[Prompt],
    unconditional: Prompt,
    *,
    grid: int,
    noise: NoiseSource,
    options: SamplerOptions,
) -> Tensor:
    """Latents (B, grid², C) of images for B prompts; the unconditional prompt is read once for all of them."""
    rows = list(range(len(prompts)))
    read = [*prompts, unconditional] if options.guided else list(prompts)
    room = grid**2 + model.config.mar.buffer_tokens
    cache, _ = model.llm.read_prompts(*model.embed_prompts(read), room=0 if options.guided else room)
    if options.guided:
        cache = cache.take(rows + [len(rows)] * len(rows), room=room)
    return sample_latents(model, cache=cache, noise=noise, options=options, positions=model.mar.positions(grid))


@torch.inference_mode()
def edit(
    model: UniPic,
    prompts: Sequence[Prompt],
    unconditional: Prompt,
    *,
    pixels: Tensor,
    noise: NoiseSource,
    options: SamplerOptions,
) -> Tensor:
    """Latents (B, N, C) of edited images. `pixels`: (B, 3, S, S) float32 in [-1, 1], the images to edit."""
    latents = encode(model, pixels)
    positions = model.mar.positions(model.config.grid_of(pixels.shape[-1]))
    source, seen = model.see(latents, positions)
    read = list(prompts)
    if options.guided:
        read += [unconditional] * len(prompts)
        seen = seen.repeat(2, 1, 1)
    cache, _ = model.llm.read_prompts(*model.embed_prompts(read, pictures=seen), room=source.shape[1])
    return sample_latents(model, cache=cache, noise=noise, options=options, positions=positions, source=source)


@torch.inference_mode()
def caption_prompts(model: UniPic, prompts: Sequence[Prompt], *, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings (B, P, D_l) and lengths (B,) of questions about `pixels` (B, 3, S, S) float32 in [-1, 1]."""
    positions = model.mar.positions(model.config.grid_of(pixels.shape[-1]))
    _, seen = model.see(encode(model, pixels), positions)
    return model.embed_prompts(prompts, pictures=seen)


def caption(
    model: UniPic,
    prompts: Sequence[Prompt],
    *,
    pixels: Tensor,
    end_id: int,
    max_new_tokens: int,
    places: int | None = None,
) -> list[list[int]]:
    """Answers' ids to questions about `pixels` (B, 3, S, S) float32 in [-1, 1].

    `places`: rows that run at once, None for all.
    """
    shown = model.config.grid_of(pixels.shape[-1]) ** 2 + model.config.mar.buffer_tokens

    def read(rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        return caption_prompts(model, [prompts[row] for row in rows], pixels=pixels[list(rows)])

    return greedy(
        model,
        read,
        rows=len(prompts),
        places=places or len(prompts),
        longest=max((prompt.text_tokens for prompt in prompts), default=0) + shown,
        end_id=end_id,
        max_new_tokens=max_new_tokens,
    )


@torch.inference_mode()
def encode(model: UniPic, pixels: Tensor) -> Tensor:
    """(B, 3, S, S) in [-1, 1] → scaled latents (B, N, C), a few images at a time."""
    rows = max(1, _VAE_PIXELS_AT_ONCE // pixels.shape[-1] ** 2)
    return torch.cat([model.vae.encode(part.to(model.device, model.dtype)) for part in pixels.split(rows)])


@torch.inference_mode()
def decode(model: UniPic, latents: Tensor) -> Tensor:
    """Scaled latents (B, N, C) → images (B, 3, S, S) uint8, a few at a time."""
    pixels_each = latents.shape[1] * model.config.vae.stride**2
    rows = max(1, _VAE_PIXELS_AT_ONCE // pixels_each)
    return torch.cat([to_uint8(model.vae.decode(part)) for part in latents.split(rows)])
