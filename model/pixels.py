"""Image geometry and pixel values. Imports only Pillow and numpy, so that CPU stages can use it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

GREY = (127, 127, 127)
# Padding a strip to a square costs its longer side squared, so longer strips shrink first.
_LONGEST_PADDED_SIDE_PX = 8192


def fit(
    picture: Image.Image, *, task: Literal["edit", "caption"], image_size: int, pad: bool = False
) -> NDArray[np.uint8]:
    """An image of any size → (S, S, 3) uint8 of `image_size`, fitted as the task needs.

    Captioning centres the image on a grey square; editing crops the centred square, or with `pad` centres the whole
    image on grey, from which `unpadded` takes the edited image.
    Raises ValueError for another task, or an image_size below 1.
    """
    if image_size < 1:
        raise ValueError(f"image_size must be at least 1, got {image_size}")
    picture = picture.convert("RGB")
    if pad and task == "edit":
        return _on_grey(picture, image_size)
    if task == "caption":
        square = _padded(picture)
    elif task == "edit":
        square = _cropped(picture)
    else:
        raise ValueError(f"task must be edit or caption, got {task!r}")
    return np.array(square.resize((image_size, image_size)))


def inner_size(width_px: int, height_px: int, image_size: int) -> tuple[int, int]:
    """(width, height) of an image scaled until its longer side is `image_size`; neither is below 1."""
    longest = max(width_px, height_px)
    return max(1, round(image_size * width_px / longest)), max(1, round(image_size * height_px / longest))


def unpadded(pixels: NDArray[np.uint8], inner: tuple[int, int]) -> NDArray[np.uint8]:
    """The centred part of (S, S, 3) `pixels` that is `inner` (width, height) large."""
    width_px, height_px = inner
    top_px, left_px = (pixels.shape[0] - height_px) // 2, (pixels.shape[1] - width_px) // 2
    return pixels[top_px : top_px + height_px, left_px : left_px + width_px]


def _on_grey(picture: Image.Image, image_size: int) -> NDArray[np.uint8]:
    """Scaled first and padded then, so that no grey mixes into the image's edges."""
    square = np.full((image_size, image_size, 3), GREY[0], np.uint8)
    inner = inner_size(*picture.size, image_size)
    unpadded(square, inner)[:] = np.asarray(picture.resize(inner))
    return square


def _padded(picture: Image.Image) -> Image.Image:
    longest = max(picture.size)
    if longest > _LONGEST_PADDED_SIDE_PX:
        picture = picture.reduce(-(-longest // _LONGEST_PADDED_SIDE_PX))
    width_px, height_px = picture.size
    if width_px == height_px:
        return picture
    side_px = max(width_px, height_px)
    square = Image.new("RGB", (side_px, side_px), GREY)
    square.paste(picture, ((side_px - width_px) // 2, (side_px - height_px) // 2))
    return square


def _cropped(picture: Image.Image) -> Image.Image:
    width_px, height_px = picture.size
    side_px = min(width_px, height_px)
    left_px, top_px = (width_px - side_px) // 2, (height_px - side_px) // 2
    # Not `Image.crop`: it holds the result to a limit of the whole process; how large an image may be is the caller's.
    return Image.fromarray(np.asarray(picture)[top_px : top_px + side_px, left_px : left_px + side_px])


def to_tensor(pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Images (S, S, 3) uint8 of one size → (B, 3, S, S) float32 in [-1, 1]."""
    import torch

    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float().div_(255).mul_(2).sub_(1)


def to_uint8(pixels: Tensor) -> Tensor:
    """(…, 3, S, S) about [-1, 1] → uint8 of the same shape, truncated as the published code does."""
    import torch

    return (pixels.float() * 127.5 + 128).clamp_(0, 255).to(torch.uint8)
