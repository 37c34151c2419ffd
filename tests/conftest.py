from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # before anything imports Ray

pytest_plugins = ["tests.servers"]


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One private local Ray for all tests that need no fault of their own in it: starting it takes seconds."""
    import ray

    ray.init(address="local", include_dashboard=False, num_cpus=4, log_to_driver=False)
    yield
    ray.shutdown()
