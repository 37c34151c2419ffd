"""Sizes of the small checkpoint that ships with the package."""

from __future__ import annotations

from unipic.model.config import LlmConfig, MarConfig, ReplicaConfig, VaeConfig


def tiny_config(*, scale: float, vocab_size: int = 512) -> ReplicaConfig:
    """`scale`: scales the autoencoder's latents to unit spread; known after its training."""
    return ReplicaConfig(
        vae=VaeConfig(
            base_width=16,
            multipliers=(1, 1, 2, 4, 4),
            residual_blocks=1,
            z_channels=16,
            latent_channels=16,
            norm_groups=8,
            encoder_attention_levels=(4,),
            scale=scale,
        ),
        mar=MarConfig(
            encoder_width=128,
            encoder_depth=3,
            encoder_heads=4,
            encoder_mlp=384,
            decoder_width=128,
            decoder_depth=3,
            decoder_heads=4,
            decoder_mlp=384,
            buffer_tokens=4,
            grid=4,
            head_width=176,
            head_depth=3,
        ),
        llm=LlmConfig(
            vocab_size=vocab_size,
            width=128,
            mlp=384,
            depth=3,
            heads=4,
            kv_heads=2,
            max_positions=1024,
            rope_theta=1_000_000.0,
            norm_eps=1e-6,
            tied=True,
        ),
        max_prompt_tokens=256,
    )
