"""The parameters of the three tasks. They change outputs, so they belong to the fingerprint of a job."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from unipic.pipeline.closed import Closed, Real


class ImageParams(Closed):
    """Sampling of generate and edit, with the published model's defaults."""

    image_size: int | None = Field(
        default=None,
        ge=16,
        le=4096,
        multiple_of=16,
        description="Size in pixels, a multiple of 16; default: the size that the checkpoint was trained for.",
    )
    samples_per_row: int = Field(
        default=1, ge=1, le=1024, description="Images per manifest row, each with its own seed."
    )
    num_iterations: int = Field(
        default=32, ge=1, le=4096, description="Steps in which the image's tokens are revealed."
    )
    guidance: Real = Field(
        default=3.0, ge=1.0, le=100, description="Classifier-free guidance; 1 turns it off and halves the work."
    )
    guidance_schedule: Literal["constant", "linear"] = Field(
        default="constant", description="linear grows from 1 to `guidance`."
    )
    temperature: Real = Field(default=1.0, ge=0.0, le=10, description="Scale of the diffusion head's noise.")
    diffusion_steps: int = Field(default=100, ge=1, le=1000, description="Steps of the diffusion head for each token.")
    seed: int = Field(default=0, ge=0, lt=2**63, description="Job seed; each row derives its own from it.")
    full_stop: bool = Field(
        default=False, description="Add a full stop to every prompt, as the published batch script does."
    )
    image_format: Literal["png", "jpeg", "webp"] = Field(default="png", description="png is lossless.")
    quality: int = Field(default=95, ge=1, le=100, description="Of jpeg and webp.")


class EditParams(ImageParams):
    """Sampling of edits, and an instruction for all rows."""

    instruction: str | None = Field(
        default=None, min_length=1, description="For all rows, if no prompt column is mapped."
    )


class CaptionParams(Closed):
    """Question and length of captions."""

    question: str = Field(
        default="Describe the image in detail.",
        min_length=1,
        description="For rows without a question of their own.",
    )
    max_new_tokens: int = Field(default=256, ge=1, le=4096, description="Longest caption, in tokens.")
    image_size: int | None = Field(
        default=None,
        ge=16,
        le=4096,
        multiple_of=16,
        description="Size in pixels that the padded image is resized to; default: the checkpoint's trained size.",
    )
