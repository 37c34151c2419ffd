"""KL autoencoder of the latent-diffusion family: pixels ↔ latents, module names as published."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unipic.model.config import VaeConfig

_NORM_EPS = 1e-6
Norm = Callable[[int], nn.GroupNorm]


class ResidualBlock(nn.Module):
    """norm, swish, conv, twice, plus a shortcut (1×1 where the width changes): (B, c_in, h, w) → (B, c_out, h, w)."""

    def __init__(self, c_in: int, c_out: int, *, norm: Norm) -> None:
        super().__init__()
        self.norm1 = norm(c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.norm2 = norm(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        if c_in != c_out:
            self.nin_shortcut = nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class PixelAttention(nn.Module):
    """Single-head attention over all places of a feature map, residual: (B, c, h, w) → same."""

    def __init__(self, channels: int, *, norm: Norm) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (part(h).flatten(2).transpose(1, 2).unsqueeze(1) for part in (self.q, self.k, self.v))
        h = F.scaled_dot_product_attention(q, k, v).squeeze(1)
        return x + self.proj_out(h.transpose(1, 2).reshape(x.shape))


class _Resample(nn.Module):
    def __init__(self, channels: int, *, stride: int, padding: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=stride, padding=padding)


class Downsample(_Resample):
    """Halves h and w; pads right and bottom by one and nowhere else."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, stride=2, padding=0)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(_Resample):
    """Doubles h and w: nearest, then a 3×3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, stride=1, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """Residual blocks of one resolution, each followed by an attention where the level has them."""

    def __init__(self, blocks: list[ResidualBlock], attentions: list[PixelAttention]) -> None:
        super().__init__()
        self.block = nn.ModuleList(blocks)
        self.attn = nn.ModuleList(attentions)

    def forward(self, x: Tensor) -> Tensor:
        for index, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[index](x)
        return x


class Middle(nn.Module):
    def __init__(self, width: int, *, norm: Norm) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(width, width, norm=norm)
        self.attn_1 = PixelAttention(width, norm=norm)
        self.block_2 = ResidualBlock(width, width, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Encoder(nn.Module):
    """(B, 3, H, W) in [-1, 1] → (B, 2·z_channels, H / stride, W / stride)."""

    def __init__(self, config: VaeConfig, *, norm: Norm) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, config.base_width, 3, padding=1)
        width, levels = config.base_width, []
        for index, multiplier in enumerate(config.multipliers):
            blocks = []
            for _ in range(config.residual_blocks):
                blocks.append(ResidualBlock(width, config.base_width * multiplier, norm=norm))
                width = config.base_width * multiplier
            attended = index in config.encoder_attention_levels
            level = Level(blocks, [PixelAttention(width, norm=norm) for _ in blocks] if attended else [])
            if index < len(config.multipliers) - 1:
                level.downsample = Downsample(width)
            levels.append(level)
        self.down = nn.ModuleList(levels)
        self.mid = Middle(width, norm=norm)
        self.norm_out = norm(width)
        self.conv_out = nn.Conv2d(width, 2 * config.z_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for index, level in enumerate(self.down):
            x = level(x)
            if index < len(self.down) - 1:
                x = level.get_submodule("downsample")(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """(B, z_channels, h, w) → (B, 3, h·stride, w·stride), about [-1, 1]."""

    def __init__(self, config: VaeConfig, *, norm: Norm) -> None:
        super().__init__()
        width = config.base_width * config.multipliers[-1]
        self.conv_in = nn.Conv2d(config.z_channels, width, 3, padding=1)
        self.mid = Middle(width, norm=norm)
        levels = []
        for index, multiplier in reversed(list(enumerate(config.multipliers))):
            blocks = []
            for _ in range(config.residual_blocks + 1):
                blocks.append(ResidualBlock(width, config.base_width * multiplier, norm=norm))
                width = config.base_width * multiplier
            level = Level(blocks, [])
            if index:
                level.upsample = Upsample(width)
            levels.append(level)
        self.up = nn.ModuleList(reversed(levels))
        self.norm_out = norm(width)
        self.conv_out = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid(self.conv_in(z))
        for index, level in reversed(list(enumerate(self.up))):
            x = level(x)
            if index:
                x = level.get_submodule("upsample")(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Vae(nn.Module):
    """Encoder, decoder and the 1×1 convolutions between them and the latents."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()

        def norm(channels: int) -> nn.GroupNorm:
            return nn.GroupNorm(config.norm_groups, channels, eps=_NORM_EPS)

        self.config = config
        self.encoder = Encoder(config, norm=norm)
        self.decoder = Decoder(config, norm=norm)
        self.quant_conv = nn.Conv2d(2 * config.z_channels, 2 * config.latent_channels, 1)
        self.post_quant_conv = nn.Conv2d(config.latent_channels, config.z_channels, 1)

    def lay_out(self) -> None:
        """Lay convolution weights out as the pixels are, so that no call converts them."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)

    def moments(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """`pixels` (B, 3, S, S) in [-1, 1] → mean and log variance, each (B, C, H, W), not scaled."""
        mean, log_variance = self.quant_conv(self.encoder(self._laid_out(pixels))).chunk(2, dim=1)
        return mean, log_variance

    def encode(self, pixels: Tensor) -> Tensor:
        """`pixels` (B, 3, S, S) in [-1, 1] → scaled latents (B, N, C), tokens in raster order."""
        mean, _ = self.moments(pixels)
        return (mean * self.config.scale).flatten(2).transpose(1, 2)

    def decode_map(self, latents: Tensor) -> Tensor:
        """Unscaled latents (B, C, H, W) → pixels (B, 3, S, S)."""
        return self.decoder(self.post_quant_conv(self._laid_out(latents)))

    def decode(self, tokens: Tensor) -> Tensor:
        """Scaled latents (B, N, C) of a square grid, raster order → pixels (B, 3, S, S), about [-1, 1]."""
        side = round(tokens.shape[1] ** 0.5)
        if side * side != tokens.shape[1]:
            raise ValueError(f"{tokens.shape[1]} tokens do not make a square grid")
        latents = tokens.transpose(1, 2).unflatten(2, (side, side)) / self.config.scale
        return self.decode_map(latents)

    def _laid_out(self, x: Tensor) -> Tensor:
        # Convolutions over channels-last memory run several times faster, on CPUs as on tensor cores.
        weight = self.post_quant_conv.weight
        return x.to(dtype=weight.dtype).contiguous(memory_format=torch.channels_last)
