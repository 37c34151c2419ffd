"""An untrained checkpoint with the sizes and tokenizer of a trained one, as a control for its scores."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from unipic.model import tensorfile
from unipic.model.checkpoint import CONFIG_FILE, TOKENIZER_FOLDER, VAE_FILE, WEIGHTS_FILE, write_digests
from unipic.model.loading import VAE_PREFIX, load_config
from unipic.model.tiny.training.train_joint import initialise
from unipic.model.unipic import UniPic


def untrained_twin(folder: Path, out: Path, *, seed: int = 0) -> None:
    """Writes an untrained twin of the checkpoint in `folder` to `out`, which must not exist."""
    torch.manual_seed(seed)
    model = UniPic(load_config(folder))
    initialise(model)
    weights = model.state_dict()
    vae = {name.removeprefix(VAE_PREFIX): weights.pop(name) for name in list(weights) if name.startswith(VAE_PREFIX)}
    out.mkdir(parents=True)
    shutil.copyfile(folder / CONFIG_FILE, out / CONFIG_FILE)
    shutil.copytree(folder / TOKENIZER_FOLDER, out / TOKENIZER_FOLDER)
    tensorfile.write(out / WEIGHTS_FILE, weights)
    tensorfile.write(out / VAE_FILE, vae)
    write_digests(out)
