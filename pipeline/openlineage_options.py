"""Where a job sends its OpenLineage events, beside the file of each run in its output."""

from __future__ import annotations

from pydantic import Field, field_validator

from unipic.pipeline.closed import Closed
from unipic.pipeline.places import Place


class OpenLineageOptions(Closed):
    """Where OpenLineage events go; without `url` and `file`, where `openlineage.yml` or OPENLINEAGE_URL say.

    Keys come from the environment (OPENLINEAGE_API_KEY), never from here.
    """

    namespace: str | None = Field(
        default=None, max_length=200, description="Of the job; default: OPENLINEAGE_NAMESPACE, or unipic-batch."
    )
    url: str | None = Field(
        default=None, pattern=r"^https?://[^@\s]+$", description="Address of a data catalogue, such as Marquez."
    )
    file: Place | None = Field(
        default=None, min_length=1, description="Local file that events are appended to, one JSON a line."
    )

    @field_validator("file")
    @classmethod
    def _local(cls, value: str | None) -> str | None:
        if value is not None and value.startswith("s3://"):
            raise ValueError("must be a local path: objects on S3 cannot be appended to")
        return value
