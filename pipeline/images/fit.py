"""Fitting: a decoded image becomes the model's square.

How the model wants its square is the model's own knowledge (`unipic.model.pixels`, Pillow and numpy alone). It is
imported when it is needed, so that whoever only plans or commits does not load the model package.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from unipic.pipeline.job import Task

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image


def fit(image: Image.Image, *, task: Task, image_size: int, pad: bool = False) -> np.ndarray:
    """The image as the model takes it: (S, S, 3) uint8, padded (caption) or cropped (edit) to a square.

    Args:
        pad: pad for an edit, too.

    Raises ValueError for a task that takes no images.
    """
    from unipic.model.pixels import fit as fit_to_square

    return fit_to_square(image, task=task, image_size=image_size, pad=pad)  # type: ignore[arg-type]


def inner_size(image: Image.Image, image_size: int) -> list[int]:
    """[width, height] in pixels of the image inside a square that it was padded to."""
    from unipic.model.pixels import inner_size as scaled

    return list(scaled(*image.size, image_size))


def unpadded(pixels: np.ndarray, inner: Sequence[int]) -> np.ndarray:
    """What is `inner` ([width, height]) large in the middle of (S, S, 3) `pixels`."""
    from unipic.model.pixels import unpadded as centre

    width_px, height_px = inner
    return centre(pixels, (width_px, height_px))
