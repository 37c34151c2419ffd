"""Which lines on standard error count as Ray's own."""

from __future__ import annotations

import pytest

from unipic.pipeline.execution.quiet import NATIVE_LINE


@pytest.mark.parametrize("place", ["core_worker.cc:2465", "rpc_client.h:202"])
def test_lines_of_rays_native_side_are_known_by_their_form(place: str) -> None:
    assert NATIVE_LINE.match(f"[2026-01-31 12:00:00,000 E 123 456] (unipic) {place}: Failed to connect".encode())
