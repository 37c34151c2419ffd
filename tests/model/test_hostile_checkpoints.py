"""Checkpoints from anywhere: whatever is in their files ends in a fault that names it, in bounded time and memory."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from unipic.model import checkpoint as files
from unipic.model.checkpoint import CheckpointFault, digest_of_files, digests, parse_digests, verify, write_digests
from unipic.model.loading import load_config, load_model, load_prompts

DEEP = "[" * 200_000


@pytest.fixture
def copy(tmp_path: Path, checkpoint: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def listed(names: dict[str, Any], **more: Any) -> bytes:
    good = {name: digest for name, digest in names.items() if isinstance(digest, str)}
    return json.dumps({"files": names, "checkpoint": digest_of_files(good), **more}).encode()


# --- digests.json ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "/etc/cron.d/x",
        "../x",
        "tokenizer/../../x",
        "tokenizer/./vocab.json",
        "tokenizer\\vocab.json",
        "C:\\x",
        "",
        ".",
        "weights.safetensors\0",
        "digests.json",
        "README.md",
        "model.py",
        "tokenizer/tokenization_evil.py",
        "pytorch_model.bin",
        "CONFIG.JSON",
    ],
)
def test_a_name_that_no_checkpoint_has_is_refused(name: str) -> None:
    data = listed({"config.json": "0" * 64, name: "1" * 64})
    with pytest.raises(CheckpointFault, match=r"digests\.json lists .* which is no file of a checkpoint"):
        parse_digests(data, where="digests.json")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"{", "not valid JSON"),
        (DEEP[:50_000].encode(), "not valid JSON"),
        (b"[]", "lists no files"),
        (b"null", "lists no files"),
        (b"{}", "lists no files"),
        (b'{"files": []}', "lists no files"),
        (b'{"files": {}}', "lists no files"),
        (listed({"config.json": 7}), "not a SHA-256"),
        (listed({"config.json": "0" * 63}), "not a SHA-256"),
        (listed({"config.json": "A" * 64}), "not a SHA-256"),
        (listed({"config.json": "0" * 64}, checkpoint="../../x"), "not that of the files it lists"),
        (listed({"config.json": "0" * 64}, checkpoint=None), "not that of the files it lists"),
        (listed({"config.json": "0" * 64}, sizes=[]), "lists no files"),
        (listed({"config.json": "0" * 64}, sizes={"vae.safetensors": 1}), "size of each"),
        (listed({"config.json": "0" * 64}, sizes={"config.json": -1}), "cannot have -1 bytes"),
        (listed({"config.json": "0" * 64}, sizes={"config.json": 2**60}), "cannot have 1152921504606846976 bytes"),
        (listed({"config.json": "0" * 64}, sizes={"config.json": True}), "cannot have True bytes"),
        (listed({"config.json": "0" * 64}, sizes={"config.json": "9"}), "cannot have '9' bytes"),
        (b" " * (files.MAX_DIGESTS_BYTES + 1), "more than the 65,536 allowed"),
    ],
)
def test_a_damaged_list_of_digests_is_a_fault(data: bytes, words: str) -> None:
    with pytest.raises(CheckpointFault, match=words):
        parse_digests(data, where="digests.json")


def test_a_list_without_sizes_is_still_read(copy: Path) -> None:
    body = json.loads((copy / "digests.json").read_text())
    whole = digests(copy)
    del body["sizes"]
    (copy / "digests.json").write_text(json.dumps(body))
    assert verify(copy).checkpoint == whole.checkpoint and digests(copy).sizes == {}


def test_a_file_of_another_size_is_named_before_it_is_hashed(copy: Path) -> None:
    with (copy / "weights.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(CheckpointFault, match=r"weights\.safetensors does not match its digest: it has"):
        verify(copy)


# --- config.json -----------------------------------------------------------------------------------------------


def changed(part: str, key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda body: body[part].update({key: value})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (changed("mar", "encoder_depth", 10**9), "encoder_depth must be at most 1,024"),
        (changed("llm", "depth", 10**300), "depth must be at most 1,024"),
        (changed("llm", "vocab_size", 2**40), "vocab_size must be at most"),
        (changed("llm", "width", "64"), "width must be at least 1, got '64'"),
        (changed("llm", "width", 64.0), "width must be at least 1, got 64.0"),
        (changed("llm", "heads", True), "heads must be at least 1, got True"),
        (changed("llm", "rope_theta", float("inf")), "rope_theta"),
        (changed("llm", "rope_theta", "x"), "config.json cannot be used"),
        (changed("vae", "multipliers", [1] * 100), "multipliers must be 1 to 10 numbers"),
        (changed("vae", "multipliers", 7), "config.json cannot be used"),
        (changed("vae", "multipliers", [[1]]), "config.json cannot be used"),
        (changed("vae", "scale", float("nan")), "scale must be positive"),
        (changed("vae", "residual_blocks", 2**20), "residual_blocks must be at most 1,024"),
        (lambda body: body.update(llm=[]), "llm must be an object"),
        (lambda body: body.update(max_prompt_tokens=None), "max_prompt_tokens must be at least 1"),
    ],
)
def test_sizes_that_no_replica_has_are_refused_before_anything_is_built(
    copy: Path, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    body = json.loads((copy / "config.json").read_text())
    change(body)
    (copy / "config.json").write_text(json.dumps(body))
    with pytest.raises(CheckpointFault, match=words):
        load_config(copy)


@pytest.mark.parametrize("text", ["", "null", "[]", DEEP, '{"format": "other"}', " " * 2**21])
def test_a_config_that_is_none_is_a_fault(copy: Path, text: str) -> None:
    (copy / "config.json").write_text(text)
    with pytest.raises(CheckpointFault, match=r"config\.json"):
        load_config(copy)


# --- safetensors -----------------------------------------------------------------------------------------------


def safetensors(header: Any, body: bytes, *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def entry(dtype: str, shape: list[Any], start: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


HOSTILE_TENSORS = {
    "empty": b"",
    "no header": b"\1\2\3",
    "a header longer than the file": safetensors({}, b"", length=10**6),
    "a header of 2**63 bytes": safetensors({}, b"", length=2**63),
    "a header over 100 MB": struct.pack("<Q", 101_000_000) + b" " * 101_000_000,
    "no JSON": safetensors(b"not json", b""),
    "deep JSON": safetensors(DEEP.encode(), b""),
    "a list": safetensors([], b""),
    "an offset outside": safetensors({"a": entry("F32", [4], 0, 2**40)}, bytes(16)),
    "offsets the wrong way": safetensors({"a": entry("F32", [4], 16, 0)}, bytes(16)),
    "a negative offset": safetensors({"a": entry("F32", [4], -16, 0)}, bytes(16)),
    "overlapping tensors": safetensors({"a": entry("F32", [4], 0, 16), "b": entry("F32", [4], 8, 24)}, bytes(24)),
    "a hole": safetensors({"a": entry("F32", [4], 0, 16), "b": entry("F32", [4], 32, 48)}, bytes(48)),
    "bytes behind the last tensor": safetensors({"a": entry("F32", [4], 0, 16)}, bytes(1000)),
    "a shape that does not fit": safetensors({"a": entry("F32", [5], 0, 16)}, bytes(16)),
    "a shape that overflows": safetensors({"a": entry("F32", [2**33, 2**33], 0, 16)}, bytes(16)),
    "a negative shape": safetensors({"a": entry("F32", [-4], 0, 16)}, bytes(16)),
    "an unknown dtype": safetensors({"a": entry("PICKLE", [4], 0, 16)}, bytes(16)),
    "a pickle": b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR.",
}


@pytest.mark.parametrize("what", HOSTILE_TENSORS)
@pytest.mark.parametrize("name", ["weights.safetensors", "vae.safetensors"])
def test_hostile_safetensors_are_a_fault_that_names_the_file_or_its_tensors(copy: Path, name: str, what: str) -> None:
    (copy / name).write_bytes(HOSTILE_TENSORS[what])
    with pytest.raises(CheckpointFault, match=rf"{name} is not a valid safetensors file|weights do not fit"):
        load_model(copy, device="cpu", dtype=torch.float32)
    assert not Path("pwned").exists()


def test_integers_in_the_place_of_a_weight_are_a_fault(copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "vae.safetensors")
    name = min(weights)
    save_file(weights | {name: torch.zeros(weights[name].shape, dtype=torch.int64)}, copy / "vae.safetensors")
    with pytest.raises(CheckpointFault, match="int64"):
        load_model(copy, device="cpu", dtype=torch.float32)


# --- tokenizer -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("text", ["", "null", "[]", "7", DEEP, '{"model": {"type": "BPE", "vocab": 7}}'])
def test_a_hostile_tokenizer_is_a_fault(copy: Path, name: str, text: str) -> None:
    (copy / "tokenizer" / name).write_text(text)
    try:
        load_prompts(copy)
    except CheckpointFault as fault:
        assert "tokenizer" in str(fault)
    else:
        assert name == "tokenizer_config.json", "its settings are optional, the tokens are not"


def test_code_beside_a_tokenizer_is_refused_and_never_run(copy: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    (copy / "tokenizer" / "tokenization_evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass Evil: pass\n")
    settings = json.loads((copy / "tokenizer" / "tokenizer_config.json").read_text())
    settings |= {"auto_map": {"AutoTokenizer": ["tokenization_evil.Evil", None]}, "tokenizer_class": "Evil"}
    (copy / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointFault, match=r"tokenization_evil\.py is no file of a checkpoint's tokenizer"):
        load_prompts(copy)
    (copy / "tokenizer" / "tokenization_evil.py").unlink()
    with pytest.raises(CheckpointFault, match="tokenizer cannot be used"):
        load_prompts(copy)
    assert not mark.exists()


def test_a_tokenizer_larger_than_any_is_refused_unread(copy: Path) -> None:
    os.truncate(copy / "tokenizer" / "tokenizer.json", 2**40)  # a sparse file: reading it would take all memory
    with pytest.raises(CheckpointFault, match=r"tokenizer/tokenizer\.json cannot have 1099511627776 bytes"):
        load_prompts(copy)


def test_what_is_written_passes_what_is_read(copy: Path) -> None:
    written = write_digests(copy)
    assert verify(copy) == written
    assert written.sizes.keys() == written.files.keys()
