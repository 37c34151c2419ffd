"""What every stage of one run needs to know, beside the unit in hand."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from unipic.pipeline.code_version import code_version
from unipic.pipeline.errors import EngineError
from unipic.pipeline.job import Job
from unipic.pipeline.places import BUILTIN_CHECKPOINT
from unipic.pipeline.storage.options import StorageOptions
from unipic.pipeline.storage.paths import is_remote, local_path
from unipic.pipeline.storage.storage import Storage


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
        folder: of the driver; relative paths in the job start from it.
    """

    job: Job
    checkpoint_digest: str
    columns: tuple[str, ...]
    epoch: int = 1
    code_version: str = field(default_factory=code_version)
    folder: str = field(default_factory=os.getcwd)

    @cached_property
    def storage(self) -> Storage:
        """One per process and options: connections are reused."""
        return _storage(self.job.storage)

    def enter_folder(self) -> None:
        """Go to the driver's folder where the job has relative paths: a cluster's workers start in another one.

        The paths stay as they are, because the records of an output hold them.

        Raises:
            EngineError: this machine has no such folder.
        """
        relative = self._relative_path()
        if not relative or os.path.realpath(os.curdir) == os.path.realpath(self.folder):
            return
        try:
            os.chdir(self.folder)
        except OSError as error:
            raise EngineError(
                f"{relative} is a path from {self.folder}, which {socket.gethostname()} does not have",
                remedy="Give whole paths or s3:// addresses, which every machine of the cluster can reach.",
            ) from error

    def _relative_path(self) -> str:
        """A path of the job that is relative, or ""."""
        job = self.job
        places = (job.output.uri, job.model.checkpoint, job.input.image_root or "")
        local = (one for one in places if one and one != BUILTIN_CHECKPOINT and not is_remote(one))
        return next((one for one in local if not os.path.isabs(local_path(one))), "")

    def __getstate__(self) -> dict[str, object]:
        return {k: v for k, v in self.__dict__.items() if k != "storage"}
