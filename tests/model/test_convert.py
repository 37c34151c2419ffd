from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.model.published_layout import HEADS, llm_json, published_weights, write_published
from tests.places import ROOT
from unipic.model import tensorfile
from unipic.model.checkpoint import CheckpointFault, digests, verify
from unipic.model.config import tiny
from unipic.model.convert import convert
from unipic.model.engine import Engine, GenerateItem, SamplingSettings

FAST = SamplingSettings(image_size=64, num_iterations=3, diffusion_steps=4)


@pytest.fixture
def parts(checkpoint: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    return published_weights(checkpoint)


def test_converting_changes_no_number(tmp_path: Path, checkpoint: Path, engine: Engine, parts: Any) -> None:
    weights, vae = parts
    src = write_published(tmp_path / "src", checkpoint, weights=weights, vae=vae)
    heard: list[tuple[str, int, int]] = []
    report = convert(src, tmp_path / "dst", **HEADS, progress=lambda *said: heard.append(said))
    assert report.digest == digests(tmp_path / "dst").checkpoint == engine.checkpoint_digest
    items = [GenerateItem("a red circle", 7)]
    assert np.array_equal(Engine.load(tmp_path / "dst").generate(items, FAST), engine.generate(items, FAST))
    assert heard[-1][1] == heard[-1][2] == report.weight_bytes
    assert len(heard) == report.tensors


def test_what_no_inference_path_reads_is_left_out_and_reported(tmp_path: Path, checkpoint: Path, parts: Any) -> None:
    weights, vae = parts
    src = write_published(tmp_path / "src", checkpoint, weights=weights, vae=vae)
    report = convert(src, tmp_path / "dst", **HEADS)
    assert report.skipped == (
        "mar.class_emb.weight",
        "siglip2.vision_model.post_layernorm.weight",
        "siglip2_proj.0.bias",
        "llm.lm_head.weight",
    )
    kept = {name for name, _ in tensorfile.read(tmp_path / "dst" / "weights.safetensors")}
    assert not kept & set(report.skipped)


def test_every_fault_of_the_weights_is_in_one_message(tmp_path: Path, checkpoint: Path, parts: Any) -> None:
    weights, vae = parts
    del weights["mar.decoder_norm.bias"], vae["decoder.conv_out.bias"]
    weights["mar.surprise"] = torch.zeros(2)
    weights["proj_in.0.bias"] = torch.zeros(3)
    src = write_published(tmp_path / "src", checkpoint, weights=weights, vae=vae)
    with pytest.raises(CheckpointFault, match="do not fit") as caught:
        convert(src, tmp_path / "dst", **HEADS)
    for said in (
        "missing mar.decoder_norm.bias",
        "missing vae.decoder.conv_out.bias",
        "unexpected mar.surprise",
        "proj_in.0.bias has shape (3,), not (64,)",
    ):
        assert said in str(caught.value)
    assert list(tmp_path.iterdir()) == [src]


def test_a_tensor_that_tells_a_size_is_named_when_it_is_missing(tmp_path: Path, checkpoint: Path, parts: Any) -> None:
    weights, vae = parts
    del weights["mar.z_proj.weight"]
    src = write_published(tmp_path / "src", checkpoint, weights=weights, vae=vae)
    with pytest.raises(CheckpointFault, match=r"missing mar\.z_proj\.weight"):
        convert(src, tmp_path / "dst", **HEADS)


def test_output_embeddings_that_are_not_tied_are_kept(tmp_path: Path, checkpoint: Path, parts: Any) -> None:
    weights, vae = parts
    weights["llm.lm_head.weight"] = weights["llm.lm_head.weight"] + 1
    changes = {"tie_word_embeddings": False}
    src = write_published(tmp_path / "src", checkpoint, weights=weights, vae=vae, llm_changes=changes)
    report = convert(src, tmp_path / "dst", **HEADS)
    assert "llm.lm_head.weight" not in report.skipped
    loaded = Engine.load(tmp_path / "dst").model.llm.lm_head.weight
    assert torch.equal(loaded, weights["llm.lm_head.weight"])


def test_tied_output_embeddings_that_differ_are_refused(tmp_path: Path, checkpoint: Path, parts: Any) -> None:
    weights, vae = parts
    weights["llm.lm_head.weight"] = weights["llm.lm_head.weight"] + 1
    src = write_published(tmp_path / "src", checkpoint, weights=weights, vae=vae)
    with pytest.raises(CheckpointFault, match=r"ties llm\.lm_head\.weight .* but they differ"):
        convert(src, tmp_path / "dst", **HEADS)


def test_the_language_models_folder_may_have_any_name(tmp_path: Path, checkpoint: Path, parts: Any) -> None:
    weights, vae = parts
    src = write_published(tmp_path / "src", checkpoint, weights=weights, vae=vae, llm_folder="language")
    convert(src, tmp_path / "dst", **HEADS)
    (src / "another").mkdir()
    (src / "another" / "config.json").write_text("{}")
    with pytest.raises(CheckpointFault, match="found another, language"):
        convert(src, tmp_path / "dst2", **HEADS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope type 'yarn'"),
        ({"use_sliding_window": True}, "use_sliding_window True"),
        ({"model_type": "llama"}, "model_type 'llama'"),
    ],
)
def test_a_language_model_we_do_not_compute_is_refused(
    tmp_path: Path, checkpoint: Path, parts: Any, changes: dict[str, Any], message: str
) -> None:
    weights, vae = parts
    src = write_published(tmp_path / "src", checkpoint, weights=weights, vae=vae, llm_changes=changes)
    with pytest.raises(CheckpointFault, match=message):
        convert(src, tmp_path / "dst", **HEADS)


class _Evil:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.witness,))


@pytest.mark.parametrize("file_name", ["pytorch_model.bin", "kl16.ckpt"])
@pytest.mark.parametrize("plain", [False, True], ids=["zip", "plain-pickle"])
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(
    tmp_path: Path, checkpoint: Path, parts: Any, file_name: str, plain: bool
) -> None:
    weights, vae = parts
    src = write_published(tmp_path / "src", checkpoint, weights=weights, vae=vae)
    body = {"model": _Evil(tmp_path / "witness")}
    if plain:
        (src / file_name).write_bytes(pickle.dumps(body))
    else:
        torch.save(body, src / file_name)
    with pytest.raises(CheckpointFault, match=file_name):
        convert(src, tmp_path / "dst", **HEADS)
    assert not (tmp_path / "witness").exists()


def test_a_file_cut_short_is_refused_by_name(tmp_path: Path, checkpoint: Path, parts: Any) -> None:
    weights, vae = parts
    src = write_published(tmp_path / "src", checkpoint, weights=weights, vae=vae)
    whole = (src / "kl16.ckpt").read_bytes()
    (src / "kl16.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointFault, match=r"kl16\.ckpt cannot be read"):
        convert(src, tmp_path / "dst", **HEADS)


def test_an_interrupted_conversion_leaves_nothing(tmp_path: Path, checkpoint: Path, parts: Any) -> None:
    weights, vae = parts
    src = write_published(tmp_path / "src", checkpoint, weights=weights, vae=vae)

    def interrupt(name: str, done_bytes: int, total_bytes: int) -> None:
        if done_bytes > total_bytes / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(src, tmp_path / "dst", **HEADS, progress=interrupt)
    assert list(tmp_path.iterdir()) == [src]


def test_an_existing_destination_is_left_alone(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(CheckpointFault, match="already exists"):
        convert(tmp_path, checkpoint, **HEADS)
    verify(checkpoint)


_CONVERT = "convert(Path(sys.argv[1]), Path(sys.argv[2]), encoder_heads=4, decoder_heads=4, vae_norm_groups=4)"
_LOAD = "loaded = load_model(Path(sys.argv[2]), device='cpu', dtype=torch.float32)"
_MEASURE = """
import resource, sys
from pathlib import Path
import torch
from unipic.model.convert import convert
from unipic.model.loading import load_model

def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

before = peak_bytes()
{work}
print(peak_bytes() - before)
"""


def grown_bytes(work: str, *folders: Path) -> int:
    """How much the peak of a fresh process grows by this work."""
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE.format(work=work), *map(str, folders)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return int(done.stdout)


def test_converting_and_loading_hold_hardly_more_than_the_weights(tmp_path: Path, checkpoint: Path, parts: Any) -> None:
    weights, vae = parts
    rows = 600_000  # a vocabulary that makes the file about 150 MB
    weights["llm.model.embed_tokens.weight"] = torch.zeros(rows, tiny().llm.width)
    del weights["llm.lm_head.weight"]
    changes = {"vocab_size": rows}
    src = write_published(tmp_path / "src", checkpoint, weights=weights, vae=vae, llm_changes=changes)
    largest_bytes = (src / "pytorch_model.bin").stat().st_size
    assert grown_bytes(_CONVERT, src, tmp_path / "dst") < 1.3 * largest_bytes
    assert grown_bytes(_LOAD, src, tmp_path / "dst") < 1.2 * largest_bytes


def test_bfloat16_weights_stay_bfloat16_on_disk(tmp_path: Path, checkpoint: Path, parts: Any) -> None:
    weights, vae = ({name: weight.bfloat16() for name, weight in part.items()} for part in parts)
    src = write_published(tmp_path / "src", checkpoint, weights=weights, vae=vae)
    report = convert(src, tmp_path / "dst", **HEADS)
    for name, weight in tensorfile.read(tmp_path / "dst" / "weights.safetensors"):
        assert weight.dtype == torch.bfloat16
        assert torch.equal(weight, weights[name])
    assert report.weight_bytes < (checkpoint / "weights.safetensors").stat().st_size


def test_the_two_spellings_of_rope_are_read_alike(tmp_path: Path, checkpoint: Path, parts: Any) -> None:
    weights, vae = parts
    llm = llm_json(tiny().llm)
    changes = {"rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": llm["rope_theta"]}}
    src = write_published(tmp_path / "src", checkpoint, weights=weights, vae=vae, llm_changes=changes)
    convert(src, tmp_path / "dst", **HEADS)
    written = json.loads((tmp_path / "dst" / "config.json").read_text())
    assert written["llm"]["rope_theta"] == llm["rope_theta"]
