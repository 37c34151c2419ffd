"""Fitting: a decoded image becomes the model's square.

How the model wants its square is the model's own knowledge (`unipic.model.pixels`, Pillow and numpy alone). It is
imported when it is needed, so that whoever only plans or commits does not load the model package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unipic.pipeline.job import Task

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image


def fit(image: Image.Image, *, task: Task, image_size: int) -> np.ndarray:
    """The image as the model takes it: (S, S, 3) uint8, padded (caption) or cropped (edit) to a square.

    Raises ValueError for a task that takes no images.
    """
    from unipic.model.pixels import fit as fit_to_square

    return fit_to_square(image, task=task, image_size=image_size)  # type: ignore[arg-type]
