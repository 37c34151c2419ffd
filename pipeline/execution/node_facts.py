"""What a machine of the cluster has: the versions of its software, and whether it reaches what the job names."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from unipic.pipeline.code_version import code_digest
from unipic.pipeline.context import RunContext
from unipic.pipeline.errors import UniPicError
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.records import ManifestFile
from unipic.pipeline.stages.checkpoint_cache import describe
from unipic.pipeline.storage.storage import Storage

PATIENCE_S = 10.0


@dataclass(frozen=True)
class NodeFacts:
    """As one machine states them; equal on all machines of a run.

    Attributes:
        code: what the installed files hold, whatever version they have.
        torch: without what was built for which device.
        torch_on_cpu: PyTorch was built without CUDA.
        unreachable: what the job needs and this machine cannot read, in words.
    """

    package: str
    code: str
    python: str
    torch: str
    ray: str
    torch_on_cpu: bool = False
    unreachable: tuple[str, ...] = ()


def versions() -> NodeFacts:
    """Those of this machine."""
    torch, _, build = _version("torch").partition("+")
    return NodeFacts(
        package=_version("unipic-batch"),
        code=code_digest(),
        python=".".join(platform.python_version_tuple()[:2]),
        torch=torch,
        ray=_version("ray"),
        torch_on_cpu=build == "cpu",
    )


def unreachable(context: RunContext, file: ManifestFile, run: str) -> tuple[str, ...]:
    """What of the job this machine cannot read.

    Args:
        file: one of the manifest.
        run: `mark` of the output.
    """
    job = context.job
    storage = Storage(job.storage, patience_s=PATIENCE_S)
    faults = []
    try:
        context.enter_folder()
        if describe(job.model.checkpoint, storage).digest != context.checkpoint_digest:
            faults.append(f"the checkpoint {job.model.checkpoint} is another one there")
    except UniPicError as error:
        faults.append(f"the checkpoint: {error.message}")
    try:
        storage.info(file.uri)
    except UniPicError as error:
        faults.append(f"the manifest: {error.message}")
    try:
        if mark(context, storage) != run:
            faults.append(f"the output {job.output.uri} is another folder there, which this run has not claimed")
    except UniPicError as error:
        faults.append(f"the output: {error.message}")
    return tuple(faults)


def mark(context: RunContext, storage: Storage) -> str:
    """Tells the output that this run has claimed from any other folder of its name, or ""."""
    identity = Ledger(context.job.output.uri, storage).identity()
    return identity.fingerprint if identity is not None else ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
