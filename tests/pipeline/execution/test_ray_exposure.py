"""A Ray that runs code for strangers is warned about, once, with what to do."""

from __future__ import annotations

import pytest
import ray

from unipic.pipeline.execution.ray_exposure import exposure, warning


@pytest.mark.parametrize("mode", ["", "disabled", "DISABLED"])
def test_nodes_that_others_reach_without_a_token_are_named_with_the_remedy(mode: str) -> None:
    said = warning(["127.0.0.1", "10.0.0.5", "10.0.0.6", "fd00::7", "10.0.0.8"], auth_mode=mode)
    assert "at 10.0.0.5, 10.0.0.6, fd00::7 and 1 more and requires no token" in said
    assert "ray get-auth-token --generate" in said and "RAY_AUTH_MODE=token" in said


@pytest.mark.parametrize(
    ("addresses", "mode"), [(["10.0.0.5"], "token"), (["127.0.0.1", "::1", "localhost"], ""), ([], "disabled")]
)
def test_a_token_or_loopback_alone_needs_no_warning(addresses: list[str], mode: str) -> None:
    assert warning(addresses, auth_mode=mode) == ""


def test_the_ray_that_is_connected_to_is_the_one_looked_at(ray_session: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert exposure() == "", "a private Ray asks for a token unless told otherwise"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert ray.util.get_node_ip_address() in exposure()
