"""What a row gets does not depend on the rows beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unipic.model import tasks
from unipic.model.engine import (
    CaptionItem,
    CaptionSettings,
    EditItem,
    Engine,
    GenerateItem,
    SamplingSettings,
    _options,
)
from unipic.model.pixels import to_tensor

PROMPTS = ["a red circle", "two small black hearts on the left of a large white square", "green ring", "three stars"]
SEEDS = [3, 2**64 - 1, 0, 17]
SHUFFLED = [2, 0, 3, 1]
SETTINGS = [
    pytest.param(SamplingSettings(image_size=64, num_iterations=5, diffusion_steps=6), id="guided"),
    pytest.param(
        SamplingSettings(image_size=64, num_iterations=5, diffusion_steps=6, guidance_schedule="linear"), id="linear"
    ),
    pytest.param(SamplingSettings(image_size=64, num_iterations=5, diffusion_steps=6, guidance=1.0), id="unguided"),
    pytest.param(SamplingSettings(image_size=96, num_iterations=3, diffusion_steps=6), id="resized-positions"),
]


def pictures(image_size: int) -> list[Any]:
    generator = np.random.default_rng(5)
    return [generator.integers(0, 256, (image_size, image_size, 3), dtype=np.uint8) for _ in PROMPTS]


def latents(engine: Engine, settings: SamplingSettings, rows: Sequence[int], *, task: str) -> torch.Tensor:
    grid = engine.config.grid_of(settings.image_size)
    noise = engine._noise([SEEDS[row] for row in rows], grid, settings)
    if task == "generate":
        return tasks.generate(
            engine.model,
            [engine.prompts.generate(PROMPTS[row]) for row in rows],
            engine.prompts.generate_unconditional(),
            grid=grid,
            noise=noise,
            options=_options(settings),
        )
    return tasks.edit(
        engine.model,
        [engine.prompts.edit(PROMPTS[row]) for row in rows],
        engine.prompts.edit_unconditional(),
        pixels=to_tensor([pictures(settings.image_size)[row] for row in rows]),
        noise=noise,
        options=_options(settings),
    )


def assert_same(engine: Engine, found: torch.Tensor, expected: torch.Tensor) -> None:
    # Random weights sample latents of several hundred: float32 rounds those by more than what pictures differ by.
    torch.testing.assert_close(found, expected, atol=2e-4 + 5e-6 * expected.abs().max().item(), rtol=0)
    with torch.inference_mode():
        pictures_found, pictures_expected = engine.model.vae.decode(torch.stack([found, expected]))
    torch.testing.assert_close(pictures_found, pictures_expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("task", ["generate", "edit"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_a_row_samples_the_same_alone_in_a_batch_and_shuffled(
    engine: Engine, settings: SamplingSettings, task: str
) -> None:
    together = latents(engine, settings, range(4), task=task)
    shuffled = latents(engine, settings, SHUFFLED, task=task)
    assert together.std() > 0.1
    for place, row in enumerate(SHUFFLED):
        alone = latents(engine, settings, [row], task=task)[0]
        assert_same(engine, together[row], alone)
        assert_same(engine, shuffled[place], alone)


def test_a_row_is_captioned_the_same_alone_in_a_batch_and_shuffled(engine: Engine) -> None:
    settings = CaptionSettings(image_size=64, max_new_tokens=20)
    items = [CaptionItem(prompt, picture) for prompt, picture in zip(PROMPTS, pictures(64), strict=True)]
    together = engine.caption(items, settings)
    assert len(set(together)) > 1
    assert [engine.caption([item], settings)[0] for item in items] == together
    assert engine.caption([items[row] for row in SHUFFLED], settings) == [together[row] for row in SHUFFLED]


def test_captions_of_rows_that_finish_early_leave_the_others_as_they_are(engine: Engine) -> None:
    writer, model = engine.prompts, engine.model
    prompts = [writer.caption(prompt) for prompt in PROMPTS]
    shown = to_tensor(pictures(64))
    free = tasks.caption(model, prompts, pixels=shown, end_id=-1, max_new_tokens=20)
    # Whatever token one row says early now ends every row that says it.
    end_id = free[0][2]
    stopped = tasks.caption(model, prompts, pixels=shown, end_id=end_id, max_new_tokens=20)
    assert stopped == [ids[: ids.index(end_id)] if end_id in ids else ids for ids in free]
    assert len({len(ids) for ids in stopped}) > 1


def test_rows_that_wait_for_a_free_place_are_captioned_as_all_at_once(engine: Engine) -> None:
    writer = engine.prompts
    prompts = [writer.caption(prompt) for prompt in PROMPTS]
    shown = to_tensor(pictures(64))
    free = tasks.caption(engine.model, prompts, pixels=shown, end_id=-1, max_new_tokens=20)
    end_id = free[0][2]
    together = tasks.caption(engine.model, prompts, pixels=shown, end_id=end_id, max_new_tokens=20)
    for places in (1, 2, 3):
        found = tasks.caption(engine.model, prompts, pixels=shown, end_id=end_id, max_new_tokens=20, places=places)
        assert found == together


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_task_runs_in_every_dtype(checkpoint: Path, dtype: str) -> None:
    engine = Engine.load(checkpoint, dtype=dtype)
    settings = SamplingSettings(image_size=64, num_iterations=4, diffusion_steps=5)
    made = engine.generate([GenerateItem(prompt, seed) for prompt, seed in zip(PROMPTS, SEEDS, strict=True)], settings)
    assert made.shape == (4, 64, 64, 3)
    assert made.dtype == np.uint8
    edited = engine.edit([EditItem("make it red", picture, 1) for picture in made], settings)
    assert edited.shape == made.shape
    answers = engine.caption(
        [CaptionItem("what is it", picture) for picture in edited], CaptionSettings(image_size=64, max_new_tokens=3)
    )
    assert len(answers) == 4


def test_the_same_call_gives_the_same_bytes_and_another_seed_or_prompt_others(engine: Engine) -> None:
    settings = SamplingSettings(image_size=64, num_iterations=4, diffusion_steps=5)
    first, again, seed, prompt = (
        engine.generate([item], settings)
        for item in (
            GenerateItem("a ring", 1),
            GenerateItem("a ring", 1),
            GenerateItem("a ring", 2),
            GenerateItem("a star", 1),
        )
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, seed)
    assert not np.array_equal(first, prompt)


def test_a_picture_of_the_wrong_size_is_refused_by_place(engine: Engine) -> None:
    item = CaptionItem("what", np.zeros((32, 64, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"picture 0 is \(32, 64, 3\) uint8, expected \(64, 64, 3\) uint8"):
        engine.caption([item], CaptionSettings(image_size=64))


def test_an_image_size_the_stride_does_not_divide_is_refused(engine: Engine) -> None:
    with pytest.raises(ValueError, match=r"image_size \(100\) must be a positive multiple of 16"):
        engine.generate([GenerateItem("a", 1)], SamplingSettings(image_size=100))
