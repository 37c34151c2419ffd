"""A real S3 server behind a proxy that does to requests what networks do: what the caller is told, what is stored."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.proxy import PASSING, Weather, proxy
from tests.servers import S3Server
from unipic.pipeline.errors import AccessDenied, StorageFull, StorageUnavailable
from unipic.pipeline.storage.options import StorageOptions
from unipic.pipeline.storage.storage import Storage

BODY = bytes(range(256)) * 512


@pytest.fixture(scope="module")
def weather() -> Weather:
    return Weather()


@pytest.fixture(autouse=True)
def fair_weather(weather: Weather) -> None:
    weather.orders.clear()
    weather.asked.clear()


@pytest.fixture(scope="module")
def through_moto(moto: S3Server, weather: Weather) -> Iterator[Storage]:
    with proxy(moto.endpoint_url, weather) as door:
        yield Storage(StorageOptions(endpoint_url=door.endpoint_url, max_attempts=4, backoff_max_s=0.02))


@pytest.fixture(scope="module")
def through_rclone(rclone: S3Server, weather: Weather) -> Iterator[Storage]:
    with proxy(rclone.endpoint_url, weather) as door:
        yield Storage(StorageOptions(endpoint_url=door.endpoint_url, max_attempts=4, backoff_max_s=0.02))


@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_is_outlived_by_writes_and_reads(
    fault: str, through_rclone: Storage, rclone: S3Server, weather: Weather
) -> None:
    uri = f"{rclone.bucket()}/there"
    weather.orders[:] = [fault, fault]
    through_rclone.write(uri, BODY)
    weather.orders[:] = [fault, fault]
    assert through_rclone.read(uri) == BODY
    weather.orders[:] = [fault]
    assert [one.uri for one in through_rclone.list(uri.rsplit("/", 1)[0])] == [uri]
    assert not weather.orders


def test_a_conditional_put_whose_answer_was_lost_is_known_as_ones_own(
    through_moto: Storage, moto: S3Server, weather: Weather
) -> None:
    uri = f"{moto.bucket()}/receipt.json"
    weather.orders[:] = ["", "answer lost"]
    assert through_moto.put_if_absent(uri, b"mine")
    assert [one.split()[0] for one in weather.asked] == ["GET", "PUT", "PUT", "GET"]
    assert not through_moto.put_if_absent(uri, b"another's")
    assert through_moto.read(uri) == b"mine"


@pytest.mark.parametrize("server", ["moto", "rclone"])
def test_half_an_upload_is_never_an_object(server: str, request: pytest.FixtureRequest, weather: Weather) -> None:
    uri = f"{request.getfixturevalue(server).bucket()}/part.parquet"
    storage = request.getfixturevalue(f"through_{server}")
    weather.orders[:] = ["upload cut short"] * 8  # aiohttp tries once more by itself where a kept connection breaks
    with pytest.raises(StorageUnavailable, match="tried 4 times"):
        storage.write(uri, BODY)
    weather.orders.clear()
    assert not storage.exists(uri)


def test_a_store_that_stays_away_is_named_after_all_tries(
    through_moto: Storage, moto: S3Server, weather: Weather
) -> None:
    weather.orders[:] = ["503 SlowDown"] * 4
    with pytest.raises(StorageUnavailable, match=r"SlowDown.*tried 4 times.*resumes"):
        through_moto.read(f"{moto.bucket()}/x")
    assert not weather.orders


def test_expired_credentials_end_it_at_once(through_moto: Storage, moto: S3Server, weather: Weather) -> None:
    uri = f"{moto.bucket()}/x"
    weather.orders[:] = ["403 ExpiredToken"]
    with pytest.raises(AccessDenied, match=r"ExpiredToken.*Renew"):
        through_moto.write(uri, BODY)
    assert len(weather.asked) == 1


def test_a_full_disk_is_named_and_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFull, match=r"No space is left.*Free some space"):
        Storage().write(str(tmp_path / "part.parquet"), BODY)
    assert list(tmp_path.iterdir()) == []
