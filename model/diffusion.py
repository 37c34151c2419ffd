"""Noise schedules of the head: the training schedule, and the shorter ones it is sampled with."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TRAINING_STEPS = 1000
_MAX_BETA = 0.2

Floats = NDArray[np.float64]


def training_betas() -> Floats:
    """(1000,) float64 betas of the squared-cosine alpha-bar, each clipped at 0.2."""

    def alpha_bar(t: float) -> float:
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [
        min(1 - alpha_bar((step + 1) / TRAINING_STEPS) / alpha_bar(step / TRAINING_STEPS), _MAX_BETA)
        for step in range(TRAINING_STEPS)
    ]
    return np.array(betas, dtype=np.float64)


def kept_steps(count: int) -> list[int]:
    """The `count` training steps that sampling visits, ascending. Raises ValueError outside 1…1000."""
    if not 1 <= count <= TRAINING_STEPS:
        raise ValueError(f"diffusion steps must be from 1 to {TRAINING_STEPS}, got {count}")
    stride = (TRAINING_STEPS - 1) / (count - 1) if count > 1 else 1.0
    kept, place = [], 0.0
    for _ in range(count):
        kept.append(round(place))
        place += stride  # accumulated, not multiplied: the rounding of halves depends on it
    return kept


@dataclass(frozen=True)
class DiffusionTables:
    """Per kept step, ascending in noise, each (K,) float64 (`steps`: int)."""

    steps: tuple[int, ...]
    betas: Floats
    alphas_cumprod: Floats
    posterior_log_variance: Floats
    posterior_mean_coef1: Floats
    posterior_mean_coef2: Floats

    @property
    def log_betas(self) -> Floats:
        return np.log(self.betas)

    @property
    def recip_sqrt_alphas_cumprod(self) -> Floats:
        return np.sqrt(1 / self.alphas_cumprod)

    @property
    def recipm1_sqrt_alphas_cumprod(self) -> Floats:
        return np.sqrt(1 / self.alphas_cumprod - 1)


def tables(count: int) -> DiffusionTables:
    """The tables of a `count`-step sampler: betas recomputed from the alpha-bars of the steps kept."""
    steps = kept_steps(count)
    kept_bars = np.cumprod(1 - training_betas())[steps]
    betas = 1 - kept_bars / np.concatenate([[1.0], kept_bars[:-1]])
    bars = np.cumprod(1 - betas)
    previous = np.concatenate([[1.0], bars[:-1]])
    variance = betas * (1 - previous) / (1 - bars)
    # The first step's posterior variance is zero: the second's stands in for its logarithm.
    clipped = np.concatenate([variance[1:2], variance[1:]]) if count > 1 else betas
    return DiffusionTables(
        steps=tuple(steps),
        betas=betas,
        alphas_cumprod=bars,
        posterior_log_variance=np.log(clipped),
        posterior_mean_coef1=betas * np.sqrt(previous) / (1 - bars),
        posterior_mean_coef2=(1 - previous) * np.sqrt(1 - betas) / (1 - bars),
    )
