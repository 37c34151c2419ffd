from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.places import ROOT
from unipic.model.checkpoint import CheckpointFault, digests, verify, write_digests
from unipic.model.config import from_json, published, tiny, to_json
from unipic.model.engine import Engine
from unipic.model.init_tiny import init_tiny
from unipic.model.loading import load_model


@pytest.fixture
def copy(tmp_path: Path, checkpoint: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def test_a_sound_checkpoint_verifies(checkpoint: Path) -> None:
    assert verify(checkpoint) == digests(checkpoint)


@pytest.mark.parametrize("name", ["weights.safetensors", "vae.safetensors", "config.json", "tokenizer/vocab.json"])
def test_one_changed_byte_is_found_and_its_file_named(copy: Path, name: str) -> None:
    body = bytearray((copy / name).read_bytes())
    body[-2] ^= 1
    (copy / name).write_bytes(body)
    with pytest.raises(CheckpointFault, match=f"{name} does not match its digest"):
        verify(copy)


def test_missing_and_extra_files_are_named(copy: Path) -> None:
    (copy / "tokenizer" / "merges.txt").unlink()
    (copy / "notes.txt").write_text("hello")
    with pytest.raises(CheckpointFault, match=r"merges\.txt is missing; notes\.txt is not listed"):
        verify(copy)


def test_a_digest_list_that_was_edited_is_refused(copy: Path) -> None:
    body = json.loads((copy / "digests.json").read_text())
    body["files"]["config.json"] = "0" * 64
    (copy / "digests.json").write_text(json.dumps(body))
    with pytest.raises(CheckpointFault, match="not that of the files it lists"):
        digests(copy)


def test_a_folder_that_is_no_checkpoint_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointFault, match=r"not a converted checkpoint: it has no digests\.json"):
        Engine.load(tmp_path)


def test_a_header_that_claims_too_much_is_a_fault_not_a_memory_blow_up(copy: Path) -> None:
    path = copy / "vae.safetensors"
    path.write_bytes(struct.pack("<Q", 2**60) + path.read_bytes()[8:])
    with pytest.raises(CheckpointFault, match=r"vae\.safetensors is not a valid safetensors file"):
        load_model(copy, device="cpu", dtype=torch.float32)


def test_overlapping_tensors_are_a_fault(copy: Path) -> None:
    header = {
        name: {"dtype": "F32", "shape": [4], "data_offsets": offsets}
        for name, offsets in (("a", [0, 16]), ("b", [8, 24]))
    }
    text = json.dumps(header).encode()
    (copy / "weights.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(24))
    with pytest.raises(CheckpointFault, match=r"weights\.safetensors is not a valid safetensors file"):
        load_model(copy, device="cpu", dtype=torch.float32)


def test_a_file_cut_short_is_a_fault(copy: Path) -> None:
    path = copy / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointFault, match=r"weights\.safetensors is not a valid safetensors file"):
        load_model(copy, device="cpu", dtype=torch.float32)


def test_loading_is_strict_and_lists_every_fault(copy: Path) -> None:
    weights = load_file(copy / "weights.safetensors")
    del weights["mar.mask_token"]
    weights["mar.extra"] = torch.zeros(1)
    weights["proj_out.0.bias"] = torch.zeros(1)
    save_file(weights, copy / "weights.safetensors")
    with pytest.raises(CheckpointFault, match="weights do not fit") as caught:
        load_model(copy, device="cpu", dtype=torch.float32)
    for said in ("unexpected mar.extra", "missing mar.mask_token", "proj_out.0.bias has shape (1,), not (64,)"):
        assert said in str(caught.value)


def test_a_config_with_an_unknown_or_missing_field_is_refused(copy: Path) -> None:
    body = json.loads((copy / "config.json").read_text())
    body["mar"]["colour"] = body["mar"].pop("grid")
    (copy / "config.json").write_text(json.dumps(body))
    with pytest.raises(CheckpointFault, match=r"mar\.grid is missing; mar\.colour is unknown"):
        load_model(copy, device="cpu", dtype=torch.float32)


def test_a_tokenizer_without_chat_tokens_is_refused(copy: Path) -> None:
    body = json.loads((copy / "tokenizer" / "tokenizer.json").read_text())
    body["added_tokens"] = []
    (copy / "tokenizer" / "tokenizer.json").write_text(json.dumps(body))
    settings = json.loads((copy / "tokenizer" / "tokenizer_config.json").read_text())
    for name in ("eos_token", "pad_token", "additional_special_tokens"):
        del settings[name]
    (copy / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointFault, match=r"no <\|im_start\|>"):
        Engine.load(copy)


def test_a_tokenizer_of_vocabulary_and_merges_alone_reads_the_same(copy: Path, engine: Engine) -> None:
    body = json.loads((copy / "tokenizer" / "tokenizer.json").read_text())
    added = {token["content"]: token["id"] for token in body["added_tokens"]}
    (copy / "tokenizer" / "added_tokens.json").write_text(json.dumps(added))
    (copy / "tokenizer" / "tokenizer.json").unlink()
    write_digests(copy)
    loaded = Engine.load(copy)
    assert loaded.prompts.generate("a red circle, two!") == engine.prompts.generate("a red circle, two!")


def test_sizes_survive_being_written_and_read() -> None:
    for config in (published(), tiny(), tiny(image_size=96)):
        assert from_json(to_json(config)) == config


def test_impossible_sizes_name_both_operands() -> None:
    text = to_json(tiny()).replace('"heads": 4', '"heads": 5')
    with pytest.raises(ValueError, match=r"width \(64\) must be divisible by heads \(5\)"):
        from_json(text)


def test_the_tiny_checkpoint_is_the_same_bytes_from_the_same_seed(tmp_path: Path, checkpoint: Path) -> None:
    assert init_tiny(tmp_path / "again") == digests(checkpoint).checkpoint
    assert init_tiny(tmp_path / "other", seed=1) != digests(checkpoint).checkpoint


def test_light_modules_load_no_torch() -> None:
    code = (
        "import sys, unipic.model.config, unipic.model.checkpoint, unipic.model.pixels\n"
        "assert not {'torch', 'ray', 'transformers'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
