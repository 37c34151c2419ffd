"""Writes small checkpoints the way the published one is laid out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from unipic.model import config as sizes
from unipic.model.config import LlmConfig

LLM_FOLDER = "Qwen2.5-1.5B-Instruct"
HEADS = {"encoder_heads": 4, "decoder_heads": 4, "vae_norm_groups": 4}


def llm_json(llm: LlmConfig) -> dict[str, Any]:
    return {
        "model_type": "qwen2",
        "hidden_act": "silu",
        "vocab_size": llm.vocab_size,
        "hidden_size": llm.width,
        "intermediate_size": llm.mlp,
        "num_hidden_layers": llm.depth,
        "num_attention_heads": llm.heads,
        "num_key_value_heads": llm.kv_heads,
        "max_position_embeddings": llm.max_positions,
        "rope_theta": llm.rope_theta,
        "rope_scaling": None,
        "rms_norm_eps": llm.norm_eps,
        "tie_word_embeddings": llm.tied,
    }


def published_weights(checkpoint: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights of a checkpoint of ours with what the published one holds beside them, and those of its VAE."""
    weights = load_file(checkpoint / "weights.safetensors")
    weights["llm.lm_head.weight"] = weights["llm.model.embed_tokens.weight"]
    weights["mar.class_emb.weight"] = torch.zeros(10, 48)
    weights["siglip2.vision_model.post_layernorm.weight"] = torch.zeros(8)
    weights["siglip2_proj.0.bias"] = torch.zeros(64)
    return weights, load_file(checkpoint / "vae.safetensors")


def write_published(
    folder: Path,
    checkpoint: Path,
    *,
    weights: dict[str, Tensor],
    vae: dict[str, Tensor],
    llm_changes: dict[str, Any] | None = None,
    llm_folder: str = LLM_FOLDER,
) -> Path:
    (folder / llm_folder).mkdir(parents=True)
    torch.save(weights, folder / "pytorch_model.bin")
    torch.save({"model": vae}, folder / "kl16.ckpt")
    body = llm_json(sizes.read(checkpoint / "config.json").llm) | (llm_changes or {})
    (folder / llm_folder / "config.json").write_text(json.dumps(body))
    for path in (checkpoint / "tokenizer").iterdir():
        shutil.copy(path, folder / llm_folder / path.name)
    return folder
