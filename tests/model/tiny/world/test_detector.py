from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image, ImageFilter

from unipic.model.tiny.world.detector import UNKNOWN, detect
from unipic.model.tiny.world.scene import BACKGROUNDS, COLOURS, RADII, SHAPES, Scene, Thing, render, thing_at


def _any_scene(rng: random.Random) -> Scene:
    things = [
        thing_at(place, shape=rng.choice(SHAPES), colour=rng.choice(tuple(COLOURS)), size=rng.choice(tuple(RADII)))
        for place in sorted(rng.sample(range(4), rng.randint(1, 4)))
    ]
    return Scene(tuple(things), rng.choice(tuple(BACKGROUNDS)))


def _read_right(scene: Scene, picture: np.ndarray) -> bool:
    sight = detect(picture)
    seen = [(thing.shape, thing.colour) for thing in sight.things]
    placed = all(
        abs(thing.x - found.x) < 0.05 and abs(thing.y - found.y) < 0.05
        for thing, found in zip(scene.things, sight.things, strict=False)
    )
    return placed and sight.background == scene.background and seen == [(t.shape, t.colour) for t in scene.things]


def _share_read_right(*, scenes: int, blur_px: float = 0.0, noise: float = 0.0, image_size: int = 64) -> float:
    rng, generator = random.Random(11), np.random.default_rng(11)
    right = 0
    for _ in range(scenes):
        scene = _any_scene(rng)
        picture = Image.fromarray(render(scene, image_size=image_size)).filter(ImageFilter.GaussianBlur(blur_px))
        noisy = np.asarray(picture) + generator.normal(0, noise, (image_size, image_size, 3))
        right += _read_right(scene, np.clip(noisy, 0, 255).astype(np.uint8))
    return right / scenes


def test_two_thousand_rendered_scenes_are_read_right_but_for_one_in_two_hundred() -> None:
    assert _share_read_right(scenes=2000) >= 0.995


def test_blur_and_noise_of_an_autoencoder_change_little() -> None:
    assert _share_read_right(scenes=300, blur_px=1.0, noise=12.0) >= 0.98


def test_other_picture_sizes_are_read_as_well() -> None:
    assert _share_read_right(scenes=100, image_size=128) >= 0.99


@pytest.mark.parametrize("shape", SHAPES)
def test_a_thing_away_from_the_four_places_is_found_where_it_stands(shape: str) -> None:
    scene = Scene((Thing(shape=shape, colour="green", size="large", x=0.42, y=0.58),), "white")
    assert _read_right(scene, render(scene))


def test_a_blank_picture_shows_nothing() -> None:
    assert detect(render(Scene((), "dark"))).things == ()


def test_a_shape_and_a_colour_that_are_none_of_ours_are_called_unknown() -> None:
    picture = np.full((64, 64, 3), 255, dtype=np.uint8)
    picture[28:34, 6:58] = (110, 110, 110)  # a long grey bar
    (bar,) = detect(picture).things
    assert bar.shape == UNKNOWN and bar.colour == UNKNOWN


def test_noise_of_no_picture_at_all_shows_no_scene() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    sight = detect(picture)
    assert sight.background == UNKNOWN or all(thing.shape == UNKNOWN for thing in sight.things)
