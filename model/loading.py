"""Loads a converted checkpoint strictly, without a second copy of the weights in memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from unipic.model import config as sizes
from unipic.model import tensorfile
from unipic.model.checkpoint import (
    CONFIG_FILE,
    MAX_BYTES,
    TOKENIZER_FOLDER,
    VAE_FILE,
    WEIGHTS_FILE,
    CheckpointFault,
    check_size,
    read_small,
)
from unipic.model.config import ReplicaConfig
from unipic.model.prompts import PromptWriter
from unipic.model.unipic import UniPic, assemble

VAE_PREFIX = "vae."


def load_config(folder: Path) -> ReplicaConfig:
    """Raises CheckpointFault if `config.json` is missing or invalid."""
    path = folder / CONFIG_FILE
    try:
        return sizes.from_json(read_small(path, CONFIG_FILE))
    except FileNotFoundError:
        raise CheckpointFault(f"{folder} is not a converted checkpoint: it has no {CONFIG_FILE}") from None
    except CheckpointFault:
        raise
    except (ValueError, TypeError, RecursionError, OSError) as fault:
        raise CheckpointFault(f"{path} cannot be used: {fault}") from fault


def load_model(folder: Path, *, device: torch.device | str, dtype: torch.dtype) -> UniPic:
    """Raises CheckpointFault for files that are damaged or weights that do not fit `config.json`."""
    config = load_config(folder)
    weights = itertools.chain(
        tensorfile.read(folder / WEIGHTS_FILE),
        tensorfile.read(folder / VAE_FILE, prefix=VAE_PREFIX),
    )
    try:
        return assemble(config, _floats(weights), device=device, dtype=dtype)
    except CheckpointFault:
        raise
    except ValueError as fault:
        raise CheckpointFault(f"{folder}: {fault}") from fault


def _floats(weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    for name, weight in weights:
        if not weight.is_floating_point():
            raise CheckpointFault(f"{name} has dtype {weight.dtype}, which no weight has")
        yield name, weight


def load_prompts(folder: Path) -> PromptWriter:
    """Raises CheckpointFault if the tokenizer is missing or does not belong to a chat model."""
    path = folder / TOKENIZER_FOLDER
    if not path.is_dir():
        raise CheckpointFault(f"{folder} has no {TOKENIZER_FOLDER}/")
    for file in path.iterdir():
        name = f"{TOKENIZER_FOLDER}/{file.name}"
        if name not in MAX_BYTES:
            raise CheckpointFault(f"{file} is no file of a checkpoint's tokenizer")
        check_size(name, file.stat().st_size, where=str(path))
    try:
        return PromptWriter(path)
    except Exception as fault:  # whatever the library raises, these files are the cause
        raise CheckpointFault(f"{path} cannot be used: {type(fault).__name__}: {fault}") from fault
