"""Converts the published layout. Only this file reads pickles, with `weights_only`."""

from __future__ import annotations

import json
import pickle
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unipic.model import tensorfile
from unipic.model.checkpoint import (
    CONFIG_FILE,
    TOKENIZER_FOLDER,
    VAE_FILE,
    WEIGHTS_FILE,
    CheckpointFault,
    write_digests,
)
from unipic.model.config import ReplicaConfig, to_json
from unipic.model.sizes import read_sizes
from unipic.model.unipic import expected_shapes

Progress = Callable[[str, int, int], None]

MODEL_PICKLE = "pytorch_model.bin"
VAE_PICKLE = "kl16.ckpt"
LLM_FOLDER = "Qwen2.5-1.5B-Instruct"
# A vision tower and a class table that training used; no inference path reads them.
SKIPPED_PREFIXES = ("siglip2.", "siglip2_proj.", "mar.class_emb.")
_TIED = "llm.lm_head.weight"
_TIED_TO = "llm.model.embed_tokens.weight"
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
)
_ROW_CHUNK = 4096


@dataclass(frozen=True)
class ConvertReport:
    """Result of `convert`. `skipped`: weights that no inference path reads."""

    skipped: tuple[str, ...]
    tensors: int
    weight_bytes: int
    digest: str


def convert(
    src: Path,
    dst: Path,
    *,
    encoder_heads: int = 16,
    decoder_heads: int = 16,
    vae_scale: float = 0.2325,
    vae_norm_groups: int = 32,
    progress: Progress | None = None,
) -> ConvertReport:
    """Converts a checkpoint from the published layout.

    `src` holds `pytorch_model.bin`, `kl16.ckpt` and a language model's folder; `dst` must not exist, and appears only
    when complete. Arguments give what the tensors do not record. `progress` gets (name, bytes done, total bytes).
    Raises CheckpointFault, which lists every name that is missing, unexpected or mis-shaped.
    """
    if dst.exists():
        raise CheckpointFault(f"{dst} already exists")
    llm_folder = _llm_folder(src)
    llm = _read_json(llm_folder / "config.json")
    weights = _read_pickle(src / MODEL_PICKLE)
    vae = _read_pickle(src / VAE_PICKLE)
    if isinstance(vae.get("model"), Mapping):
        vae = vae["model"]
    weights, vae = _tensors(weights, MODEL_PICKLE), _tensors(vae, VAE_PICKLE)
    skipped = tuple(sorted(name for name in weights if name.startswith(SKIPPED_PREFIXES)))
    weights = {name: weight for name, weight in weights.items() if name not in skipped}
    try:
        config = read_sizes(
            weights,
            vae,
            llm,
            encoder_heads=encoder_heads,
            decoder_heads=decoder_heads,
            vae_scale=vae_scale,
            vae_norm_groups=vae_norm_groups,
        )
    except (KeyError, IndexError, ValueError, TypeError) as fault:
        raise CheckpointFault(f"{src}: cannot read the sizes: {_said(fault)}") from fault
    if config.llm.tied:
        skipped += _drop_tied(weights)
    _check(config, weights, vae)
    return _write(dst, config, weights, vae, skipped, llm_folder=llm_folder, progress=progress)


def _write(
    dst: Path,
    config: ReplicaConfig,
    weights: dict[str, Tensor],
    vae: dict[str, Tensor],
    skipped: tuple[str, ...],
    *,
    llm_folder: Path,
    progress: Progress | None,
) -> ConvertReport:
    # Written beside the target and renamed, so an interrupted conversion leaves no folder that looks complete.
    building = dst.with_name(f".{dst.name}.{uuid.uuid4().hex}.partial")
    total_bytes = sum(t.numel() * t.element_size() for part in (weights, vae) for t in part.values())
    done_bytes = 0

    def advance(name: str, size_bytes: int) -> None:
        nonlocal done_bytes
        done_bytes += size_bytes
        if progress:
            progress(name, done_bytes, total_bytes)

    building.mkdir(parents=True)
    try:
        (building / CONFIG_FILE).write_text(to_json(config), encoding="utf-8")
        tensorfile.write(building / WEIGHTS_FILE, weights, done=advance)
        tensorfile.write(building / VAE_FILE, vae, done=advance)
        (building / TOKENIZER_FOLDER).mkdir()
        for name in _TOKENIZER_FILES:
            if (llm_folder / name).is_file():
                shutil.copyfile(llm_folder / name, building / TOKENIZER_FOLDER / name)
        digest = write_digests(building).checkpoint
        building.rename(dst)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return ConvertReport(skipped=skipped, tensors=len(weights) + len(vae), weight_bytes=total_bytes, digest=digest)


def _llm_folder(src: Path) -> Path:
    named = src / LLM_FOLDER
    if (named / "config.json").is_file():
        return named
    found = sorted(path.parent for path in src.glob("*/config.json"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise CheckpointFault(f"{src} must hold {LLM_FOLDER}/, or one folder with a config.json; found {names}")
    return found[0]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as fault:
        raise CheckpointFault(f"{path} is not JSON: {fault}") from fault
    if not isinstance(body, dict):
        raise CheckpointFault(f"{path} must hold an object")
    return body


def _read_pickle(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointFault(f"{path} is missing")
    try:
        body = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as fault:
        raise CheckpointFault(
            f"{path} is refused: it contains more than tensors; nothing in it was run ({_first_line(fault)})"
        ) from fault
    except (RuntimeError, EOFError, ValueError) as fault:
        raise CheckpointFault(f"{path} cannot be read as tensors: {_first_line(fault)}") from fault
    if not isinstance(body, Mapping):
        raise CheckpointFault(f"{path} must hold named tensors, found {type(body).__name__}")
    return dict(body)


def _tensors(body: Mapping[str, Any], file_name: str) -> dict[str, Tensor]:
    wrong = sorted(str(name) for name, value in body.items() if not isinstance(value, Tensor))
    if wrong:
        raise CheckpointFault(f"{file_name} holds values that are not tensors: {', '.join(wrong)}")
    return dict(body)


def _drop_tied(weights: dict[str, Tensor]) -> tuple[str, ...]:
    if _TIED not in weights:
        return ()
    output, embedding = weights[_TIED], weights[_TIED_TO]
    same = output.shape == embedding.shape and all(
        torch.equal(output[row : row + _ROW_CHUNK], embedding[row : row + _ROW_CHUNK])
        for row in range(0, len(output), _ROW_CHUNK)
    )
    if not same:
        raise CheckpointFault(f"the configuration ties {_TIED} to {_TIED_TO}, but they differ")
    del weights[_TIED]
    return (_TIED,)


def _check(config: ReplicaConfig, weights: dict[str, Tensor], vae: dict[str, Tensor]) -> None:
    expected = expected_shapes(config)
    found = {name: tuple(weight.shape) for name, weight in weights.items()}
    found |= {f"vae.{name}": tuple(weight.shape) for name, weight in vae.items()}
    faults = [f"missing {name} {shape}" for name, shape in expected.items() if name not in found]
    faults += [f"unexpected {name} {shape}" for name, shape in found.items() if name not in expected]
    faults += [
        f"{name} has shape {found[name]}, not {shape}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    if faults:
        raise CheckpointFault("weights do not fit the published layout: " + "; ".join(faults))


def _first_line(fault: Exception) -> str:
    return str(fault).strip().split("\n", 1)[0]


def _said(fault: Exception) -> str:
    return f"missing {fault.args[0]}" if isinstance(fault, KeyError) else str(fault)
