"""How a job reaches S3."""

from __future__ import annotations

from pydantic import Field

from unipic.pipeline.closed import Closed, Real


class StorageOptions(Closed):
    """How to reach S3. Credentials come from the environment or the usual AWS files, never from here."""

    endpoint_url: str | None = Field(
        default=None, pattern=r"^https?://[^@\s]+$", description="Address of a store other than AWS."
    )
    region: str | None = Field(default=None, min_length=1)
    anonymous: bool = Field(default=False, description="Send unsigned requests (public buckets).")
    max_attempts: int = Field(default=6, ge=1, le=20, description="Attempts at one request before it counts as failed.")
    backoff_max_s: Real = Field(default=20.0, gt=0, le=300, description="Longest wait between two attempts.")
