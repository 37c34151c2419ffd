"""Pixels → things, without a model: segments what differs from the background, then matches outlines.

Each segment is moved to its centroid and scaled by the root of its area before it is compared with the eight outlines,
so neither place nor size, and little of a blur, enters the comparison.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from unipic.model.tiny.world.scene import BACKGROUNDS, COLOURS, SHAPES, coverage

UNKNOWN = "unknown"
# A pixel belongs to a segment when it lies this far (Euclidean, of 255) from the background.
_FOREGROUND = 60.0
# Segments smaller than this share of the image are specks: a small cross covers 2.6 % of it.
_SPECK_SHARE = 0.006
# Mean squared difference of coverage above which a segment is no known outline.
_OUTLINE_LIMIT = 0.06
# Euclidean distance (of 255) from the nearest colour above which a colour is unknown.
_COLOUR_LIMIT = 70.0
_GRID = 24
_REACH = 0.95  # half the side of the compared window, in roots of the area


@dataclass(frozen=True)
class Found:
    """A thing in an image; `shape` and `colour` may be UNKNOWN; `x`, `y`, `radius` are shares of the side."""

    shape: str
    colour: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Sight:
    """Content of an image: the name of its background (or UNKNOWN) and its things, in raster order of their centres."""

    background: str
    things: tuple[Found, ...]


def detect(picture: np.ndarray) -> Sight:
    """Read an image, (S, S, 3) uint8 with S of at least 32."""
    pixels = picture.astype(np.float32)
    frame = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    ground = np.median(frame, axis=0)
    distance = np.sqrt(((pixels - ground) ** 2).sum(axis=-1))
    things = []
    for segment in _segments(distance > _FOREGROUND):
        if segment.sum() >= _SPECK_SHARE * segment.size:
            things.append(_read_segment(pixels, ground, segment))
    things.sort(key=lambda found: (found.y >= 0.5, found.x))
    return Sight(background=_nearest(ground, BACKGROUNDS), things=tuple(things))


def _segments(mask: np.ndarray) -> list[np.ndarray]:
    """The 8-connected regions of a (S, S) bool mask."""
    size = mask.shape[0]
    labels = np.zeros((size + 2, size + 2), dtype=np.int32)
    inner = labels[1:-1, 1:-1]
    inner[mask] = np.arange(1, int(mask.sum()) + 1)
    while True:
        highest = labels.copy()
        for axis in (0, 1):  # separable: the greatest of the 3 × 3 neighbourhood
            forward, backward = np.roll(highest, 1, axis=axis), np.roll(highest, -1, axis=axis)
            highest = np.maximum(highest, np.maximum(forward, backward))
        spread = np.where(mask, highest[1:-1, 1:-1], 0)
        if np.array_equal(spread, inner):
            break
        inner[:] = spread
    return [inner == label for label in np.unique(inner[mask])]


def _nearest(colour: np.ndarray, palette: dict[str, tuple[int, int, int]]) -> str:
    distances = {name: float(np.linalg.norm(colour - np.asarray(value))) for name, value in palette.items()}
    best = min(distances, key=lambda name: distances[name])
    return best if distances[best] <= _COLOUR_LIMIT else UNKNOWN


def _read_segment(pixels: np.ndarray, ground: np.ndarray, segment: np.ndarray) -> Found:
    size = segment.shape[0]
    inside = pixels[segment]
    # Edges do not mix the pixels farthest from the background.
    away = ((inside - ground) ** 2).sum(axis=-1)
    colour = np.median(inside[away >= np.quantile(away, 0.5)], axis=0)
    axis = colour - ground
    near = _grown(_grown(segment))
    # Not clipped at 0 and 1 yet, so that noise around them cancels out.
    alpha = np.where(near, np.clip((pixels - ground) @ axis / float(axis @ axis), -0.5, 1.5), 0.0)
    patch, area, x, y = _normalised(alpha)
    errors = {shape: float(((patch - _outline(shape)[0]) ** 2).mean()) for shape in SHAPES}
    best = min(errors, key=lambda shape: errors[shape])
    _, unit_area, (right, down) = _outline(best)
    radius = float(np.sqrt(area / unit_area))
    known = errors[best] <= _OUTLINE_LIMIT
    return Found(
        shape=best if known else UNKNOWN,
        colour=_nearest(colour, COLOURS),
        x=(x - right * radius) / size,
        y=(y - down * radius) / size,
        radius=radius / size,
    )


def _grown(segment: np.ndarray) -> np.ndarray:
    """The segment and the pixels beside it: twice grown, it holds all of a faint edge that a blur spread out."""
    padded = np.pad(segment, 1)
    grown = np.zeros_like(segment)
    for dy in range(3):
        for dx in range(3):
            grown |= padded[dy : dy + segment.shape[0], dx : dx + segment.shape[1]]
    return grown


def _normalised(alpha: np.ndarray) -> tuple[np.ndarray, float, float, float]:
    """Coverage moved to its centroid and scaled by the root of its area: (GRID, GRID), with area, x and y in pixels."""
    area = float(alpha.sum())
    steps = np.arange(alpha.shape[0]) + 0.5
    x, y = float(alpha.sum(axis=0) @ steps) / area, float(alpha.sum(axis=1) @ steps) / area
    window = ((np.arange(_GRID) + 0.5) / _GRID * 2 - 1) * _REACH * np.sqrt(area)
    return _bilinear(alpha, y + window - 0.5, x + window - 0.5), area, x, y


def _bilinear(values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Values (S, S) at the grid rows × columns, 0 outside."""
    padded = np.pad(values, 1)
    limit = values.shape[0]
    r, c = np.clip(rows + 1, 0, limit + 0.999), np.clip(columns + 1, 0, limit + 0.999)
    r0, c0 = r.astype(int), c.astype(int)
    fr, fc = (r - r0)[:, None], (c - c0)[None, :]
    top = padded[r0][:, c0] * (1 - fc) + padded[r0][:, c0 + 1] * fc
    bottom = padded[r0 + 1][:, c0] * (1 - fc) + padded[r0 + 1][:, c0 + 1] * fc
    out: np.ndarray = top * (1 - fr) + bottom * fr
    return out


@lru_cache(maxsize=len(SHAPES))
def _outline(shape: str) -> tuple[np.ndarray, float, tuple[float, float]]:
    """A shape's normalised coverage, its area in squared radii, and where its centroid lies, in radii (right, down)."""
    size, radius_px = 64, 20.0
    covered = coverage(shape, x=0.5, y=0.5, radius=radius_px / size, image_size=size)
    patch, area, x, y = _normalised(covered)
    return patch, area / radius_px**2, ((x - size / 2) / radius_px, (y - size / 2) / radius_px)
