"""What one drill is made of, all of it drawn from its seed: a small job, and how often what goes wrong."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tests.fakes import make_job, write_prompts
from unipic.pipeline.job import Job

MENDED = "mended"  # the file whose being there makes flaky rows go well


@dataclass(frozen=True)
class Schedule:
    """One drill.

    Attributes:
        files: prompts of each manifest file; "" and None are bad rows, FLAKY fails until the world is mended.
        conditional: whether the store honours put-if-absent.
        company: two runs of the job at once, taking turns at every request to storage.
        retry: rejected rows are tried again in the end.
        crash_rate: share of passings of a crash point that are deadly.
        storage_rate: share of requests to storage that go wrong.
    """

    seed: int
    task: str
    files: tuple[tuple[str | None, ...], ...]
    rows_per_unit: int
    batch_size: int
    images: str
    samples: int
    conditional: bool
    company: bool
    retry: bool
    crash_rate: float
    storage_rate: float

    @property
    def rows(self) -> int:
        return sum(len(one) for one in self.files) * self.samples


FLAKY = "flaky"


def schedule(seed: int) -> Schedule:
    """The drill that `seed` stands for."""
    dice = random.Random(seed)
    task = dice.choice(["generate", "generate", "caption"])
    retry = task == "generate" and dice.random() < 0.25
    files = tuple(_prompts(dice, retry=retry) for _ in range(dice.randint(1, 3)))
    return Schedule(
        seed=seed,
        task=task,
        files=files,
        rows_per_unit=dice.randint(1, 6),
        batch_size=dice.randint(1, 4),
        images=dice.choice(["inline", "files"]) if task == "generate" else "inline",
        samples=dice.choice([1, 1, 2]) if task == "generate" else 1,
        conditional=dice.random() < 0.5,
        company=dice.random() < 0.3,
        retry=retry,
        crash_rate=dice.choice([0.0, 0.02, 0.05, 0.1]),
        storage_rate=dice.choice([0.0, 0.01, 0.03, 0.08]),
    )


def _prompts(dice: random.Random, *, retry: bool) -> tuple[str | None, ...]:
    def one(at: int) -> str | None:
        if dice.random() < 0.15:
            return dice.choice(["", None, "   "])
        return FLAKY if retry and dice.random() < 0.2 else f"a thing, {at}"

    return tuple(one(at) for at in range(dice.randint(1, 14)))


def job_of(plan: Schedule, root: Path, **changes: object) -> Job:
    """The job of `plan`, its manifest written under `root`."""
    for at, prompts in enumerate(plan.files):
        path = root / "manifest" / f"m{at}.parquet"
        if plan.task == "generate":
            said = [f"flaky {root / MENDED}" if prompt == FLAKY else prompt for prompt in prompts]
            write_prompts(path, said)
        else:
            write_prompts(path, prompts, image=[_picture(root, at, row) if p else p for row, p in enumerate(prompts)])
    params = {"image_size": 16} | ({"samples_per_row": plan.samples} if plan.task == "generate" else {})
    return make_job(
        root,
        plan.task,
        params=params,
        output__images=plan.images,
        compute__rows_per_unit=plan.rows_per_unit,
        compute__batch_size=plan.batch_size,
        **changes,
    )


def _picture(root: Path, file: int, row: int) -> str:
    """A small picture beside the manifest; returns its path as the manifest gives it."""
    name = f"pictures/{file}-{row}.png"
    path = root / "manifest" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    colours = hashlib.sha256(name.encode()).digest() * 6
    Image.fromarray(np.frombuffer(colours, np.uint8).reshape(8, 8, 3)).save(path)
    return name


def places(plan: Schedule, job: Job) -> set[tuple[str, int, int]]:
    """(file name, row, sample) of everything the job must account for."""
    return {
        (f"m{file}.parquet", row, sample)
        for file, prompts in enumerate(plan.files)
        for row in range(len(prompts))
        for sample in range(plan.samples)
    }
