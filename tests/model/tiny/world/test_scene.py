from __future__ import annotations

import random

import numpy as np
import pytest

from unipic.model.tiny.world.samplers import crowded_scene
from unipic.model.tiny.world.scene import BACKGROUNDS, COLOURS, RADII, SHAPES, Scene, coverage, render, thing_at


def test_a_scene_renders_to_the_same_pixels_every_time() -> None:
    scene = crowded_scene(random.Random(3), things=4)
    coverage.cache_clear()
    first = render(scene)
    coverage.cache_clear()
    assert np.array_equal(first, render(scene))


def test_a_picture_has_its_background_in_the_corners_and_the_colour_at_the_centre_of_a_thing() -> None:
    picture = render(Scene((thing_at(3, shape="square", colour="blue", size="large"),), "silver"))
    assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8
    assert tuple(picture[0, 0]) == BACKGROUNDS["silver"]
    assert tuple(picture[48, 48]) == COLOURS["blue"]


@pytest.mark.parametrize("image_size", [32, 64, 96, 160])
def test_a_thing_covers_the_same_share_of_the_picture_at_any_size(image_size: int) -> None:
    covered = coverage("heart", x=0.25, y=0.75, radius=RADII["large"], image_size=image_size)
    reference = coverage("heart", x=0.25, y=0.75, radius=RADII["large"], image_size=512)
    assert covered.mean() == pytest.approx(reference.mean(), rel=0.04)


@pytest.mark.parametrize("shape", SHAPES)
def test_edges_are_anti_aliased_and_no_shape_leaves_its_quadrant(shape: str) -> None:
    assert ((coverage(shape, x=0.74, y=0.26, radius=0.21, image_size=64) % 1) > 0).any()
    covered = coverage(shape, x=0.75, y=0.25, radius=RADII["large"], image_size=64)
    outside = covered.copy()
    outside[:32, 32:] = 0
    assert outside.sum() == 0
