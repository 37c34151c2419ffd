"""The model alone, in this process: no job, no manifest, no Ray."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypedDict, TypeVar, Unpack

import numpy as np
import torch
from PIL import Image

from unipic.model import engine as models
from unipic.model.checkpoint import CheckpointFault
from unipic.model.engine import CaptionItem, CaptionSettings, EditItem, GenerateItem, SamplingSettings
from unipic.model.pixels import fit, inner_size, unpadded
from unipic.pipeline.errors import CheckpointError, RejectionKind, RowError
from unipic.pipeline.images.decode import ImageLimits, decode
from unipic.pipeline.job import Task
from unipic.pipeline.places import BUILTIN_CHECKPOINT
from unipic.pipeline.stages.checkpoint_cache import describe, local_copy
from unipic.pipeline.storage.options import StorageOptions
from unipic.pipeline.storage.storage import Storage

AnyImage = Image.Image | np.ndarray | bytes | str | os.PathLike[str]
"""A Pillow image, an array (H, W, 3) uint8, the bytes of an encoded file, or the path or s3:// address of one."""

LIMITS = ImageLimits(max_px=256_000_000, max_bytes=1 << 30)  # of encoded images: a damaged header may ask for any size

T = TypeVar("T")
R = TypeVar("R")


class Sampling(TypedDict, total=False):
    """How `Engine.generate` and `Engine.edit` sample; each has the default of the same parameter of a job.

    Attributes:
        image_size: side in pixels, a multiple of 16; default: the size the checkpoint was trained at.
        num_iterations: steps in which the image's tokens are revealed.
        guidance: classifier-free guidance; 1 turns it off.
        guidance_schedule: "linear" grows from 1 to `guidance`.
        temperature: scale of the diffusion head's noise.
        diffusion_steps: steps of the diffusion head for each token.
        full_stop: add a full stop to every prompt.
    """

    image_size: int
    num_iterations: int
    guidance: float
    guidance_schedule: Literal["constant", "linear"]
    temperature: float
    diffusion_steps: int
    full_stop: bool


class Engine:
    """A loaded model and its tokenizer. Make one with `Engine.load`."""

    def __init__(self, model: models.Engine, storage: Storage) -> None:
        self.model = model
        self.storage = storage

    @classmethod
    def load(
        cls,
        checkpoint: str | os.PathLike[str] = BUILTIN_CHECKPOINT,
        *,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        dtype: Literal["float32", "bfloat16"] = "float32",
        storage: StorageOptions | None = None,
    ) -> Engine:
        """Load a checkpoint.

        >>> engine = unipic.Engine.load()

        Args:
            checkpoint: folder made by `unipic convert`, local or s3://; the default is the small one in this package.
            device: "auto" takes a GPU where PyTorch has one.
            dtype: of the arithmetic; it changes the outputs.
            storage: how to reach S3; default: as the environment says.

        Raises:
            CheckpointError: nothing is there, or it is damaged.
        """
        uri, reached = os.fspath(checkpoint), Storage(storage or StorageOptions())
        folder = local_copy(uri, describe(uri, reached).digest, reached)
        chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        try:
            return cls(models.Engine.load(folder, device=chosen, dtype=dtype), reached)
        except CheckpointFault as error:
            raise CheckpointError(str(error), remedy="Convert or copy it again.") from error

    @property
    def image_size(self) -> int:
        """Side in pixels of the images the checkpoint was trained on."""
        return self.model.config.default_image_size

    def generate(
        self, prompts: Sequence[str], *, seeds: Sequence[int] | None = None, **sampling: Unpack[Sampling]
    ) -> list[Image.Image]:
        """One image for each prompt.

        >>> image, *_ = engine.generate(["a red circle"], num_iterations=4, diffusion_steps=5)
        >>> image.size
        (64, 64)

        Args:
            seeds: one for each prompt, 0 to 2**64 - 1; default: 0, 1, 2, … The `lineage.seed` of a job's row gives that
                row's image.
            sampling: see `unipic.Sampling`.

        Raises:
            RowError: a prompt is empty or too long.
            ValueError: a parameter is out of range.
        """
        self._check(prompts, "generate")
        items = [GenerateItem(prompt, seed) for prompt, seed in zip(prompts, _seeds(seeds, prompts), strict=True)]
        settings = self._settings(sampling)
        made = self._in_batches(items, "generate", settings, lambda batch: self.model.generate(batch, settings))
        return [Image.fromarray(pixels) for pixels in made]

    def edit(
        self,
        images: Sequence[AnyImage],
        instructions: str | Sequence[str],
        *,
        seeds: Sequence[int] | None = None,
        pad: bool = False,
        **sampling: Unpack[Sampling],
    ) -> list[Image.Image]:
        """Each image, edited.

        >>> edited, *_ = engine.edit([image], "make the circle blue", num_iterations=4, diffusion_steps=5)

        Args:
            instructions: one for all images, or one for each.
            pad: edit the whole image and keep its aspect ratio; default: edit the centred square.
            seeds, sampling: as for `generate`.

        Raises:
            RowError: an instruction is empty or too long, or an image cannot be decoded.
            StorageError: an image cannot be read.
            ValueError: a parameter is out of range.
        """
        texts = _for_each(instructions, images)
        self._check(texts, "edit")
        settings = self._settings(sampling)
        size = settings.image_size
        opened = [self._opened(image) for image in images]
        pixels = [fit(image, task="edit", image_size=size, pad=pad) for image in opened]
        items = [EditItem(*one) for one in zip(texts, pixels, _seeds(seeds, texts), strict=True)]
        made = self._in_batches(items, "edit", settings, lambda batch: self.model.edit(batch, settings))
        inner = [inner_size(*image.size, size) if pad else (size, size) for image in opened]
        return [Image.fromarray(unpadded(*one)) for one in zip(made, inner, strict=True)]

    def caption(
        self,
        images: Sequence[AnyImage],
        questions: str | Sequence[str] = "Describe the image in detail.",
        *,
        image_size: int | None = None,
        max_new_tokens: int = 256,
    ) -> list[str]:
        """A text for each image.

        >>> [text] = engine.caption([image])

        Args:
            questions: one for all images, or one for each.
            image_size: side the padded image is resized to; default: the size the checkpoint was trained at.
            max_new_tokens: longest text, in tokens.

        Raises:
            RowError: a question is empty or too long, or an image cannot be decoded.
            StorageError: an image cannot be read.
            ValueError: a parameter is out of range.
        """
        texts = _for_each(questions, images)
        self._check(texts, "caption")
        settings = CaptionSettings(image_size=image_size or self.image_size, max_new_tokens=max_new_tokens)
        pixels = [fit(self._opened(image), task="caption", image_size=settings.image_size) for image in images]
        items = [CaptionItem(*one) for one in zip(texts, pixels, strict=True)]
        return self._in_batches(items, "caption", settings, lambda batch: self.model.caption(batch, settings))

    def _settings(self, sampling: Sampling) -> SamplingSettings:
        sampling.setdefault("image_size", self.image_size)
        return SamplingSettings(**sampling)

    def _check(self, prompts: Sequence[str], task: Task) -> None:
        if isinstance(prompts, str):
            raise TypeError(f"prompts must be a list of texts, got one text: write [{prompts[:20]!r}]")
        for at, prompt in enumerate(prompts):
            if (why := self.model.fault_of(prompt, task=task)) is not None:
                raise RowError(RejectionKind.PROMPT_REFUSED, why, row=f"prompt {at}")

    def _opened(self, image: AnyImage) -> Image.Image:
        if isinstance(image, Image.Image):
            return image
        if isinstance(image, np.ndarray):
            return Image.fromarray(image)
        return decode(image if isinstance(image, bytes) else self.storage.read(os.fspath(image)), LIMITS)

    def _in_batches(
        self,
        items: Sequence[T],
        task: Task,
        settings: SamplingSettings | CaptionSettings,
        answer: Callable[[Sequence[T]], Iterable[R]],
    ) -> list[R]:
        size = self.model.max_batch(task, settings) if items else 1
        return [one for at in range(0, len(items), size) for one in answer(items[at : at + size])]


def _seeds(seeds: Sequence[int] | None, prompts: Sequence[str]) -> Sequence[int]:
    if seeds is None:
        return range(len(prompts))
    if len(seeds) != len(prompts):
        raise ValueError(f"there must be one seed for each item: {len(seeds)} seeds, {len(prompts)} items")
    return seeds


def _for_each(texts: str | Sequence[str], images: Sequence[AnyImage]) -> Sequence[str]:
    if isinstance(images, str | bytes | os.PathLike | Image.Image):
        raise TypeError("images must be a list of images, got one image: write [image]")
    if isinstance(texts, str):
        return [texts] * len(images)
    if len(texts) != len(images):
        raise ValueError(f"there must be one text for each image: {len(texts)} texts, {len(images)} images")
    return texts
