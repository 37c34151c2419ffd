"""UniPic Batch: turns manifests of prompts and images into images, edits and captions, every output accounted for.

>>> import unipic
>>> result = unipic.run("my-job.yaml")            # a job file, or a job built from the classes below

A job: `load_job` reads one from YAML, `GenerateJob`, `EditJob` and `CaptionJob` build one, `examples` lists those that
ship with the package; `plan` and `run` take either. An output: `status`, `verify`, `seal`, `compact`, `repair`,
`trace` and `replay` take its folder, `prune` its job. The model alone: `Engine.load().generate([...])`. Every error is
a `UniPicError`.

Importing this package is cheap: PyTorch, Ray and PyArrow are loaded by what first needs them.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unipic.jobs.api.engine import Engine, Sampling
    from unipic.jobs.api.outputs import compact, repair, replay, seal, status, trace, verify
    from unipic.jobs.api.runs import plan, prune, run
    from unipic.jobs.spec.examples import examples
    from unipic.jobs.spec.load import load_job
    from unipic.pipeline.audit.repair import Repaired
    from unipic.pipeline.audit.replay import Replayed
    from unipic.pipeline.audit.report import Problem, Report
    from unipic.pipeline.audit.status import Status
    from unipic.pipeline.audit.trace import Step
    from unipic.pipeline.errors import (
        AccessDenied,
        CheckpointError,
        EmptyManifest,
        EngineError,
        JobError,
        ManifestError,
        ObjectMissing,
        OtherOutputVersion,
        OutputError,
        RowError,
        SpecError,
        StorageError,
        StorageFull,
        StorageUnavailable,
        UniPicError,
    )
    from unipic.pipeline.execution.progress import Progress, Result
    from unipic.pipeline.job import (
        CaptionJob,
        CaptionParams,
        Columns,
        Compute,
        EditJob,
        EditParams,
        GenerateJob,
        ImageParams,
        Input,
        Job,
        Limits,
        Model,
        Output,
        Replicas,
    )
    from unipic.pipeline.openlineage_options import OpenLineageOptions
    from unipic.pipeline.output.compaction import Compacted
    from unipic.pipeline.output.seal import Seal
    from unipic.pipeline.plan import Plan
    from unipic.pipeline.records import ManifestFile
    from unipic.pipeline.storage.options import StorageOptions

    __version__: str

__all__ = [
    "AccessDenied",
    "CaptionJob",
    "CaptionParams",
    "CheckpointError",
    "Columns",
    "Compacted",
    "Compute",
    "EditJob",
    "EditParams",
    "EmptyManifest",
    "Engine",
    "EngineError",
    "GenerateJob",
    "ImageParams",
    "Input",
    "Job",
    "JobError",
    "Limits",
    "ManifestError",
    "ManifestFile",
    "Model",
    "ObjectMissing",
    "OpenLineageOptions",
    "OtherOutputVersion",
    "Output",
    "OutputError",
    "Plan",
    "Problem",
    "Progress",
    "Repaired",
    "Replayed",
    "Replicas",
    "Report",
    "Result",
    "RowError",
    "Sampling",
    "Seal",
    "SpecError",
    "Status",
    "Step",
    "StorageError",
    "StorageFull",
    "StorageOptions",
    "StorageUnavailable",
    "UniPicError",
    "__version__",
    "compact",
    "examples",
    "load_job",
    "plan",
    "prune",
    "repair",
    "replay",
    "run",
    "seal",
    "status",
    "trace",
    "verify",
]

_HOMES = {
    "unipic.jobs.api.engine": (
        "Engine",
        "Sampling",
    ),
    "unipic.jobs.api.outputs": (
        "compact",
        "repair",
        "replay",
        "seal",
        "status",
        "trace",
        "verify",
    ),
    "unipic.jobs.api.runs": (
        "plan",
        "prune",
        "run",
    ),
    "unipic.jobs.spec.examples": ("examples",),
    "unipic.jobs.spec.load": ("load_job",),
    "unipic.pipeline.audit.repair": ("Repaired",),
    "unipic.pipeline.audit.replay": ("Replayed",),
    "unipic.pipeline.audit.status": ("Status",),
    "unipic.pipeline.audit.trace": ("Step",),
    "unipic.pipeline.audit.report": (
        "Problem",
        "Report",
    ),
    "unipic.pipeline.errors": (
        "AccessDenied",
        "CheckpointError",
        "EmptyManifest",
        "EngineError",
        "JobError",
        "ManifestError",
        "ObjectMissing",
        "OtherOutputVersion",
        "OutputError",
        "RowError",
        "SpecError",
        "StorageError",
        "StorageFull",
        "StorageUnavailable",
        "UniPicError",
    ),
    "unipic.pipeline.execution.progress": (
        "Progress",
        "Result",
    ),
    "unipic.pipeline.job": (
        "CaptionJob",
        "CaptionParams",
        "Columns",
        "Compute",
        "EditJob",
        "EditParams",
        "GenerateJob",
        "ImageParams",
        "Input",
        "Job",
        "Limits",
        "Model",
        "Output",
        "Replicas",
    ),
    "unipic.pipeline.output.compaction": ("Compacted",),
    "unipic.pipeline.output.seal": ("Seal",),
    "unipic.pipeline.plan": ("Plan",),
    "unipic.pipeline.records": ("ManifestFile",),
    "unipic.pipeline.openlineage_options": ("OpenLineageOptions",),
    "unipic.pipeline.storage.options": ("StorageOptions",),
}
"""Module → the public names that come from it."""

if not TYPE_CHECKING:  # a type checker that saw it would take any name for one of ours

    def __getattr__(name: str) -> object:
        from importlib import import_module, metadata

        if name == "__version__":
            return metadata.version("unipic-batch")
        for module, names in _HOMES.items():
            if name in names:
                value = globals()[name] = getattr(import_module(module), name)
                return value
        raise AttributeError(f"module 'unipic' has no attribute {name!r}")


logging.getLogger("unipic").addHandler(logging.NullHandler())  # a program that uses this decides what it prints


def __dir__() -> list[str]:
    return sorted(__all__)
