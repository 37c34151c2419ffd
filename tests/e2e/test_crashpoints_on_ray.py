"""Real Ray, real kill -9: a worker that dies at any point of a unit's life changes no byte of what a run ends with."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path

import pytest

from tests.fakes import FakeEngine, make_job, part_bytes, write_prompts
from tests.inprocess import run_here
from tests.patience import HANGS_S
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.context import RunContext
from unipic.pipeline.crashpoints import POINTS
from unipic.pipeline.errors import EngineError
from unipic.pipeline.job import Job
from unipic.pipeline.run import Result, run
from unipic.pipeline.storage.storage import Storage

DEATHS = (
    ("prepare.start", "prepare.end"),
    ("replica.before_batch", "replica.after_batch"),
    ("commit.start", "commit.before_image", "commit.after_image"),
    ("commit.before_rejected", "commit.after_rejected", "commit.before_data"),
    ("commit.after_data", "commit.before_receipt"),
    ("commit.after_receipt", "commit.after_publish"),
)
"""Points of one run; each is met once, by whichever unit comes there first."""

PROMPTS = ["a", "b", "", "d", "e", None, "g", "h"]
STARTS = 3


def test_every_crash_point_has_its_death() -> None:
    assert sorted(chain(*DEATHS)) == sorted(POINTS)


class LoadsAfter(FakeEngine):
    """Loads when nobody has to die at `prepare.*` any more: the first replica's own row must not take that death."""

    def __init__(self, context: RunContext, *, points: str) -> None:
        super().__init__(context)
        ends_at = time.monotonic() + HANGS_S
        while list(Path(points).glob("prepare.*")) and time.monotonic() < ends_at:
            threading.Event().wait(0.05)


@pytest.fixture(scope="module")
def job(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """One place for all runs: rows name their pictures' files in full."""
    root = tmp_path_factory.mktemp("deaths")
    write_prompts(root / "manifest" / "a.parquet", PROMPTS)
    output = {"uri": str(root / "out"), "images": "files"}
    return make_job(root, output=output, compute__rows_per_unit=4, compute__batch_size=2)


@pytest.fixture(scope="module")
def undisturbed(job: Job) -> dict[str, bytes]:
    run_here(job)
    made = part_bytes(job)
    shutil.rmtree(job.output.uri)
    return made


@pytest.fixture
def armed(crash_points: Path) -> Iterator[Path]:
    """The folder of points, empty again afterwards: other tests share these workers."""
    yield crash_points
    for left in crash_points.iterdir():
        left.unlink()


def until_done(job: Job, points: Path) -> Result:
    """Run until Ray's own tries, or the same command again, bring the job to its end."""
    for start in range(1, STARTS + 1):
        try:
            return run(job, make_engine=partial(LoadsAfter, points=str(points)))
        except EngineError:
            if start == STARTS:
                raise
    raise AssertionError


@pytest.mark.slow
@pytest.mark.parametrize("points", DEATHS, ids=" ".join)
def test_a_worker_that_dies_on_real_ray_loses_nothing_doubles_nothing_and_changes_no_byte(
    points: tuple[str, ...], job: Job, undisturbed: dict[str, bytes], armed: Path
) -> None:
    for point in points:
        (armed / point).touch()
    result = until_done(job, armed)
    assert list(armed.iterdir()) == []
    assert (result.outcome, result.ok, result.rejected) == ("done", 6, 2)
    assert part_bytes(job) == undisturbed
    assert verify(job.output.uri, Storage(job.storage)).ok
    shutil.rmtree(job.output.uri)
