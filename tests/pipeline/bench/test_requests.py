"""What the commit protocol costs, counted on real servers."""

from __future__ import annotations

import pytest

from tests.servers import S3Server
from unipic.pipeline.bench.requests import ROWS_PER_UNIT, bench_requests
from unipic.pipeline.errors import JobError
from unipic.pipeline.storage.options import StorageOptions
from unipic.pipeline.storage.storage import Storage

BULK_DELETES = 1 / 64
"""Requests for each staged copy that is deleted with 63 others."""


def extra_requests(server: S3Server) -> dict[str, float]:
    storage = StorageOptions(endpoint_url=server.endpoint_url)
    bucket = server.bucket()
    counted = {one.kind: one.extra for one in bench_requests(f"{bucket}/bench", storage, count=64)}
    assert list(Storage(storage).list(bucket, recursive=True)) == [], "the bench leaves nothing"
    return counted


def test_a_commit_takes_two_small_requests_beside_its_part_and_its_receipt(moto: S3Server) -> None:
    """One looks for a later epoch and one publishes the part; images beside it are published by one each."""
    extra = extra_requests(moto)
    assert extra["caption"] == extra["generate, images in the part"] == 2 + BULK_DELETES
    assert extra["generate, images beside it"] == 1 + (1 + ROWS_PER_UNIT) * (1 + BULK_DELETES)


def test_a_store_without_conditional_puts_costs_one_request_more(rclone: S3Server) -> None:
    assert extra_requests(rclone)["caption"] == 3 + BULK_DELETES


def test_a_folder_that_gets_no_requests_or_is_not_empty_is_refused(moto: S3Server, tmp_path: object) -> None:
    with pytest.raises(JobError, match="is not on S3; a local disk gets no requests"):
        next(bench_requests(str(tmp_path), StorageOptions()))
    storage = StorageOptions(endpoint_url=moto.endpoint_url)
    folder = moto.bucket()
    Storage(storage).write(f"{folder}/inline/mine", b"1")
    with pytest.raises(JobError, match="/inline is not empty"):
        next(bench_requests(folder, storage))
    assert Storage(storage).exists(f"{folder}/inline/mine")
