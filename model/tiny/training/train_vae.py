"""First stage of training: the KL autoencoder, on quadrants (a quarter of the cost) and then on whole images."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from unipic.model.config import VaeConfig
from unipic.model.tiny.training.ema import Ema
from unipic.model.tiny.world.samplers import crowded_scene
from unipic.model.tiny.world.scene import render
from unipic.model.vae import Vae

_WARMUP_STEPS = 100


@dataclass(frozen=True)
class VaeRecipe:
    """Steps and weights of the autoencoder's training."""

    quadrant_steps: int = 4000
    quadrant_rows: int = 64
    picture_steps: int = 2000
    picture_rows: int = 32
    bank_pictures: int = 6000
    peak_rate: float = 2e-3
    # On the sum over an image's latents. A strong pull at the start collapses them, so it starts late.
    kl_weight: float = 5e-6
    kl_weight_start: float = 1e-6
    kl_start_share: float = 0.25
    seed: int = 0

    @property
    def steps(self) -> int:
        return self.quadrant_steps + self.picture_steps


def to_unit(pictures: np.ndarray) -> Tensor:
    """(B, S, S, 3) uint8 → (B, 3, S, S) float32 in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().mul_(2 / 255).sub_(1)


def picture_bank(*, pictures: int, seed: int) -> np.ndarray:
    """Crowded training scenes, rendered: (images, 64, 64, 3) uint8."""
    rng = random.Random(seed)
    return np.stack([render(crowded_scene(rng, things=rng.choice((1, 2, 3, 4, 4)))) for _ in range(pictures)])


def learning_rate(step: int, recipe: VaeRecipe) -> float:
    """Each kind of image has a linear warm-up, then a cosine down to 3 % of the peak, the second kind from half."""
    second = step >= recipe.quadrant_steps
    place, steps = (step - recipe.quadrant_steps, recipe.picture_steps) if second else (step, recipe.quadrant_steps)
    falling = 0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * place / max(1, steps)))
    return recipe.peak_rate * (0.5 if second else 1.0) * falling * min(1.0, (place + 1) / _WARMUP_STEPS)


def vae_loss(vae: Vae, pixels: Tensor, noise: Tensor, *, kl_weight: float) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, the mean absolute error and the KL (summed over an image's latents) of pixels (B, 3, S, S)."""
    mean, log_variance = vae.moments(pixels)
    log_variance = log_variance.clamp(-12.0, 8.0)
    out = vae.decode_map(mean + (0.5 * log_variance).exp() * noise)
    error = (out - pixels).abs().mean()
    kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(dim=(1, 2, 3)).mean()
    return error + (out - pixels).square().mean() + kl_weight * kl, error.detach(), kl.detach()


def _batch(bank: np.ndarray, rng: np.random.Generator, *, step: int, recipe: VaeRecipe) -> Tensor:
    if step >= recipe.quadrant_steps:
        return to_unit(bank[rng.integers(0, len(bank), recipe.picture_rows)])
    half = bank.shape[1] // 2
    quadrants = bank.reshape(len(bank), 2, half, 2, half, 3)
    rows = rng.integers(0, len(bank), recipe.quadrant_rows)
    down, right = rng.integers(0, 2, (2, recipe.quadrant_rows))
    return to_unit(quadrants[rows, down, :, right])


def train_vae(config: VaeConfig, *, recipe: VaeRecipe, state: Path, device: str, report: Callable[[str], None]) -> Vae:
    """Train or resume from `state`; returns the moving average."""
    torch.manual_seed(recipe.seed)
    vae = Vae(config).to(device)
    vae.lay_out()
    ema = Ema(vae, decay=0.998)
    optimiser = torch.optim.AdamW(vae.parameters(), lr=recipe.peak_rate, betas=(0.9, 0.98), weight_decay=1e-4)
    first = 0
    if state.exists():
        saved = torch.load(state, weights_only=True, map_location=device)
        vae.load_state_dict(saved["vae"])
        ema.load_state_dict(saved["ema"])
        optimiser.load_state_dict(saved["optimiser"])
        first = int(saved["step"])
    bank = picture_bank(pictures=recipe.bank_pictures, seed=recipe.seed)
    started = time.monotonic()
    for step in range(first, recipe.steps):
        # Each step has its own randomness, so a resumed run equals an uninterrupted one.
        rng = np.random.default_rng((recipe.seed, step))
        pixels = _batch(bank, rng, step=step, recipe=recipe).to(device)
        grid = pixels.shape[-1] // config.stride
        noise = rng.standard_normal((len(pixels), config.latent_channels, grid, grid), dtype=np.float32)
        late = step >= recipe.kl_start_share * recipe.steps
        weight = recipe.kl_weight if late else recipe.kl_weight_start
        # A quadrant has a quarter of an image's latents and must weigh as much.
        share = (bank.shape[1] / pixels.shape[-1]) ** 2
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, recipe)
        optimiser.zero_grad(set_to_none=True)
        with sdpa_kernel(SDPBackend.MATH):  # the fused attention's backward pass is slow on a CPU
            loss, error, kl = vae_loss(vae, pixels, torch.from_numpy(noise).to(device), kl_weight=weight * share)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        ema.update(vae)
        if (step + 1) % 50 == 0:
            elapsed = time.monotonic() - started
            report(
                f"vae {step + 1}/{recipe.steps} error {error:.4f} kl {kl:.0f} {elapsed / (step + 1 - first):.3f} s/step"
            )
        if (step + 1) % 250 == 0 or step + 1 == recipe.steps:
            state.parent.mkdir(parents=True, exist_ok=True)
            whole = {"vae": vae.state_dict(), "ema": ema.state_dict(), "optimiser": optimiser.state_dict()}
            partial = state.with_suffix(".part")
            torch.save({**whole, "step": step + 1}, partial)
            partial.replace(state)
    return ema.average
