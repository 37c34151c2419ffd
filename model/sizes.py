"""Reading a replica's sizes off the tensors of a published checkpoint and its language model's `config.json`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unipic.model.config import LlmConfig, MarConfig, ReplicaConfig, VaeConfig


def read_sizes(
    weights: Mapping[str, Tensor],
    vae: Mapping[str, Tensor],
    llm: Mapping[str, Any],
    *,
    encoder_heads: int,
    decoder_heads: int,
    vae_scale: float,
    vae_norm_groups: int,
) -> ReplicaConfig:
    """Sizes from shapes. Raises KeyError for a tensor without which they are unknown, ValueError for odd shapes."""
    return ReplicaConfig(
        vae=_vae_sizes(vae, scale=vae_scale, norm_groups=vae_norm_groups),
        mar=_mar_sizes(weights, encoder_heads=encoder_heads, decoder_heads=decoder_heads),
        llm=_llm_sizes(llm),
    )


def _vae_sizes(vae: Mapping[str, Tensor], *, scale: float, norm_groups: int) -> VaeConfig:
    base_width = vae["encoder.conv_in.weight"].shape[0]
    levels = _count(vae, r"encoder\.down\.(\d+)\.")
    widths = [vae[f"encoder.down.{level}.block.0.conv1.weight"].shape[0] for level in range(levels)]
    odd = [width for width in widths if width % base_width]
    if odd:
        raise ValueError(f"a VAE level's width ({odd[0]}) must be divisible by the base width ({base_width})")
    attended = {int(found[1]) for name in vae if (found := re.match(r"encoder\.down\.(\d+)\.attn\.", name))}
    return VaeConfig(
        base_width=base_width,
        multipliers=tuple(width // base_width for width in widths),
        residual_blocks=_count(vae, r"encoder\.down\.0\.block\.(\d+)\."),
        z_channels=vae["encoder.conv_out.weight"].shape[0] // 2,
        latent_channels=vae["post_quant_conv.weight"].shape[1],
        norm_groups=norm_groups,
        encoder_attention_levels=tuple(sorted(attended)),
        scale=scale,
    )


def _mar_sizes(weights: Mapping[str, Tensor], *, encoder_heads: int, decoder_heads: int) -> MarConfig:
    tokens = weights["mar.diffusion_pos_embed_learned"].shape[1]
    grid = round(tokens**0.5)
    if grid * grid != tokens:
        raise ValueError(f"mar.diffusion_pos_embed_learned has {tokens} places, which do not make a square")
    return MarConfig(
        encoder_width=weights["mar.z_proj.weight"].shape[0],
        encoder_depth=_count(weights, r"mar\.encoder_blocks\.(\d+)\."),
        encoder_heads=encoder_heads,
        encoder_mlp=weights["mar.encoder_blocks.0.mlp.fc1.weight"].shape[0],
        decoder_width=weights["mar.decoder_embed.weight"].shape[0],
        decoder_depth=_count(weights, r"mar\.decoder_blocks\.(\d+)\."),
        decoder_heads=decoder_heads,
        decoder_mlp=weights["mar.decoder_blocks.0.mlp.fc1.weight"].shape[0],
        buffer_tokens=weights["mar.encoder_pos_embed_learned"].shape[1] - tokens,
        grid=grid,
        head_width=weights["mar.diffloss.net.input_proj.weight"].shape[0],
        head_depth=_count(weights, r"mar\.diffloss\.net\.res_blocks\.(\d+)\."),
    )


def _llm_sizes(llm: Mapping[str, Any]) -> LlmConfig:
    rope = llm.get("rope_parameters") or llm.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    unsupported = [
        f"{name} {value!r}"
        for name, value, plain in (
            ("model_type", llm.get("model_type", "qwen2"), "qwen2"),
            ("hidden_act", llm.get("hidden_act", "silu"), "silu"),
            ("rope type", kind, "default"),
            ("use_sliding_window", bool(llm.get("use_sliding_window")), False),
            ("head_dim", llm.get("head_dim") or "even", "even"),
        )
        if value != plain
    ]
    if unsupported:
        raise ValueError(f"the language model has {', '.join(unsupported)}, which is not supported")
    return LlmConfig(
        vocab_size=llm["vocab_size"],
        width=llm["hidden_size"],
        mlp=llm["intermediate_size"],
        depth=llm["num_hidden_layers"],
        heads=llm["num_attention_heads"],
        kv_heads=llm.get("num_key_value_heads") or llm["num_attention_heads"],
        max_positions=llm["max_position_embeddings"],
        rope_theta=float(rope["rope_theta"] if "rope_theta" in rope else llm["rope_theta"]),
        norm_eps=llm["rms_norm_eps"],
        tied=bool(llm.get("tie_word_embeddings", False)),
    )


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """One more than the highest index that names of this pattern have; KeyError where there is none."""
    found = [int(match[1]) for name in tensors if (match := re.match(pattern, name))]
    if not found:
        raise KeyError(pattern.replace("\\", "").replace("(d+)", "0"))
    return max(found) + 1
