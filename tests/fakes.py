"""Stand-ins for what cannot exist here (a GPU's out-of-memory, a replica that dies on one row), and job builders."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from unipic.model.checkpoint import digest_of_files
from unipic.pipeline.context import RunContext
from unipic.pipeline.job import AnyJob, Job
from unipic.pipeline.lineage import from_row
from unipic.pipeline.manifests.discovery import discover
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.records import Receipt, Unit
from unipic.pipeline.storage.options import StorageOptions
from unipic.pipeline.storage.storage import Storage

CHECKPOINT_FILE = b"not weights: the fake engine reads none"


class FakeEngine:
    """Answers each row from its own prompt, picture and seed alone. Prompts that start with a word of command obey it.

    die    kill this process          (every time)
    once   kill this process          (the first time: a file named by the prompt's second word says it has been)
    raise  raise ValueError
    flaky  raise ValueError           (until the file named by the second word exists)
    hang   never return
    huge   raise torch's out-of-memory text when more than one row is in the micro-batch
    """

    def __init__(self, context: RunContext) -> None:
        self.job = context.job
        self.batches: list[int] = []

    def answer(self, rows: Sequence[dict[str, Any]]) -> list[bytes | str]:
        self.batches.append(len(rows))
        for row in rows:
            word, _, rest = row["prompt"].partition(" ")
            self._one_row(word, rest, alone=len(rows) == 1)
        return [self._one(row) for row in rows]

    def _one_row(self, word: str, rest: str, *, alone: bool) -> None:
        if word == "die" or (word == "once" and _first_time(Path(rest))):
            os.kill(os.getpid(), signal.SIGKILL)
        if word == "raise" or (word == "flaky" and not Path(rest).exists()):
            raise ValueError("the engine cannot do this row")
        if word == "huge" and not alone:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        if word == "hang":
            threading.Event().wait()

    def _one(self, row: dict[str, Any]) -> bytes | str:
        key = hashlib.sha256(f"{row['prompt']}|{row['seed']}".encode() + (row["pixels"] or b"")).digest()
        if self.job.task == "caption":
            return f"a picture {key.hex()[:8]}"
        pixels = np.random.default_rng(int.from_bytes(key[:8], "big"))
        return pixels.integers(0, 256, (self.job.image_size, self.job.image_size, 3), np.uint8).tobytes()

    def fault_of(self, prompt: str) -> str | None:
        return f"the prompt has {len(prompt)} characters, the limit is 10000" if len(prompt) > 10_000 else None

    def max_batch(self) -> int:
        return 8

    def facts(self) -> dict[str, Any]:
        return {"device": "fake"}


def _first_time(path: Path) -> bool:
    if path.exists():
        return False
    path.touch()
    return True


class BrokenEngine(FakeEngine):
    def __init__(self, context: RunContext) -> None:
        raise OSError("the driver is gone")


class BlockingEngine(FakeEngine):
    """Puts a file where the data folder must be: no part can be written."""

    def answer(self, rows: Sequence[dict[str, Any]]) -> list[bytes | str]:
        Path(self.job.output.uri, "data").touch()
        return super().answer(rows)


def fake_checkpoint(folder: Path) -> Path:
    """A folder that planning takes for a checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights.safetensors").write_bytes(CHECKPOINT_FILE)
    files = {"weights.safetensors": hashlib.sha256(CHECKPOINT_FILE).hexdigest()}
    (folder / "digests.json").write_text(json.dumps({"files": files, "checkpoint": digest_of_files(files)}))
    return folder


def write_prompts(path: Path, prompts: Sequence[str | None], **columns: Sequence[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = [f"{path.stem}-{at}" for at in range(len(prompts))]
    pq.write_table(pa.table({"id": ids, "prompt": pa.array(prompts, pa.string()), **columns}), path)
    return path


def make_job(root: Path, task: str = "generate", **changes: Any) -> Job:
    """A small job under `root` (manifest/, out/); `changes` are dotted: `compute__batch_size=4`."""
    columns = {"generate": {"id": "id", "prompt": "prompt"}, "edit": {"prompt": "prompt"}, "caption": {}}[task]
    value: dict[str, Any] = {
        "name": "trial",
        "task": task,
        "input": {"manifest": str(root / "manifest"), "columns": columns},
        "model": {"checkpoint": str(fake_checkpoint(root / "checkpoint")), "dtype": "float32", "device": "cpu"},
        "params": {"image_size": 16},
        "output": {"uri": str(root / "out")},
        "compute": {"rows_per_unit": 8, "batch_size": 4},
        "limits": {"max_rejected": "100%", "grace_s": 20},
    }
    for dotted, change in changes.items():
        *path, last = dotted.split("__")
        place = value
        for name in path:
            place = place.setdefault(name, {})
        place[last] = change
    return TypeAdapter(AnyJob).validate_python(value)


def all_rows(job: Job, folder: str = "data") -> list[dict[str, Any]]:
    """Every row under the output's `folder`, in part order."""
    storage = Storage(job.storage)
    parts = sorted(one.uri for one in storage.list(f"{job.output.uri}/{folder}", suffix=".parquet"))
    return [stated(row) for uri in parts for row in pq.read_table(storage.open(uri)).to_pylist()]


def stated(row: dict[str, Any]) -> dict[str, Any]:
    """A row of an output, its lineage as Python code has it: digests as hex text."""
    return {**row, "lineage": from_row(row["lineage"])} if isinstance(row.get("lineage"), dict) else row


def part_bytes(job: Job) -> dict[str, bytes]:
    """Name → bytes of every committed part and picture: what two runs of one job must agree on."""
    storage = Storage(job.storage)
    folders = ("data", "rejected", "images")
    listed = [one.uri for folder in folders for one in storage.list(f"{job.output.uri}/{folder}")]
    return {uri.removeprefix(job.output.uri): storage.read(uri) for uri in sorted(listed)}


def receipts(job: Job) -> list[Receipt]:
    return list(Ledger(job.output.uri, Storage(job.storage)).receipts())


def first_unit(job: Job) -> tuple[Unit, RunContext]:
    """The job's first unit and a context to run its stages in, without Ray."""
    storage = Storage(StorageOptions())
    manifest = discover(job.input, storage)
    from unipic.pipeline.manifests.manifest import units

    context = RunContext(job, "c0" * 32, manifest.columns)
    return next(iter(units(manifest, job.rows_per_unit))), context
