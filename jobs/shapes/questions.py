"""Questions of the shapes world as jobs: writes manifests and job files, runs them, and judges the outputs."""

from __future__ import annotations

import io
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipic.jobs.terminal.progress import Display
from unipic.jobs.terminal.signals import Signals

if TYPE_CHECKING:
    import numpy as np

    from unipic.model.tiny.world.questions import Question
    from unipic.model.tiny.world.score import Answer, Verdict
    from unipic.pipeline.job import Job
    from unipic.pipeline.run import Result

TASKS = ("generate", "caption", "edit")


@dataclass(frozen=True)
class Answered:
    """A question, the answer of its output row, and the verdict.

    Attributes:
        answer: pixels (64, 64, 3) uint8, or a caption; None if the row was rejected.
        lineage_id: "" if the row was rejected.
    """

    question: Question
    answer: Answer | None
    lineage_id: str
    verdict: Verdict


@dataclass(frozen=True)
class Settings:
    """Settings of all jobs of one evaluation. `image`: params of generate and edit; `replicas`: at most this many."""

    checkpoint: Path
    dtype: str
    device: str
    image: Mapping[str, Any]
    compute: Mapping[str, Any]
    replicas: int

    def job(self, task: str, folder: Path, *, rows: int) -> dict[str, Any]:
        """The job file of one task, with manifest and output in `folder` and at most one replica per unit."""
        from unipic.model.tiny.world.questions import IMAGE_SIZE, MAX_CAPTION_TOKENS

        roles = {"generate": ("id", "prompt"), "caption": ("id", "image"), "edit": ("id", "prompt", "image")}[task]
        params = {"max_new_tokens": MAX_CAPTION_TOKENS} if task == "caption" else dict(self.image)
        return {
            "name": f"shapes-{task}",
            "task": task,
            "input": {
                "manifest": str(folder / "manifests" / f"{task}.parquet"),
                "columns": {role: role for role in roles},
                "keep": ["held_out"],
            },
            "model": {"checkpoint": str(self.checkpoint), "dtype": self.dtype, "device": self.device},
            "params": {**params, "image_size": IMAGE_SIZE},
            "output": {"uri": str(folder / task)},
            "compute": {**self.compute, "replicas": min(self.replicas, -(-rows // self.compute["rows_per_unit"]))},
        }


def png(pixels: np.ndarray) -> bytes:
    """(S, S, 3) uint8 → a PNG file."""
    from PIL import Image

    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


def pixels_of(data: bytes) -> np.ndarray:
    """An image file → (S, S, 3) uint8."""
    import numpy as np
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def write_manifest(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows with equal keys as a new Parquet file.

    Raises:
        JobError: the file exists with other content, so its job would refuse the changed manifest.
    """
    import pyarrow as pa

    from unipic.pipeline.errors import JobError
    from unipic.pipeline.lineage import LINEAGE
    from unipic.pipeline.output.part_file import parquet_bytes
    from unipic.pipeline.records import PICTURE

    kinds = {"image": PICTURE, "lineage": LINEAGE}
    data = parquet_bytes(
        pa.table({name: pa.array([row[name] for row in rows], kinds.get(name)) for name in (rows[0] if rows else ())})
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_bytes(data)
    elif path.read_bytes() != data:
        raise JobError(
            f"{path} exists with other rows", remedy="Choose another output folder, or repeat the earlier options."
        )


def run_questions(
    asked: Sequence[Question],
    *,
    folder: Path,
    settings: Settings,
    display: Display,
    signals: Signals,
) -> list[Result]:
    """Runs one job per task in a Ray of this process, and resumes jobs that an earlier call began.

    After a signal no further job starts; the results are those of the jobs that started.

    Raises:
        UniPicError: as `unipic.pipeline.run.run` does.
    """
    import yaml

    from unipic.pipeline.execution.ray_cluster import ray_cluster
    from unipic.pipeline.run import run

    rows = {task: [_row(each) for each in asked if each.task == task] for task in TASKS}
    jobs = [_checked(task, folder, settings, rows=len(rows[task])) for task in TASKS]
    for job in jobs:
        write_manifest(folder / "manifests" / f"{job.task}.parquet", rows[job.task])
        text = yaml.safe_dump(settings.job(job.task, folder, rows=len(rows[job.task])), sort_keys=False)
        (folder / f"{job.task}.yaml").write_text(text, encoding="utf-8")
    results = []
    needed = max(job.compute.replicas.max * job.compute.cpus_per_replica for job in jobs) + 1
    with ray_cluster(None, cpus=needed, verbose=False):
        for job in jobs:
            display.print(f"{job.name}:")
            results.append(run(job, on_progress=signals.before(display), stop=signals.stop))
            if results[-1].outcome != "done":
                break
    return results


def _checked(task: str, folder: Path, settings: Settings, *, rows: int) -> Job:
    """The job of one task; raises before anything is written if its checkpoint or output cannot be used."""
    from unipic.jobs.spec.load import JOBS
    from unipic.pipeline.output.ledger import Ledger
    from unipic.pipeline.stages.checkpoint_cache import describe
    from unipic.pipeline.storage.storage import Storage

    job = JOBS[task].model_validate(settings.job(task, folder, rows=rows))
    storage = Storage()
    Ledger(job.output.uri, storage).check_owner(job, describe(job.model.checkpoint, storage).digest)
    return job


def _row(question: Question) -> dict[str, Any]:
    row: dict[str, Any] = {"id": question.id, "held_out": question.case.held_out}
    if question.text:
        row["prompt"] = question.text
    if question.picture is not None:
        row["image"] = {"bytes": png(question.picture), "path": f"{question.id}.png"}
    return row


def judged(asked: Iterable[Question], folder: Path) -> list[Answered]:
    """Every question with its answer from the job outputs and the verdict."""
    from unipic.model.tiny.world.score import judge

    rows = {task: rows_of(folder / task) for task in TASKS}
    return [_answered(each, rows[each.task].get(each.id), judge) for each in asked]


def _answered(question: Question, row: Mapping[str, Any] | None, judge: Any) -> Answered:
    if row is None:
        return Answered(question, None, "", judge(question.case, None))
    answer = row["caption"] if question.task == "caption" else pixels_of(row["image"]["bytes"])
    return Answered(question, answer, row["lineage"]["lineage_id"].hex(), judge(question.case, answer))


def rows_of(output: Path) -> dict[str, dict[str, Any]]:
    """The data rows of an output folder by id; empty without an output."""
    from unipic.pipeline.storage.parquet import read_parquet

    parts = sorted((output / "data").glob("*.parquet"))
    return {row["id"]: row for part in parts for row in read_parquet(part).to_pylist()}


def shuffled(answered: Sequence[Answered], *, seed: int) -> list[Verdict]:
    """Verdicts on answers paired with other questions of their task: the score of a model that ignores its input."""
    from unipic.model.tiny.world.score import judge

    verdicts = []
    for task in TASKS:
        group = [each for each in answered if each.question.task == task]
        order = random.Random(seed).sample(group, len(group))
        for place, each in enumerate(order):  # a cycle through all of them, so no answer keeps its question
            verdicts.append(judge(each.question.case, order[place - 1].answer))
    return verdicts
