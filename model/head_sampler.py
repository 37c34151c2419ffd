"""The head's sampler: one step as a function of tensors alone, run in a loop or captured once and replayed."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from unipic.model import diffusion
from unipic.model.head import DiffusionHead


class HeadSampler:
    """Ancestral sampling of token latents; all that does not depend on the tokens is on the device beforehand.

    `times`: (K, width), the time embeddings, and `table`: (K, 11) float32, the step's coefficients, both in the order
    of the K calls, the noisiest first.
    """

    def __init__(self, head: DiffusionHead, *, steps: int, temperature: float) -> None:
        tables = diffusion.tables(steps)
        device = head.input_proj.weight.device
        self.head, self.steps = head, steps
        self.times = head.time_embed(torch.tensor(tables.steps, device=device)).flip(0)
        self.table = coefficients(tables, temperature=temperature).to(device)
        # Views, taken once: on a CPU each would cost a step as much as an addition does.
        self._rows = [(time, row.unbind(0)) for time, row in zip(self.times, self.table, strict=True)]

    def sample(self, z: Tensor, noise: Tensor, *, guidance: float | Tensor) -> Tensor:
        """`z`: (M, D), or (2M, D) to guide, conditional rows first; `noise`: (K, M, C) float32 → (M, C) float32."""
        condition = self.head.cond_embed(z)
        weight = torch.as_tensor(guidance, dtype=torch.float32, device=z.device)
        x = noise[0]
        last = self.steps - 1
        for call, (time, row) in enumerate(self._rows):
            x = self.step(x, condition, time, row, None if call == last else noise[call + 1], weight)
        return x

    def step(
        self,
        x: Tensor,
        condition: Tensor,
        time: Tensor,
        row: tuple[Tensor, ...],
        noise: Tensor | None,
        guidance: Tensor,
    ) -> Tensor:
        """One call: `x` (M, C) float32; `condition` (M or 2M, width); `time` (width,); `row`: a row of `table`.

        `noise`: (M, C), None to add none; `guidance`: () float32. Returns the less noisy latents (M, C) float32.
        """
        y = time + condition
        if y.shape[0] == 2 * x.shape[0]:
            estimate, v = self.head.estimate_guided(x, y, guidance=guidance)
        else:
            estimate, v = self.head.estimate(x, y)
        if x.device.type != "cpu":
            return folded(x, estimate, v, row, noise)
        of_x, of_noise, mean_of_clean, mean_of_x, log_posterior, log_beta, temperature = row[:7]
        clean = of_x * x - of_noise * estimate
        x = mean_of_clean * clean + mean_of_x * x
        if noise is None:
            return x
        share = (v + 1) / 2
        log_variance = share * log_beta + (1 - share) * log_posterior
        return x + torch.exp(0.5 * log_variance) * noise * temperature


def coefficients(tables: diffusion.DiffusionTables, *, temperature: float) -> Tensor:
    """(K, 11) float32 on the CPU, in the order of the calls.

    The first seven as the formulas have them; then the mean's share of x and of the estimate, and what the logarithm
    of the noise's scale is at v = 0 and gains with v. The last call adds no noise: its scale is zero.
    """
    of_x, of_noise = tables.recip_sqrt_alphas_cumprod, tables.recipm1_sqrt_alphas_cumprod
    mean_of_clean, mean_of_x = tables.posterior_mean_coef1, tables.posterior_mean_coef2
    log_posterior, log_beta = tables.posterior_log_variance, tables.log_betas
    temperatures = np.full(len(tables.steps), temperature)
    temperatures[0] = 0.0
    with np.errstate(divide="ignore"):  # the logarithm of no noise is -inf, and its exponential is nothing again
        start = 0.25 * (log_beta + log_posterior) + np.log(temperatures)
    columns = [of_x, of_noise, mean_of_clean, mean_of_x, log_posterior, log_beta, temperatures]
    columns += [mean_of_clean * of_x + mean_of_x, -mean_of_clean * of_noise, start, 0.25 * (log_beta - log_posterior)]
    return torch.from_numpy(np.stack(columns, axis=1)[::-1].copy()).float()


def folded(x: Tensor, estimate: Tensor, v: Tensor, row: tuple[Tensor, ...], noise: Tensor | None) -> Tensor:
    """The same step in five kernels: coefficients multiplied out beforehand, so that it rounds otherwise."""
    of_x, of_estimate, log_scale, log_scale_of_v = row[7:]
    mean = torch.addcmul(of_x * x, of_estimate, estimate)
    if noise is None:
        return mean
    return torch.addcmul(mean, torch.exp(torch.addcmul(log_scale, log_scale_of_v, v)), noise)
