"""Arguments and options that several commands share, and the storage that some of them name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from unipic.pipeline.storage.storage import Storage

JobFile = Annotated[
    Path, typer.Argument(metavar="JOB", help="The job file (YAML). Relative paths in it start from this folder.")
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a value of the job: --set compute.batch_size=8. May be repeated."
    ),
]
OutputUri = Annotated[str, typer.Argument(metavar="OUTPUT", help="A job's output folder, local or s3://.")]
RowName = Annotated[
    str,
    typer.Argument(
        metavar="ROW", help="A lineage id (8 digits or more), the manifest's id, or FILE:ROW; #SAMPLE behind it."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for other programs.")]
EndpointUrl = Annotated[str | None, typer.Option(metavar="URL", help="For S3 stores other than AWS.")]
Region = Annotated[str | None, typer.Option(metavar="NAME", help="Region of the S3 store.")]
Anonymous = Annotated[bool, typer.Option("--anonymous", help="Sign no request (public buckets).")]


def storage_of(*, endpoint_url: str | None, region: str | None, anonymous: bool) -> Storage:
    """The storage that the options name; credentials come from the environment.

    Raises:
        SpecError: an endpoint that is no http(s) address.
    """
    from pydantic import ValidationError

    from unipic.pipeline.errors import SpecError
    from unipic.pipeline.storage.options import StorageOptions
    from unipic.pipeline.storage.storage import Storage

    try:
        options = StorageOptions(endpoint_url=endpoint_url, region=region, anonymous=anonymous)
    except ValidationError:
        raise SpecError(
            "--endpoint-url must be an http:// or https:// address without credentials, and --region not empty",
            remedy="Credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or ~/.aws.",
        ) from None
    return Storage(options)


def check_device(device: str) -> None:
    """Raises JobError for cuda on a machine where PyTorch has none."""
    import torch

    from unipic.pipeline.errors import JobError

    if device == "cuda" and not torch.cuda.is_available():
        raise JobError(
            "--device is cuda, and this machine has no GPU that PyTorch can use",
            remedy="Leave it at cpu, or install a PyTorch built for this machine's CUDA.",
        )


def check_image_size(image_size: int) -> None:
    """Raises JobError unless it is a multiple of 16."""
    from unipic.pipeline.errors import JobError

    if image_size % 16:
        raise JobError(f"--image-size must be a multiple of 16, got {image_size}")
