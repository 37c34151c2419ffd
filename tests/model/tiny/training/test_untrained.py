from __future__ import annotations

from pathlib import Path

import numpy as np

from unipic.model.checkpoint import CONFIG_FILE, digests, verify
from unipic.model.engine import Engine, GenerateItem, SamplingSettings
from unipic.model.init_tiny import init_tiny
from unipic.model.tiny.training.untrained import untrained_twin


def test_an_untrained_twin_has_the_same_sizes_and_tokens_and_other_weights(tmp_path: Path) -> None:
    init_tiny(tmp_path / "one")
    untrained_twin(tmp_path / "one", tmp_path / "twin")
    untrained_twin(tmp_path / "one", tmp_path / "again")
    verify(tmp_path / "twin")
    one, twin = digests(tmp_path / "one").files, digests(tmp_path / "twin").files
    assert {name for name in one if one[name] == twin[name]} >= {CONFIG_FILE, "tokenizer/tokenizer.json"}
    assert one["weights.safetensors"] != twin["weights.safetensors"]
    assert digests(tmp_path / "twin") == digests(tmp_path / "again")
    settings = SamplingSettings(image_size=64, num_iterations=2, diffusion_steps=3)
    picture = Engine.load(tmp_path / "twin").generate([GenerateItem("a photo of a ring", seed=1)], settings)
    assert picture.shape == (1, 64, 64, 3) and picture.dtype == np.uint8
