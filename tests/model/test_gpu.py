"""What holds only where a GPU is: run on one, skipped elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unipic.model.bench import measure, random_engine
from unipic.model.config import published
from unipic.model.engine import CaptionItem, CaptionSettings, EditItem, Engine, GenerateItem, SamplingSettings
from unipic.model.memory import Load, estimate

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")

SAMPLING = SamplingSettings(image_size=64, num_iterations=6, diffusion_steps=10)
TWELVE_GB = 12 * 10**9


def test_a_gpu_answers_as_the_cpu_does(engine: Engine, checkpoint: Path) -> None:
    on_gpu = Engine.load(checkpoint, device="cuda")
    generated = [GenerateItem("a red circle", 1), GenerateItem("two small stars above a large ring", 2)]
    made = engine.generate(generated, SAMPLING)
    edited = [EditItem("make it blue", picture, seed) for seed, picture in enumerate(made)]
    pairs = [
        (on_gpu.generate(generated, SAMPLING), made),
        (on_gpu.edit(edited, SAMPLING), engine.edit(edited, SAMPLING)),
    ]
    for found, expected in pairs:
        assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1
    asked = [CaptionItem("what is it", picture) for picture in made]
    captioning = CaptionSettings(image_size=64, max_new_tokens=12)
    assert on_gpu.caption(asked, captioning) == engine.caption(asked, captioning)


def test_the_same_batch_is_the_same_bytes_twice(checkpoint: Path) -> None:
    on_gpu = Engine.load(checkpoint, device="cuda", dtype="bfloat16")
    items = [GenerateItem("a ring", seed) for seed in range(8)]
    assert np.array_equal(on_gpu.generate(items, SAMPLING), on_gpu.generate(items, SAMPLING))


@pytest.mark.parametrize("task", ["generate", "edit", "caption"])
def test_one_large_picture_at_published_size_stays_within_its_estimate_and_12_gb(task: Any) -> None:
    config = published()
    engine = random_engine(config, device="cuda", dtype="bfloat16")
    sampling = SamplingSettings(image_size=1024, num_iterations=2, diffusion_steps=4)
    captioning = CaptionSettings(image_size=1024, max_new_tokens=8)
    found = measure(engine, task, batch_size=1, batches=1, sampling=sampling, captioning=captioning).peak_bytes
    load = Load(task, 1, 1024, iterations=2, steps=4, new_tokens=8 if task == "caption" else 0)
    assert found < estimate(config, load, element_bytes=2).total_bytes
    assert found < TWELVE_GB
