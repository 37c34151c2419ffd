"""An address without a Ray cluster is refused within seconds."""

from __future__ import annotations

import socket
import time

import pytest

from tests.patience import PROMPT_S
from unipic.pipeline.errors import EngineError
from unipic.pipeline.execution.ray_address import check_reachable
from unipic.pipeline.execution.ray_cluster import ray_cluster


@pytest.mark.parametrize("form", ["{}", "ray://{}"])
def test_an_address_where_nothing_listens_is_refused_in_seconds(form: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = form.format(f"127.0.0.1:{taken.getsockname()[1]}")  # bound, and not listening
        started = time.monotonic()
        with (
            pytest.raises(EngineError, match=rf"no Ray cluster at {address}: .*refused\. Check --address"),
            ray_cluster(address, cpus=1, verbose=False),
        ):
            pass
    assert time.monotonic() - started < PROMPT_S


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "no-such-host.invalid:6379", "[::1]:1"])
def test_an_address_that_names_nothing_is_refused_too(address: str) -> None:
    with pytest.raises(EngineError, match="there is no Ray cluster at"):
        check_reachable(address)


def test_what_ray_looks_up_itself_is_left_to_it_and_its_failure_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", init)
    words = r"Ray at auto could not be used: ConnectionError: Could not find .* Check --address"
    with pytest.raises(EngineError, match=words), ray_cluster("auto", cpus=1, verbose=False):
        pass
