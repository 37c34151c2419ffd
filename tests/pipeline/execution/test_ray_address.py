"""An address without a Ray cluster is refused within seconds."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from tests.patience import PROMPT_S
from unipic.pipeline.errors import EngineError
from unipic.pipeline.execution.ray_address import CHECK_ALIVE, check_reachable, check_token
from unipic.pipeline.execution.ray_cluster import ray_cluster


def test_an_address_where_nothing_listens_is_refused_in_seconds() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"  # bound, and not listening
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


def test_ray_client_is_refused_with_a_pointer_to_submit() -> None:
    with pytest.raises(EngineError, match=r"ray://head:10001 is an address of Ray Client.*`unipic submit"):
        check_reachable("ray://head:10001")


@pytest.fixture
def head() -> Iterator[str]:
    """Answers as a head of Ray does that asks for the token "right"."""

    def answer(_: bytes, call: grpc.ServicerContext) -> bytes:
        if dict(call.invocation_metadata()).get("authorization") != "Bearer right":
            call.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken: missing or incorrect")
        return b""

    server = grpc.server(ThreadPoolExecutor(2))
    _, service, method = CHECK_ALIVE.split("/")
    handler = grpc.method_handlers_generic_handler(service, {method: grpc.unary_unary_rpc_method_handler(answer)})
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


@pytest.mark.parametrize(
    ("environment", "lack"),
    [
        ({}, "there is none here"),
        ({"RAY_AUTH_TOKEN": "wrong"}, "the token here is not the one it expects"),
        ({"RAY_AUTH_TOKEN": "right", "RAY_AUTH_MODE": "disabled"}, "RAY_AUTH_MODE is disabled here"),
        ({"RAY_AUTH_TOKEN": "right"}, ""),
        ({"RAY_AUTH_TOKEN": "right", "RAY_AUTH_MODE": "token"}, ""),
    ],
)
def test_a_client_without_the_clusters_token_is_refused_at_once_with_the_variables_to_set(
    environment: dict[str, str], lack: str, head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if not lack:
        check_token(head)
        return
    with pytest.raises(EngineError, match=rf"asks for a token, and {lack}\. Set RAY_AUTH_MODE=token"):
        check_token(head)
