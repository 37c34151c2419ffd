"""The per-token diffusion head: a residual MLP with adaptive LayerNorm, module names as published."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unipic.model.joined import Joined

_SINUSOID_WIDTH = 256
_SINUSOID_PERIOD = 10_000.0
_NORM_EPS = 1e-6


def sinusoid(steps: Tensor) -> Tensor:
    """Step numbers (M,) → (M, 256) float32, cosines first."""
    half = _SINUSOID_WIDTH // 2
    ranks = torch.arange(half, dtype=torch.float32, device=steps.device)
    angles = steps.float()[:, None] * torch.exp(-math.log(_SINUSOID_PERIOD) * ranks / half)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimeEmbedding(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(_SINUSOID_WIDTH, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, steps: Tensor) -> Tensor:
        return self.mlp(sinusoid(steps).to(next(self.parameters()).dtype))


class HeadBlock(nn.Module):
    """x + gate · MLP(LN(x)·(1 + scale) + shift); shift, scale and gate come from the activated condition."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_ln = nn.LayerNorm(width, eps=_NORM_EPS)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 3 * width))

    def forward(self, x: Tensor, activated: Tensor) -> Tensor:
        shift, scale, gate = self.adaLN_modulation[1](activated).chunk(3, dim=-1)
        return self.modulated(x, shift, 1 + scale, gate)

    def modulated(self, x: Tensor, shift: Tensor, scale: Tensor, gate: Tensor) -> Tensor:
        """`scale` has its 1 added already; all (M, width)."""
        return torch.addcmul(x, gate, self.mlp(torch.addcmul(shift, self.in_ln(x), scale)))


class FinalLayer(nn.Module):
    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.width = width
        self.linear = nn.Linear(width, channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def modulate(self, x: Tensor, activated: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation[1](activated).chunk(2, dim=-1)
        return self.modulated(x, shift, 1 + scale)

    def modulated(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """`scale` has its 1 added already; all (M, width)."""
        return torch.addcmul(shift, F.layer_norm(x, (self.width,), eps=_NORM_EPS), scale)


class DiffusionHead(nn.Module):
    """Estimates the noise in a token's latent, and the variance of the step, given the token's condition z."""

    def __init__(self, *, channels: int, condition_width: int, width: int, depth: int) -> None:
        super().__init__()
        self.channels = channels
        self.time_embed = TimeEmbedding(width)
        self.cond_embed = nn.Linear(condition_width, width)
        self.input_proj = nn.Linear(channels, width)
        self.res_blocks = nn.ModuleList([HeadBlock(width) for _ in range(depth)])
        self.final_layer = FinalLayer(width, 2 * channels)
        self._modulation: Joined | None = None

    def lay_out(self) -> None:
        """Join what every block computes from the condition into one product, once the weights are loaded."""
        joined = [block.adaLN_modulation[1] for block in [*self.res_blocks, self.final_layer]]
        self._modulation = Joined(*joined)

    def forward(self, x: Tensor, steps: Tensor, z: Tensor) -> Tensor:
        """`x` (M, C) noisy latents, `steps` (M,) in 0…999, `z` (M, D_m) → (M, 2C): noise, then variance share v."""
        y = self.time_embed(steps) + self.cond_embed(z)
        return self.final_layer.linear(self._trunk(self.input_proj(x), y))

    def estimate(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """One unguided estimate from a prepared condition.

        `x`: (M, C) float32 latents; `y`: (M, width), time plus token embedding. Returns noise and v, (M, C) float32.
        """
        out = self.final_layer.linear(self._trunk(self.input_proj(x.to(y.dtype)), y)).float()
        noise, v = out.chunk(2, dim=-1)
        return noise, v

    def estimate_guided(self, x: Tensor, y: Tensor, *, guidance: Tensor) -> tuple[Tensor, Tensor]:
        """One guided estimate; both halves read the same latents, v is computed for the conditional half alone.

        `x`: (M, C) float32; `y`: (2M, width), conditional rows first; `guidance`: () float32.
        Returns noise and v, (M, C) float32.
        """
        hidden = self.input_proj(x.to(y.dtype))
        if x.device.type != "cpu":  # one product too many, and three kernels fewer
            out = self.final_layer.linear(self._trunk(hidden.repeat(2, 1), y)).float()
            (noise, v), free = out[: len(x)].chunk(2, dim=-1), out[len(x) :, : self.channels]
            return torch.lerp(free, noise, guidance), v
        conditional, unconditional = self._trunk(torch.cat([hidden, hidden]), y).chunk(2)
        linear = self.final_layer.linear
        noise, v = linear(conditional).float().chunk(2, dim=-1)
        free = F.linear(unconditional, linear.weight[: self.channels], linear.bias[: self.channels]).float()
        return free + guidance * (noise - free), v

    def _trunk(self, hidden: Tensor, y: Tensor) -> Tensor:
        activated = F.silu(y)
        if self._modulation is None or not self._modulation.shared:
            for block in self.res_blocks:
                hidden = block(hidden, activated)
            return self.final_layer.modulate(hidden, activated)
        width = self.final_layer.width
        parts = self._modulation(activated).unflatten(-1, (-1, width))
        # A block's shift, scale and gate in turn, the last layer's shift and scale: every third from the second on.
        scales = 1 + parts[:, 1::3]
        for index, block in enumerate(self._blocks()):
            hidden = block.modulated(hidden, parts[:, 3 * index], scales[:, index], parts[:, 3 * index + 2])
        return self.final_layer.modulated(hidden, parts[:, -2], scales[:, -1])

    def _blocks(self) -> list[HeadBlock]:
        return [block for block in self.res_blocks if isinstance(block, HeadBlock)]
