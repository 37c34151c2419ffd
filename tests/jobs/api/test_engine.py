"""The model alone, from Python: friendly inputs, batches of any size, and the images that a job would give."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import unipic


@pytest.fixture(scope="module")
def engine() -> unipic.Engine:
    return unipic.Engine.load(device="cpu")


@pytest.fixture
def image() -> Image.Image:
    return Image.new("RGB", (80, 60), (200, 30, 30))


def test_a_seed_gives_one_image_alone_or_among_others(engine: unipic.Engine) -> None:
    several = engine.generate(["a red circle", "a blue square"], seeds=[7, 8], num_iterations=4, diffusion_steps=5)
    alone = engine.generate(["a blue square"], seeds=[8], num_iterations=4, diffusion_steps=5)
    assert [one.size for one in several] == [(64, 64), (64, 64)]
    assert np.abs(np.asarray(several[1], np.int16) - np.asarray(alone[0], np.int16)).max() <= 1
    assert several[0].tobytes() != several[1].tobytes()


def test_batches_are_cut_to_what_fits(engine: unipic.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    generate = engine.model.generate
    monkeypatch.setattr(engine.model, "max_batch", lambda task, settings: 2)
    monkeypatch.setattr(engine.model, "generate", lambda items, how: sizes.append(len(items)) or generate(items, how))
    assert len(engine.generate(["a red circle"] * 5, num_iterations=1, diffusion_steps=1)) == 5
    assert sizes == [2, 2, 1]
    assert engine.generate([]) == []


def test_an_image_may_be_an_image_an_array_bytes_or_a_path(
    engine: unipic.Engine, image: Image.Image, tmp_path: Path
) -> None:
    image.save(tmp_path / "image.png")
    data = io.BytesIO()
    image.save(data, "png")
    kinds = [image, np.asarray(image), data.getvalue(), tmp_path / "image.png", str(tmp_path / "image.png")]
    assert len(set(engine.caption(kinds, max_new_tokens=6))) == 1
    edited = engine.edit(kinds[:2], ["make it blue", "make it blue"], seeds=[1, 1], num_iterations=2, diffusion_steps=2)
    assert edited[0].size == (64, 64) and edited[0].tobytes() == edited[1].tobytes()


def test_what_cannot_be_run_is_refused_by_name(engine: unipic.Engine, image: Image.Image, tmp_path: Path) -> None:
    with pytest.raises(unipic.RowError, match="prompt 1: the prompt is empty"):
        engine.generate(["a red circle", " "])
    with pytest.raises(unipic.RowError, match="of no known format"):
        engine.caption([b"no image"])
    with pytest.raises(unipic.ObjectMissing, match="missing\\.png"):
        engine.caption([tmp_path / "missing.png"])
    with pytest.raises(TypeError, match=r"write \['a red circle'\]"):
        engine.generate("a red circle")
    with pytest.raises(TypeError, match=r"write \[image\]"):
        engine.edit(image, "make it blue")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one seed for each item: 1 seeds, 2 items"):
        engine.generate(["a", "b"], seeds=[1])
    with pytest.raises(ValueError, match="one text for each image: 2 texts, 1 images"):
        engine.caption([image], ["what?", "where?"])
    with pytest.raises(ValueError, match="num_iterations must be at least 1, got 0"):
        engine.generate(["a red circle"], num_iterations=0)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(unipic.CheckpointError, match="is not a converted checkpoint"):
        unipic.Engine.load(tmp_path)
    with pytest.raises(unipic.CheckpointError, match="builtin:large"):
        unipic.Engine.load("builtin:large")
