"""What every stage of one run needs to know, beside the unit in hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib.metadata import PackageNotFoundError, version

from unipic.pipeline.job import Job
from unipic.pipeline.storage.options import StorageOptions
from unipic.pipeline.storage.storage import Storage


def code_version() -> str:
    """Version of the installed package."""
    try:
        return version("unipic-batch")
    except PackageNotFoundError:
        return "0+source"


@lru_cache(maxsize=8)
def _storage(options: StorageOptions) -> Storage:
    return Storage(options)


@dataclass(frozen=True)
class RunContext:
    """Travels to the workers; everything in it is a value.

    Attributes:
        job: the resolved job.
        checkpoint_digest: of the whole checkpoint, as `digests.json` states it.
        columns: the columns that every manifest file has.
        epoch: of the output, when this run began; a later one may have taken rows back.
    """

    job: Job
    checkpoint_digest: str
    columns: tuple[str, ...]
    epoch: int = 1
    code_version: str = field(default_factory=code_version)

    @cached_property
    def storage(self) -> Storage:
        """One per process and options: connections are reused."""
        return _storage(self.job.storage)

    def __getstate__(self) -> dict[str, object]:
        return {k: v for k, v in self.__dict__.items() if k != "storage"}
