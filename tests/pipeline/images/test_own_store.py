"""Only the job's own store stops a run; a bucket that only rows name costs these rows."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from tests.fakes import all_rows, first_unit, make_job, write_prompts
from tests.inprocess import run_here
from tests.servers import S3Server
from unipic.pipeline.errors import AccessDenied, StorageUnavailable
from unipic.pipeline.job import Job
from unipic.pipeline.preflight import preflight
from unipic.pipeline.stages.prepare import prepare
from unipic.pipeline.storage.options import StorageOptions
from unipic.pipeline.storage.storage import Storage


class Unreachable(Storage):
    """Buckets called dead-… have hosts that there are not; `own_down` takes every other bucket with them."""

    own_down = False

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def read(self, uri: str, *, max_bytes: int | None = None) -> bytes:
        self._ask(uri)
        return super().read(uri, max_bytes=max_bytes)

    def exists(self, uri: str) -> bool:
        self._ask(uri)
        return True

    def _ask(self, uri: str) -> None:
        if uri.startswith("s3://"):
            self.asked.append(uri)
        if uri.startswith("s3://dead-") or (uri.startswith("s3://") and self.own_down):
            raise StorageUnavailable(f"{uri} could not be reached (tried 6 times in 12 s)")
        if uri.startswith("s3://locked-"):
            raise AccessDenied(f"No complete credentials were found for {uri}.", remedy="Set AWS_ACCESS_KEY_ID.")


def job_of(root: Path, *images: str, output: str = "") -> Job:
    (root / "manifest").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(root / "manifest" / "good.png")
    write_prompts(root / "manifest" / "a.parquet", ["p"] * len(images), image=list(images))
    changes = {"output__uri": output} if output else {}
    return make_job(root, "edit", input__columns={"prompt": "prompt", "image": "image"}, **changes)


def faults(job: Job, storage: Storage) -> list[str | None]:
    unit, context = first_unit(job)
    context.__dict__["storage"] = storage
    prepared: pa.Table = prepare(unit, context)
    return [one and f"{one['kind']}: {one['message']}" for one in prepared.column("fault").to_pylist()]


def test_rows_of_a_bucket_that_cannot_be_reached_are_rejected_and_the_others_done(tmp_path: Path) -> None:
    job = job_of(tmp_path, "good.png", "s3://dead-1/a.png", "s3://locked-1/b.png", "good.png")
    good, dead, locked, last = faults(job, Unreachable())
    assert (good, last) == (None, None)
    assert dead is not None and dead.startswith("SourceUnavailable: The bucket s3://dead-1 cannot be reached.")
    assert locked is not None and locked.startswith(
        "AccessDenied: No complete credentials were found for s3://locked-1"
    )


def test_a_bucket_that_cannot_be_reached_is_waited_for_once_in_a_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unipic.pipeline.stages.prepare.FETCH_THREADS", 1)
    storage = Unreachable()
    job = job_of(tmp_path, *(f"s3://dead-1/{at}.png" for at in range(8)))
    assert {one and one.partition(":")[0] for one in faults(job, storage)} == {"SourceUnavailable"}
    assert len(storage.asked) == 1


def test_where_the_jobs_own_bucket_is_down_too_the_run_stops(tmp_path: Path) -> None:
    job = job_of(tmp_path, "good.png", "s3://dead-1/a.png", output="s3://own/out")
    assert faults(job, Unreachable())[1] is not None
    down = Unreachable()
    down.own_down = True
    with pytest.raises(StorageUnavailable, match="s3://own/out"):
        faults(job, down)
    with pytest.raises(StorageUnavailable, match="s3://own/images"):
        faults(job_of(tmp_path, "s3://own/images/a.png", output="s3://own/out"), down)


@pytest.mark.parametrize("server", ["rclone", "moto"])
def test_on_s3_a_bucket_that_there_is_not_is_that_rows_fault(
    server: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    s3: S3Server = request.getfixturevalue(server)
    root, storage = s3.bucket(), Storage(StorageOptions(endpoint_url=s3.endpoint_url))
    data = io.BytesIO()
    Image.new("RGB", (8, 8)).save(data, "PNG")
    storage.write(f"{root}/good.png", data.getvalue())
    job = job_of(tmp_path, f"{root}/good.png", "s3://no-such-bucket/a.png", "s3://No Bucket!/b.png", "s3://", "s3:///c")
    job = job.model_copy(update={"storage": StorageOptions(endpoint_url=s3.endpoint_url)})
    assert preflight(job, storage)
    assert run_here(job) == 1
    assert len(all_rows(job)) == 1
    kinds = [row["rejection"]["kind"] for row in all_rows(job, "rejected")]
    assert kinds == ["MissingPicture", "UnreadablePicture", "UnreadablePicture", "UnreadablePicture"]
