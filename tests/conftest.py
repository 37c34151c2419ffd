from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.places import PACKAGE, ROOT
from unipic.pipeline.crashpoints import VARIABLE

os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # before anything imports Ray
# Processes that tests start, and Ray's workers, import this checkout: from any folder, whatever is installed.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PACKAGE), str(ROOT), os.environ.get("PYTHONPATH")]))

pytest_plugins = ["tests.servers"]


@pytest.fixture(scope="session")
def crash_points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder where the workers of `ray_session` look for the points they are to die at."""
    return tmp_path_factory.mktemp("points")


@pytest.fixture(scope="session")
def ray_session(crash_points: Path) -> Iterator[None]:
    """One private local Ray for all tests that need no fault of their own in it: starting it takes seconds."""
    import ray

    os.environ[VARIABLE] = str(crash_points)  # workers inherit it, and this process is to live
    ray.init(address="local", include_dashboard=False, num_cpus=4, log_to_driver=False)
    del os.environ[VARIABLE]
    yield
    ray.shutdown()
