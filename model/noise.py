"""Where a batch's permutations and noise come from, and how they are ready before the device asks for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class NoiseSource(Protocol):
    """Where a batch's permutations and noise come from."""

    def orders(self) -> Tensor:
        """(B, N) int64 permutations; tokens are revealed from the end towards the start."""

    def draw(self, places: Tensor) -> Tensor:
        """(K, B, R, C) float32 for the tokens at `places` (B, R), each asked for once.

        Entry 0 is the start noise, entry k the noise added after the k-th of K sampler calls.
        """


class SeededNoise:
    """Randomness that each row owns: drawn on the CPU from the row's seed alone, only as far as it is needed."""

    def __init__(
        self, seeds: Sequence[int], *, tokens: int, channels: int, steps: int | Sequence[int], threads: int = 1
    ) -> None:
        """`seeds`: one integer in 0…2⁶⁴-1 a row; `steps`: of every draw, or of each draw in turn."""
        wrong = [seed for seed in seeds if not 0 <= seed < 2**64]
        if wrong:
            raise ValueError(f"a seed must be from 0 to 2**64 - 1, got {wrong[0]}")
        self._generators = [np.random.Generator(np.random.Philox(key=seed)) for seed in seeds]
        self._tokens, self._channels, self._threads = tokens, channels, threads
        self._steps = steps if isinstance(steps, int) else iter(steps)

    def orders(self) -> Tensor:
        return torch.from_numpy(np.stack([generator.permutation(self._tokens) for generator in self._generators]))

    def draw(self, places: Tensor) -> Tensor:
        steps = self._steps if isinstance(self._steps, int) else next(self._steps)
        shape = (steps, places.shape[1], self._channels)
        noise = np.empty((steps, len(self._generators), *shape[1:]), dtype=np.float32)

        def draw_row(row: int) -> None:
            noise[:, row] = self._generators[row].standard_normal(shape, dtype=np.float32)

        rows = range(len(self._generators))
        if self._threads == 1 or len(rows) == 1:
            for row in rows:
                draw_row(row)
        else:  # a row's generator is its own, and numpy draws without holding Python's lock
            with ThreadPoolExecutor(self._threads) as pool:
                list(pool.map(draw_row, rows))
        return torch.from_numpy(noise)


def ahead(noise: NoiseSource, wanted: Sequence[Tensor], device: torch.device) -> Iterator[Tensor]:
    """`noise.draw` of each in turn, on the device; on a card drawn and pinned while the one before is at work."""
    if device.type != "cuda":
        for places in wanted:
            yield noise.draw(places).to(device)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="noise") as pool:
        drawn = pool.submit(_pinned, noise, wanted[0])
        for following in [*wanted[1:], None]:
            ready = drawn.result()
            if following is not None:
                drawn = pool.submit(_pinned, noise, following)
            # torch's pinned memory is not given out again before a copy from it is done.
            yield ready.to(device, non_blocking=True)


def _pinned(noise: NoiseSource, places: Tensor) -> Tensor:
    return noise.draw(places).pin_memory()
