"""Masked autoregressive encoder and decoder over the tokens of a square latent grid, module names as published."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unipic.model.config import MarConfig
from unipic.model.head import DiffusionHead

_NORM_EPS = 1e-6


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    def of_some(self, x: Tensor, chosen: Tensor) -> Tensor:
        """What `chosen` (B, R, D), some of the rows of `x` (B, L, D), take from all of them → (B, R, D)."""
        width = x.shape[-1]
        q = F.linear(chosen, self.qkv.weight[:width], self.qkv.bias[:width]).unflatten(-1, (self.heads, -1))
        both = F.linear(x, self.qkv.weight[width:], self.qkv.bias[width:]).unflatten(-1, (2, self.heads, -1))
        k, v = both.permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q.transpose(1, 2), k, v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block without masks: (B, L, D) → same."""

    def __init__(self, width: int, *, heads: int, mlp: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=_NORM_EPS)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=_NORM_EPS)
        self.mlp = Mlp(width, mlp)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def at(self, x: Tensor, places: Tensor) -> Tensor:
        """What `forward` gives at `places` (B, R) alone: (B, R, D), without computing the others."""
        chosen = take(x, places)
        chosen = chosen + self.attn.of_some(self.norm1(x), self.norm1(chosen))
        return chosen + self.mlp(self.norm2(chosen))


@dataclass(frozen=True)
class Positions:
    """Learned positions fitted to one token grid: encoder and decoder (1, S + N, D), diffusion (1, N, D)."""

    encoder: Tensor
    decoder: Tensor
    diffusion: Tensor


def resize_positions(learned: Tensor, *, buffers: int, grid: int) -> Tensor:
    """(1, buffers + g², D) → (1, buffers + grid², D): the image part is resized like an image, the buffers stay."""
    front, image = learned[:, :buffers], learned[:, buffers:]
    trained = round(image.shape[1] ** 0.5)
    if trained == grid:
        return learned
    picture = image.float().unflatten(1, (trained, trained)).permute(0, 3, 1, 2)
    picture = F.interpolate(picture, size=(grid, grid), mode="bilinear", align_corners=False)
    return torch.cat([front, picture.flatten(2).transpose(1, 2).to(learned.dtype)], dim=1)


def take(x: Tensor, places: Tensor) -> Tensor:
    """Rows of `x` (B, L, D), or of one shared (1, L, D), at `places` (B, K) → (B, K, D)."""
    index = places.unsqueeze(-1).expand(-1, -1, x.shape[-1])
    return x.expand(places.shape[0], -1, -1).gather(1, index)


class _DiffLoss(nn.Module):
    """Keeps the head's name in published checkpoints, `diffloss.net`."""

    def __init__(self, net: DiffusionHead) -> None:
        super().__init__()
        self.net = net


class Mar(nn.Module):
    """Encoder of visible tokens, decoder to all tokens, and the diffusion head."""

    def __init__(self, config: MarConfig, *, latent_channels: int) -> None:
        super().__init__()
        wide, narrow, tokens = config.encoder_width, config.decoder_width, config.grid**2
        self.config = config
        self.fake_latent = nn.Parameter(torch.zeros(1, wide))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, narrow))
        self.encoder_pos_embed_learned = nn.Parameter(torch.zeros(1, config.buffer_tokens + tokens, wide))
        self.decoder_pos_embed_learned = nn.Parameter(torch.zeros(1, config.buffer_tokens + tokens, narrow))
        self.diffusion_pos_embed_learned = nn.Parameter(torch.zeros(1, tokens, narrow))
        self.z_proj = nn.Linear(latent_channels, wide)
        self.z_proj_ln = nn.LayerNorm(wide, eps=_NORM_EPS)
        self.encoder_blocks = nn.ModuleList(
            [Block(wide, heads=config.encoder_heads, mlp=config.encoder_mlp) for _ in range(config.encoder_depth)]
        )
        self.encoder_norm = nn.LayerNorm(wide, eps=_NORM_EPS)
        self.decoder_embed = nn.Linear(wide, narrow)
        self.decoder_blocks = nn.ModuleList(
            [Block(narrow, heads=config.decoder_heads, mlp=config.decoder_mlp) for _ in range(config.decoder_depth)]
        )
        self.decoder_norm = nn.LayerNorm(narrow, eps=_NORM_EPS)
        self.diffloss = _DiffLoss(
            DiffusionHead(
                channels=latent_channels,
                condition_width=narrow,
                width=config.head_width,
                depth=config.head_depth,
            )
        )

    @property
    def head(self) -> DiffusionHead:
        return self.diffloss.net

    def positions(self, grid: int) -> Positions:
        """The learned positions for a `grid`×`grid` image; compute once a batch."""
        buffers = self.config.buffer_tokens
        return Positions(
            encoder=resize_positions(self.encoder_pos_embed_learned, buffers=buffers, grid=grid),
            decoder=resize_positions(self.decoder_pos_embed_learned, buffers=buffers, grid=grid),
            diffusion=resize_positions(self.diffusion_pos_embed_learned, buffers=0, grid=grid),
        )

    def encode(self, latents: Tensor, positions: Positions, *, visible: Tensor) -> Tensor:
        """Encode the visible tokens alone.

        `latents`: (B, N, C) scaled latents, masked ones are not read; `visible`: (B, V) int64, ascending.
        Returns x_enc (B, S + V, D_m), buffers first.
        """
        buffers = self.config.buffer_tokens
        tokens = self.z_proj(take(latents.to(self.z_proj.weight.dtype), visible))
        tokens = tokens + take(positions.encoder[:, buffers:], visible)
        front = (self.fake_latent + positions.encoder[:, :buffers]).expand(latents.shape[0], -1, -1)
        x = self.z_proj_ln(torch.cat([front, tokens], dim=1))
        for block in self.encoder_blocks:
            x = block(x)
        return self.encoder_norm(x)

    def decode(
        self, x: Tensor, positions: Positions, *, visible: Tensor, wanted: Tensor, blank: Tensor | None = None
    ) -> Tensor:
        """Conditions of the wanted tokens.

        `x`: (B, S + V, D_m); `visible`: (B, V); `wanted`: (B, R) token places;
        `blank`: (B, S + N, D) the input at invisible places, None for mask tokens.
        Returns z (B, R, D).
        """
        rows, buffers = x.shape[0], self.config.buffer_tokens
        known = self.decoder_embed(x)
        if blank is None:
            blank = self.mask_token.expand(rows, positions.decoder.shape[1], -1)
        index = (visible + buffers).unsqueeze(-1).expand(-1, -1, known.shape[-1])
        sequence = torch.cat([known[:, :buffers], blank[:, buffers:]], dim=1)
        sequence = sequence.scatter(1, index, known[:, buffers:]) + positions.decoder
        *before, last = self.decoder_blocks
        for block in before:
            sequence = block(sequence)
        if sequence.device.type == "cpu":  # products of fewer rows may round otherwise there, and images are compared
            chosen = take(last(sequence), wanted + buffers)
        else:
            assert isinstance(last, Block)
            chosen = last.at(sequence, wanted + buffers)
        z = self.decoder_norm(chosen)
        return z + take(positions.diffusion, wanted)
