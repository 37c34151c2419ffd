"""Questions of the shapes world as jobs: manifests and job files out, `unipic run`'s own function, verdicts back in."""

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
    """A question, the row that came of it, and the verdict.

    Attributes:
        answer: pixels (64, 64, 3) uint8, or a caption; None where the row was rejected.
        lineage_id: "" where the row was rejected.
    """

    question: Question
    answer: Answer | None
    lineage_id: str
    verdict: Verdict


@dataclass(frozen=True)
class Settings:
    """What the jobs of one evaluation share: `image` are params of generate and edit, `replicas` at most so many."""

    checkpoint: Path
    dtype: str
    device: str
    image: Mapping[str, Any]
    compute: Mapping[str, Any]
    replicas: int

    def job(self, task: str, folder: Path, *, rows: int) -> dict[str, Any]:
        """The job of one task as its file says it: manifest and output lie in `folder`; no replica is without work."""
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
    """A picture file → (S, S, 3) uint8."""
    import numpy as np
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def write_manifest(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows of equal keys as a new Parquet file.

    Raises:
        JobError: there is a file of other content: its job would be refused, for its manifest changed.
    """
    import pyarrow as pa

    from unipic.pipeline.errors import JobError
    from unipic.pipeline.lineage import LINEAGE
    from unipic.pipeline.records import PICTURE
    from unipic.pipeline.stages.parts import parquet_bytes

    kinds = {"image": PICTURE, "lineage": LINEAGE}
    data = parquet_bytes(
        pa.table({name: pa.array([row[name] for row in rows], kinds.get(name)) for name in (rows[0] if rows else ())})
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_bytes(data)
    elif path.read_bytes() != data:
        raise JobError(f"{path} holds other rows", remedy="Give another output folder, or the numbers and seed it had.")


def run_questions(
    asked: Sequence[Question],
    *,
    folder: Path,
    settings: Settings,
    display: Display,
    signals: Signals,
) -> list[Result]:
    """Put every question through the pipeline, a job a task, in one Ray of this process; what is done is not redone.

    After a signal no job begins; the results are those of the jobs that did.

    Raises:
        UniPicError: as `unipic.pipeline.run.run` does.
    """
    import yaml

    from unipic.pipeline.execution.graph import cluster
    from unipic.pipeline.run import run

    rows = {task: [_row(one) for one in asked if one.task == task] for task in TASKS}
    jobs = [_checked(task, folder, settings, rows=len(rows[task])) for task in TASKS]
    for job in jobs:
        write_manifest(folder / "manifests" / f"{job.task}.parquet", rows[job.task])
        text = yaml.safe_dump(settings.job(job.task, folder, rows=len(rows[job.task])), sort_keys=False)
        (folder / f"{job.task}.yaml").write_text(text, encoding="utf-8")
    results = []
    needed = max(job.compute.replicas.max * job.compute.cpus_per_replica for job in jobs) + 1
    with cluster(None, cpus=needed, verbose=False):
        for job in jobs:
            display.say(f"{job.name}:")
            results.append(run(job, on_progress=signals.before(display), stop=signals.stop))
            if results[-1].outcome != "done":
                break
    return results


def _checked(task: str, folder: Path, settings: Settings, *, rows: int) -> Job:
    """One task's job, refused before anything is written where its checkpoint or its output cannot be used."""
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
    """Every question with its answer, read back from the jobs' outputs, and the verdict on it."""
    from unipic.model.tiny.world.score import judge

    rows = {task: rows_of(folder / task) for task in TASKS}
    return [_answered(one, rows[one.task].get(one.id), judge) for one in asked]


def _answered(question: Question, row: Mapping[str, Any] | None, judge: Any) -> Answered:
    if row is None:
        return Answered(question, None, "", judge(question.case, None))
    answer = row["caption"] if question.task == "caption" else pixels_of(row["image"]["bytes"])
    return Answered(question, answer, row["lineage"]["lineage_id"], judge(question.case, answer))


def rows_of(output: Path) -> dict[str, dict[str, Any]]:
    """The data rows of a job's output folder by their ids; none where there is no output."""
    from unipic.pipeline.storage.parquet import read_parquet

    parts = sorted((output / "data").glob("*.parquet"))
    return {row["id"]: row for part in parts for row in read_parquet(part).to_pylist()}


def shuffled(answered: Sequence[Answered], *, seed: int) -> list[Verdict]:
    """Verdicts where every answer meets another question of its task: what a model that reads nothing would get."""
    from unipic.model.tiny.world.score import judge

    verdicts = []
    for task in TASKS:
        ours = [one for one in answered if one.question.task == task]
        order = random.Random(seed).sample(range(len(ours)), len(ours))
        for place, at in enumerate(order):  # a cycle through all of them: nobody keeps his own
            verdicts.append(judge(ours[at].question.case, ours[order[place - 1]].answer))
    return verdicts
