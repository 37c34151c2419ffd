"""Scenes of flat shapes on a plain background, as data, and their deterministic anti-aliased rendering.

A scene has four places, the centres of the image's quadrants, so that at 64 px each place is 2 × 2 image tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "ring", "diamond")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 30, 35),
    "orange": (250, 135, 20),
    "yellow": (240, 220, 40),
    "green": (35, 150, 50),
    "cyan": (40, 205, 225),
    "blue": (35, 70, 220),
    "purple": (130, 45, 170),
    "pink": (250, 120, 195),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "silver": (185, 185, 185),
    "dark": (30, 30, 36),
}
# Half the extent of a shape, as a share of the image's side: 9 and 13 px at 64 px.
RADII: dict[str, float] = {"small": 9 / 64, "large": 13 / 64}
# (x, y) of the four places, as shares of the image's side, in raster order.
PLACES: tuple[tuple[float, float], ...] = ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75))
SUPERSAMPLING = 4


@dataclass(frozen=True, order=True)
class Thing:
    """One shape: names from SHAPES, COLOURS and RADII; `x`, `y` its centre as shares of the image's side."""

    shape: str
    colour: str
    size: str
    x: float
    y: float


@dataclass(frozen=True)
class Scene:
    """One to four things on a plain background (a name from BACKGROUNDS)."""

    things: tuple[Thing, ...]
    background: str


def thing_at(place: int, *, shape: str, colour: str, size: str) -> Thing:
    """The thing at one of the four places (0…3, raster order)."""
    x, y = PLACES[place]
    return Thing(shape=shape, colour=colour, size=size, x=x, y=y)


def place_of(thing: Thing) -> int:
    """The place (0…3) nearest to a thing's centre."""
    return 2 * int(thing.y >= 0.5) + int(thing.x >= 0.5)


def _polygon(corners: list[tuple[float, float]]) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    def inside(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        odd = np.zeros(np.broadcast(u, v).shape, dtype=bool)
        for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
            if y0 == y1:  # a level edge crosses no horizontal ray
                continue
            crosses = (y0 > v) != (y1 > v)
            odd ^= crosses & (u < (x1 - x0) * (v - y0) / (y1 - y0) + x0)
        return odd

    return inside


def _star_corners() -> list[tuple[float, float]]:
    corners = []
    for k in range(10):
        radius, angle = (1.05 if k % 2 == 0 else 0.45), math.pi * k / 5
        corners.append((radius * math.sin(angle), 0.05 - radius * math.cos(angle)))
    return corners


def _heart(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    x, y = 1.15 * u, 0.12 - 1.15 * v
    inside: np.ndarray = (x**2 + y**2 - 1) ** 3 - x**2 * y**3 <= 0
    return inside


# Each outline as a test of points; u runs right, v down, and the shape fills about [-1, 1]².
_OUTLINES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "circle": lambda u, v: u**2 + v**2 <= 1,
    "square": lambda u, v: np.maximum(np.abs(u), np.abs(v)) <= 0.85,
    "triangle": _polygon([(0.0, -0.95), (1.0, 0.85), (-1.0, 0.85)]),
    "star": _polygon(_star_corners()),
    "heart": _heart,
    "cross": lambda u, v: (np.minimum(np.abs(u), np.abs(v)) <= 0.3) & (np.maximum(np.abs(u), np.abs(v)) <= 0.97),
    "ring": lambda u, v: (u**2 + v**2 <= 1) & (u**2 + v**2 >= 0.55**2),
    "diamond": lambda u, v: np.abs(u) + np.abs(v) <= 1.0,
}


@lru_cache(maxsize=1024)
def coverage(shape: str, *, x: float, y: float, radius: float, image_size: int) -> np.ndarray:
    """How much of each pixel a shape covers: (image_size, image_size) float32 in [0, 1], read-only.

    `x`, `y` and `radius` are shares of the image's side.
    """
    fine = (np.arange(image_size * SUPERSAMPLING) + 0.5) / (image_size * SUPERSAMPLING)
    u, v = (fine[None, :] - x) / radius, (fine[:, None] - y) / radius
    inside = _OUTLINES[shape](u, v)
    blocks = inside.reshape(image_size, SUPERSAMPLING, image_size, SUPERSAMPLING)
    covered: np.ndarray = blocks.mean(axis=(1, 3), dtype=np.float32)
    covered.setflags(write=False)
    return covered


def render(scene: Scene, *, image_size: int = 64) -> np.ndarray:
    """The scene's image: (image_size, image_size, 3) uint8 RGB. Later things lie over earlier ones."""
    canvas = np.empty((image_size, image_size, 3), dtype=np.float32)
    canvas[:] = BACKGROUNDS[scene.background]
    for thing in scene.things:
        alpha = coverage(thing.shape, x=thing.x, y=thing.y, radius=RADII[thing.size], image_size=image_size)[..., None]
        canvas += alpha * (np.asarray(COLOURS[thing.colour], dtype=np.float32) - canvas)
    return np.rint(canvas).astype(np.uint8)
