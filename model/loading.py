"""Loads a converted checkpoint strictly, without a second copy of the weights in memory."""

from __future__ import annotations

import itertools
from pathlib import Path

import torch

from unipic.model import config as sizes
from unipic.model import tensorfile
from unipic.model.checkpoint import CONFIG_FILE, TOKENIZER_FOLDER, VAE_FILE, WEIGHTS_FILE, CheckpointFault
from unipic.model.config import ReplicaConfig
from unipic.model.prompts import PromptWriter
from unipic.model.unipic import UniPic, assemble

VAE_PREFIX = "vae."


def load_config(folder: Path) -> ReplicaConfig:
    """Raises CheckpointFault if `config.json` is missing or invalid."""
    path = folder / CONFIG_FILE
    try:
        return sizes.read(path)
    except FileNotFoundError:
        raise CheckpointFault(f"{folder} is not a converted checkpoint: it has no {CONFIG_FILE}") from None
    except (ValueError, TypeError) as fault:
        raise CheckpointFault(f"{path} cannot be used: {fault}") from fault


def load_model(folder: Path, *, device: torch.device | str, dtype: torch.dtype) -> UniPic:
    """Raises CheckpointFault for files that are damaged or weights that do not fit `config.json`."""
    config = load_config(folder)
    weights = itertools.chain(
        tensorfile.read(folder / WEIGHTS_FILE),
        tensorfile.read(folder / VAE_FILE, prefix=VAE_PREFIX),
    )
    try:
        return assemble(config, weights, device=device, dtype=dtype)
    except CheckpointFault:
        raise
    except ValueError as fault:
        raise CheckpointFault(f"{folder}: {fault}") from fault


def load_prompts(folder: Path) -> PromptWriter:
    """Raises CheckpointFault if the tokenizer is missing or does not belong to a chat model."""
    path = folder / TOKENIZER_FOLDER
    if not path.is_dir():
        raise CheckpointFault(f"{folder} has no {TOKENIZER_FOLDER}/")
    try:
        return PromptWriter(path)
    except (ValueError, OSError) as fault:
        raise CheckpointFault(f"{path} cannot be used: {fault}") from fault
