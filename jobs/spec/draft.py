"""Writes a job file for a manifest: its columns, the checkpoint's sizes and this machine's devices filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from unipic.jobs.spec.load import JOBS
from unipic.jobs.spec.roles import columns_for, task_for
from unipic.pipeline.job import Input, Job, Task
from unipic.pipeline.machine import Machine, this_machine
from unipic.pipeline.places import BUILTIN_CHECKPOINT
from unipic.pipeline.storage.options import StorageOptions

if TYPE_CHECKING:
    import pyarrow as pa

    from unipic.model.config import ReplicaConfig
    from unipic.pipeline.manifests.manifest import Manifest
    from unipic.pipeline.storage.storage import Storage

_LARGE_CHECKPOINT_BYTES = 2 * 10**9
_SMALL_GRID_TOKENS = 64


@dataclass(frozen=True)
class Wishes:
    """What the user decided; the draft finds the rest.

    Attributes:
        columns: role ("id", "prompt", "image") → column.
        instruction: for every row of an edit.
    """

    manifest: str
    task: Task | None = None
    checkpoint: str = BUILTIN_CHECKPOINT
    output: str | None = None
    instruction: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    storage: StorageOptions = field(default_factory=StorageOptions)


def draft(wishes: Wishes, machine: Machine | None = None) -> str:
    """The text of a job file that runs on this machine.

    Raises:
        ManifestError: the manifest cannot be read, or a column that the task needs is missing.
        CheckpointError: the checkpoint cannot be used.
        ValidationError: a wish is not valid in a job.
    """
    from unipic.pipeline.manifests import openai_batch
    from unipic.pipeline.manifests.discovery import discover
    from unipic.pipeline.manifests.openai_request import TASK_OF
    from unipic.pipeline.manifests.reading import head
    from unipic.pipeline.stages.checkpoint_cache import describe
    from unipic.pipeline.stages.engine import replica_config
    from unipic.pipeline.storage.storage import Storage

    machine = machine or this_machine()
    storage = Storage(wishes.storage)
    file_format: dict[str, Any] = {"format": "webdataset"} if _is_tars(wishes.manifest, storage) else {}
    manifest = discover(Input(manifest=wishes.manifest, **file_format), storage)
    if openai_batch.is_batch(manifest.schema.names):
        file_format = {"format": openai_batch.FORMAT}
        manifest = discover(Input(manifest=wishes.manifest, **file_format), storage)
    schema = manifest.schema if manifest.listing is None else _listed(manifest.schema)
    task = wishes.task or TASK_OF.get(manifest.endpoint) or task_for(schema)
    columns = dict(wishes.columns)
    if not manifest.endpoint:
        columns = columns_for(task, schema, columns, instruction=wishes.instruction is not None)
    name = _name(wishes.manifest, task)
    source = {"manifest": wishes.manifest, **file_format, **({"columns": columns} if columns else {})}
    values: dict[str, Any] = {"name": name, "task": task, "input": source}
    first = head(manifest, 3, storage)
    image = columns.get("image", "image" if manifest.endpoint else None)
    if image is not None and _from_the_web(first, image):
        values["input"]["allow_http"] = True
    config = replica_config(wishes.checkpoint, storage)
    size = describe(wishes.checkpoint, storage).bytes
    values |= {
        "model": {"checkpoint": wishes.checkpoint, "dtype": "bfloat16" if machine.gpus else "float32"},
        "params": _params(task, config, wishes.instruction) | _asked(first[0].get("request")),
        "output": {"uri": wishes.output or f"out/{name}"},
        "compute": {"replicas": 1},
        "limits": {"max_rejected": "10%"},
    }
    if given := wishes.storage.model_dump(exclude_defaults=True):
        values["storage"] = given
    values["compute"]["replicas"] = _replicas(JOBS[task].model_validate(values), manifest, machine, size)
    sized = values["params"]["image_size"] == config.default_image_size
    return _text(values, manifest.rows, schema.names, machine, sized=sized)


def _is_tars(manifest: str, storage: Storage) -> bool:
    """Whether it is a WebDataset shard, a glob of them, or a folder whose first file is one."""
    if manifest.lower().endswith(".tar"):
        return True
    first = None if "*" in manifest else next(iter(storage.list(manifest)), None)
    return first is not None and first.uri.lower().endswith(".tar")


def _listed(schema: pa.Schema) -> pa.Schema:
    """The columns that the listing of a folder offers to a job; it has others of its own."""
    import pyarrow as pa

    return pa.schema([schema.field(name) for name in ("id", "image")])


def schema_path() -> Path:
    """The JSON schema of job files inside the installed package."""
    return (Path(str(resources.files("unipic"))) / "configs" / "job.schema.json").resolve()


def _params(task: Task, config: ReplicaConfig, instruction: str | None) -> dict[str, Any]:
    image_size = config.default_image_size
    small = config.grid_of(image_size) ** 2 <= _SMALL_GRID_TOKENS
    if task == "caption":
        return {"image_size": image_size, "max_new_tokens": 64 if small else 256}
    steps = {"num_iterations": 16 if small else 32, "diffusion_steps": 50 if small else 100}
    return {"image_size": image_size, **steps, **({"instruction": instruction} if instruction else {})}


def _asked(request: Any) -> dict[str, Any]:
    """The parameters that the first request of an OpenAI batch asks for."""
    if not isinstance(request, dict):
        return {}
    asked: dict[str, Any] = {"samples_per_row": request["n"], "max_new_tokens": request["max_tokens"]}
    if size := re.fullmatch(r"(\d{2,4})x\1", request["size"] or ""):
        asked["image_size"] = int(size[1]) if int(size[1]) % 16 == 0 else None
    if request["output_format"] in ("jpeg", "webp"):
        asked["image_format"] = request["output_format"]
    return {name: value for name, value in asked.items() if value}


def _replicas(job: Job, manifest: Manifest, machine: Machine, checkpoint_bytes: int) -> int:
    """One per GPU; on a CPU one per core up to 4, if several copies of the weights fit. Never more than units."""
    units = sum(-(-file.rows // job.rows_per_unit) for file in manifest.files)
    most = machine.gpus or (1 if checkpoint_bytes > _LARGE_CHECKPOINT_BYTES else min(4, machine.cpus))
    return max(1, min(most, units))


def _from_the_web(rows: list[dict[str, Any]], column: str) -> bool:
    cells = (row.get(column) for row in rows)
    paths = (cell.get("path") if isinstance(cell, dict) else cell for cell in cells)
    return any(re.match(r"https?://", str(path), re.IGNORECASE) for path in paths)


def _name(manifest: str, task: str) -> str:
    parts = [part for part in re.split(r"[/\\]", manifest) if part and "*" not in part]
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", parts[-1].rsplit(".", 1)[0] if parts else "").strip("-._")
    return f"{stem}-{task}"[-200:].lstrip("-._ ")


def _text(values: dict[str, Any], rows: int, columns: Sequence[str], machine: Machine, *, sized: bool) -> str:
    """Args: sized: the image size is the checkpoint's own, and not what requests ask for."""
    comments = {
        "manifest": f"{rows:,} row{'s' * (rows != 1)}",
        "columns": f"the manifest has {', '.join(columns)}",
        "image_size": "the size this checkpoint was trained for"
        if sized
        else "the size that the first request asks for",
        "replicas": str(machine),
        "max_rejected": "the run stops with exit code 2 above this share",
    }
    lines = [
        f"# yaml-language-server: $schema={schema_path()}",
        "# Check this job with `unipic plan JOB`, then run or resume it with `unipic run JOB`.",
    ]
    for section, value in values.items():
        if not isinstance(value, dict):
            lines.append(f"{section}: {_scalar(value)}")
            continue
        lines.append(f"{section}:")
        for key, inner in value.items():
            comment = f"  # {comments[key]}" if key in comments else ""
            lines.append(f"  {key}: {_scalar(inner)}{comment}")
    return "\n".join(lines) + "\n"


def _scalar(value: Any) -> str:
    """A value on one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, width=1 << 30, allow_unicode=True, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")
