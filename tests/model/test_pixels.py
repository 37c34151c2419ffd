from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from unipic.model import pixels

RED = (255, 0, 0)


def test_captioning_pads_to_a_square_with_grey_and_keeps_the_picture_centred() -> None:
    fitted = pixels.fit(Image.new("RGB", (32, 17), RED), task="caption", image_size=32)
    assert fitted.shape == (32, 32, 3)
    assert (fitted[:7] == 127).all()
    assert (fitted[7:24] == RED).all()
    assert (fitted[24:] == 127).all()


def test_editing_crops_the_centred_square() -> None:
    picture = Image.new("RGB", (33, 16), RED)
    picture.paste((0, 0, 255), (8, 0, 24, 16))
    assert (pixels.fit(picture, task="edit", image_size=16) == (0, 0, 255)).all()


def test_resizing_is_pillows_default() -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    expected = np.asarray(picture.resize((24, 24), Image.Resampling.BICUBIC))
    for task in ("edit", "caption"):
        assert np.array_equal(pixels.fit(picture, task=task, image_size=24), expected)


def test_a_very_long_strip_is_fitted_in_bounded_memory() -> None:
    fitted = pixels.fit(Image.new("RGB", (1_000_000, 2), RED), task="caption", image_size=16)
    assert fitted.shape == (16, 16, 3)
    assert (fitted[0] == 127).all()


def test_other_tasks_and_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="task must be edit or caption, got 'generate'"):
        pixels.fit(Image.new("RGB", (2, 2)), task="generate", image_size=16)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="image_size must be at least 1, got 0"):
        pixels.fit(Image.new("RGB", (2, 2)), task="edit", image_size=0)


def test_every_pixel_value_survives_the_way_in_and_out() -> None:
    values = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    there = pixels.to_tensor([values])
    assert there.shape == (1, 3, 16, 16)
    assert (there.min(), there.max()) == (-1, 1)
    back = pixels.to_uint8(there)[0].permute(1, 2, 0).numpy().astype(int)
    assert np.abs(back - values).max() <= 1


def test_values_beyond_the_range_are_clamped() -> None:
    assert pixels.to_uint8(torch.tensor([-9.0, 9.0])).tolist() == [0, 255]


@pytest.mark.parametrize(
    ("size", "inner"), [((300, 200), (24, 16)), ((200, 300), (16, 24)), ((24, 24), (24, 24)), ((9000, 1), (24, 1))]
)
def test_an_edit_that_pads_sees_the_whole_image_on_grey_and_gives_back_its_ratio(
    size: tuple[int, int], inner: tuple[int, int]
) -> None:
    fitted = pixels.fit(Image.new("RGB", size, RED), task="edit", image_size=24, pad=True)
    assert pixels.inner_size(*size, 24) == inner
    centre = pixels.unpadded(fitted, inner)
    assert centre.shape == (inner[1], inner[0], 3) and (centre == RED).all(), "no grey mixes into the image's edges"
    assert (fitted == pixels.GREY).all(axis=2).sum() == 24 * 24 - inner[0] * inner[1]
