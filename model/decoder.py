"""Qwen2's decoder layers, run over transformers' weights: fewer and larger kernels than its own forward pass.

transformers keeps the weights, under the names they have in a checkpoint. Attention and caches are handed in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Qwen2Model

from unipic.model.joined import Joined

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, q (B, L, H, d), k (B, L, G, d), v (B, L, G, d)) → (B, L, H, d); rotated, of the new tokens alone."""


class Decoder:
    """The layers of one `Qwen2Model`, which it does not own."""

    def __init__(self, model: Qwen2Model) -> None:
        self._model = model
        self._qkv: list[Joined] = []
        self._gate_up: list[Joined] = []

    def join(self) -> None:
        """Lay weights of one input side by side, layer by layer; call once they are loaded."""
        layers = self._layers()
        self._qkv = [Joined(one.self_attn.q_proj, one.self_attn.k_proj, one.self_attn.v_proj) for one in layers]
        self._gate_up = [Joined(one.mlp.gate_proj, one.mlp.up_proj) for one in layers]

    def run(self, x: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """`x`: (B, L, D) embeddings; `positions`: (B or 1, L) int64 → (B, L, D) after the final norm."""
        turn = Rotary(self._model, x, positions)
        for index, layer in enumerate(self._layers()):
            q, k, v = self._projected(index, layer, _norm(layer.input_layernorm, x), turn)
            x = x + layer.self_attn.o_proj(attend(index, q, k, v).flatten(2))
            x = x + self._feed_forward(index, layer, _norm(layer.post_attention_layernorm, x))
        return _norm(self._model.norm, x)

    def _layers(self) -> list[Any]:
        return list(self._model.layers)

    def _projected(self, index: int, layer: Any, x: Tensor, turn: Rotary) -> tuple[Tensor, Tensor, Tensor]:
        attention = layer.self_attn
        width: int = attention.head_dim
        if self._qkv:
            all_heads = self._qkv[index](x)
        else:
            all_heads = torch.cat([attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)], dim=-1)
        all_heads = all_heads.unflatten(-1, (-1, width))
        groups = attention.k_proj.out_features // width
        heads = all_heads.shape[2] - 2 * groups
        turned = turn(all_heads[:, :, : heads + groups])
        return turned[:, :, :heads], turned[:, :, heads:], all_heads[:, :, heads + groups :]

    def _feed_forward(self, index: int, layer: Any, x: Tensor) -> Tensor:
        mlp = layer.mlp
        if not self._gate_up:
            out: Tensor = mlp(x)
            return out
        gate, up = self._gate_up[index](x).chunk(2, dim=-1)
        down: Tensor = mlp.down_proj(F.silu(gate) * up)
        return down


class Rotary:
    """Rotary positions of one pass, the same for all its layers."""

    def __init__(self, model: Qwen2Model, x: Tensor, positions: Tensor) -> None:
        cos, sin = model.rotary_emb(x, positions)
        self._half = cos.shape[-1] // 2
        self._cos = cos.unsqueeze(2)
        # The rotated half's sign is the sine's here, so that a roll can take the place of a negation and a join.
        self._sin = torch.cat([-sin[..., : self._half], sin[..., self._half :]], dim=-1).unsqueeze(2)

    def __call__(self, x: Tensor) -> Tensor:
        """(B, L, heads, d) → same."""
        turned = x.roll(self._half, dims=-1)
        if x.device.type == "cpu":  # a fused multiplication and addition rounds once, and so otherwise
            return x * self._cos + turned * self._sin
        return torch.addcmul(x * self._cos, turned, self._sin)


def _norm(norm: Any, x: Tensor) -> Tensor:
    weight: Tensor = norm.weight
    if x.device.type == "cpu" and x.dtype != torch.float32:  # rounds to x's type before the weight, as published
        out: Tensor = norm(x)
        return out
    return F.rms_norm(x, weight.shape, weight, norm.variance_epsilon)
