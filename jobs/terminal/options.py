"""Arguments and options that several commands share, and the checks on their values."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from unipic.pipeline.storage.options import StorageOptions
    from unipic.pipeline.storage.storage import Storage

JobFile = Annotated[
    Path, typer.Argument(metavar="JOB", help="The job file (YAML). Relative paths in it start from this folder.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a value of the job. May be repeated."),
]
OutputUri = Annotated[str, typer.Argument(metavar="OUTPUT", help="Output folder of a job, local or s3://.")]
OptionalOutput = Annotated[
    str | None, typer.Argument(metavar="OUTPUT", help="Output folder of a job, local or s3://; or give --job.")
]
RowName = Annotated[
    str,
    typer.Argument(
        metavar="ROW",
        help="The row: an id of the manifest, FILE:ROW, or a lineage id (its first 8 digits or more). "
        "Append #SAMPLE to choose a sample.",
    ),
]
OfJob = Annotated[
    Path | None,
    typer.Option("--job", metavar="FILE", help="Job file to take OUTPUT and the S3 endpoint and region from."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
EndpointUrl = Annotated[str | None, typer.Option(metavar="URL", help="Address of an S3 store other than AWS.")]
Region = Annotated[str | None, typer.Option(metavar="NAME", help="Region of the S3 store.")]
Anonymous = Annotated[bool, typer.Option("--anonymous", help="Send unsigned requests (public buckets).")]


def storage_from_options(
    *, endpoint_url: str | None, region: str | None, anonymous: bool, patience_s: float | None = None
) -> Storage:
    """The storage that the options describe; credentials come from the environment. Raises as `storage_options`.

    Args:
        patience_s: the longest time for one operation; without it, as long as its attempts take.
    """
    from unipic.pipeline.storage.storage import Storage

    options = storage_options(endpoint_url=endpoint_url, region=region, anonymous=anonymous)
    return Storage(options, patience_s=patience_s)


def output_of(
    output: str | None,
    job: Path | None,
    *,
    endpoint_url: str | None,
    region: str | None,
    anonymous: bool,
    patience_s: float | None = None,
) -> tuple[str, Storage]:
    """The output and its storage, as the options describe them or else the job file. Raises as `storage_options`."""
    if job is None:
        if output is None:
            raise typer.BadParameter("give OUTPUT, or --job FILE")
        return output, storage_from_options(
            endpoint_url=endpoint_url, region=region, anonymous=anonymous, patience_s=patience_s
        )
    from unipic.jobs.spec.load import load_job
    from unipic.pipeline.storage.storage import Storage

    spec = load_job(job, ())
    given = storage_options(endpoint_url=endpoint_url, region=region, anonymous=anonymous)
    options = spec.storage.model_copy(update=given.model_dump(exclude_defaults=True))
    return output or spec.output.uri, Storage(options, patience_s=patience_s)


def storage_options(*, endpoint_url: str | None, region: str | None, anonymous: bool) -> StorageOptions:
    """The options as a job states them.

    Raises:
        SpecError: the endpoint is not an http(s) address.
    """
    from pydantic import ValidationError

    from unipic.pipeline.errors import SpecError
    from unipic.pipeline.storage.options import StorageOptions

    try:
        return StorageOptions(endpoint_url=endpoint_url, region=region, anonymous=anonymous)
    except ValidationError:
        raise SpecError(
            "--endpoint-url must be an http:// or https:// address without credentials, and --region not empty",
            remedy="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or use ~/.aws.",
        ) from None


def check_device(device: str) -> None:
    """Raises JobError for cuda on a machine without a usable GPU."""
    import torch

    from unipic.pipeline.errors import JobError

    if device == "cuda" and not torch.cuda.is_available():
        raise JobError(
            "--device is cuda, but PyTorch finds no GPU on this machine",
            remedy="Use --device cpu, or install a PyTorch build for this machine's CUDA version.",
        )


def check_image_size(image_size: int) -> None:
    """Raises JobError unless it is a multiple of 16."""
    from unipic.pipeline.errors import JobError

    if image_size % 16:
        raise JobError(f"--image-size must be a multiple of 16, got {image_size}")
