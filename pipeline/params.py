"""The parameters of the three tasks. They change outputs, so they belong to the fingerprint of a job."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from unipic.pipeline.closed import Closed, Real


class AnnealedSteps(Closed):
    """Diffusion steps that change in equal strides from the first iteration to the last."""

    model_config = ConfigDict(serialize_by_alias=True)

    first: int = Field(alias="from", ge=1, le=1000, description="Steps for the tokens of the first iteration.")
    last: int = Field(alias="to", ge=1, le=1000, description="Steps for the tokens of the last iteration.")


def _kind(value: Any) -> str:
    return "from and to" if isinstance(value, dict | AnnealedSteps) else "number"


DiffusionSteps = Annotated[
    Annotated[int, Field(ge=1, le=1000), Tag("number")] | Annotated[AnnealedSteps, Tag("from and to")],
    Discriminator(_kind),
]

PRESETS: dict[str, dict[str, Any]] = {
    "exact": {},
    "balanced": {"diffusion_steps": {"from": 20, "to": 10}, "guidance_every": 2},
    "fast": {"diffusion_steps": {"from": 20, "to": 5}, "guidance_every": 4, "num_iterations": 16},
}
"""The parameters that each preset sets; `unipic evaluate shapes --presets` measures what they cost in quality."""


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
    diffusion_steps: DiffusionSteps = Field(
        default=100,
        description="Steps of the diffusion head for each token: a number, or {from, to} over the iterations.",
    )
    guidance_every: int = Field(
        default=1,
        ge=1,
        le=4096,
        exclude_if=lambda value: value == 1,  # outputs of jobs without it keep their fingerprint and their lineage
        description="Compute the unconditional rows in every n-th iteration and reuse them in the others.",
    )
    preset: Literal["exact", "balanced", "fast"] | None = Field(
        default=None,
        exclude=True,
        description="Sets the parameters that the job leaves out; the run's record and lineage hold the parameters.",
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="Job seed; each row derives its own from it.")
    full_stop: bool = Field(
        default=False, description="Add a full stop to every prompt, as the published batch script does."
    )
    image_format: Literal["png", "jpeg", "webp"] = Field(default="png", description="png is lossless.")
    quality: int = Field(default=95, ge=1, le=100, description="Of jpeg and webp.")

    @property
    def most_diffusion_steps(self) -> int:
        """Of any iteration."""
        steps = self.diffusion_steps
        return max(steps.first, steps.last) if isinstance(steps, AnnealedSteps) else steps

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, value: Any) -> Any:
        preset = value.get("preset") if isinstance(value, dict) else None
        return {**PRESETS[preset], **value} if isinstance(preset, str) and preset in PRESETS else value


class EditParams(ImageParams):
    """Sampling of edits, and an instruction for all rows."""

    instruction: str | None = Field(
        default=None, min_length=1, description="For all rows, if no prompt column is mapped."
    )
    fit: Literal["crop", "pad"] = Field(
        default="crop",
        exclude_if=lambda value: value == "crop",  # outputs of jobs without it keep their fingerprint and their lineage
        description="crop: edit the centred square. pad: edit the whole image on grey, and keep its aspect ratio.",
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
        description="Size in pixels that the padded image is resized to; default: the checkpoint's own size.",
    )
