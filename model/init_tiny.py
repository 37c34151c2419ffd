"""Creates a small checkpoint with random weights, for tests: the same seed gives the same bytes."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path

import numpy as np
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
from unipic.model.config import ReplicaConfig, tiny, to_json
from unipic.model.loading import VAE_PREFIX
from unipic.model.unipic import expected_shapes

_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_WORDS = (
    "user assistant Generate an image Repeat this Describe the in detail a red green blue yellow black white purple "
    "orange circle square triangle star heart cross ring diamond small large left right above below of on and two "
    "three four change make replace remove add with to it is what how many picture shape"
)
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SETTINGS = {
    "tokenizer_class": "Qwen2Tokenizer",
    "eos_token": "<|im_end|>",
    "pad_token": "<|endoftext|>",
    "unk_token": None,
    "bos_token": None,
    "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
    "model_max_length": 32768,
    "clean_up_tokenization_spaces": False,
}


def init_tiny(dst: Path, *, seed: int = 0, image_size: int = 64) -> str:
    """Writes a randomly initialised checkpoint to `dst`, which must not exist; returns its digest.

    `image_size`: in pixels, the size its positions are built for, a multiple of 16.
    """
    if dst.exists():
        raise CheckpointFault(f"{dst} already exists")
    vocabulary, merges = byte_pairs()
    config = tiny(image_size=image_size, vocab_size=-(-(len(vocabulary) + len(_SPECIAL) + 1) // 64) * 64)
    building = dst.with_name(f".{dst.name}.{uuid.uuid4().hex}.partial")
    building.mkdir(parents=True)
    try:
        (building / CONFIG_FILE).write_text(to_json(config), encoding="utf-8")
        weights, vae = _random_weights(config, seed=seed)
        tensorfile.write(building / WEIGHTS_FILE, weights)
        tensorfile.write(building / VAE_FILE, vae)
        write_tokenizer(building / TOKENIZER_FOLDER, vocabulary, merges)
        digest = write_digests(building).checkpoint
        building.rename(dst)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return digest


def _random_weights(config: ReplicaConfig, *, seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    generator = np.random.Generator(np.random.Philox(key=seed))
    weights, vae = {}, {}
    for name, shape in sorted(expected_shapes(config).items()):
        values = generator.standard_normal(shape, dtype=np.float32)
        if len(shape) == 1:  # norms and biases: near their usual start, all different
            values = 0.02 * values + (1.0 if name.endswith("weight") else 0.0)
        elif "pos_embed" in name or "token" in name or "fake_latent" in name:
            values = 0.2 * values
        else:
            values = values / np.sqrt(np.prod(shape[1:]))
        tensor = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
        if name.startswith(VAE_PREFIX):
            vae[name.removeprefix(VAE_PREFIX)] = tensor
        else:
            weights[name] = tensor
    return weights, vae


def byte_pairs() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """All bytes, then the pairs that build each word, and each word after a space, from the left."""
    symbols = list(_byte_symbols())
    vocabulary = {symbol: index for index, symbol in enumerate(symbols)}
    merges: list[tuple[str, str]] = []
    for word in _WORDS.split():
        for spelled in (word, "Ġ" + word):
            built = spelled[0]
            for letter in spelled[1:]:
                if built + letter not in vocabulary:
                    vocabulary[built + letter] = len(vocabulary)
                    merges.append((built, letter))
                built += letter
    return vocabulary, merges


def _byte_symbols() -> list[str]:
    """The printable character that stands for each byte in byte-level vocabularies, printable bytes first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + rank) for rank in range(len(hidden))]


def write_tokenizer(folder: Path, vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> None:
    """Write a byte-level Qwen2 tokenizer; the chat tokens take the ids after the vocabulary's."""
    folder.mkdir(parents=True)
    added = [
        {
            "id": len(vocabulary) + rank,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for rank, token in enumerate(_SPECIAL)
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": _SPLIT}, "behavior": "Isolated", "invert": False}
    body = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": [list(pair) for pair in merges],
        },
    }
    _write_json(folder / "tokenizer.json", body)
    _write_json(folder / "tokenizer_config.json", _SETTINGS)
    _write_json(folder / "vocab.json", vocabulary)
    lines = "".join(f"{left} {right}\n" for left, right in merges)
    (folder / "merges.txt").write_text("#version: 0.2\n" + lines, encoding="utf-8")


def _write_json(path: Path, body: object) -> None:
    path.write_text(json.dumps(body, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
