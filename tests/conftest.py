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

RAY_STARTS = 3  # Ray gives its own start 30 s, which a busy machine may need more than once


@pytest.fixture(scope="session")
def crash_points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder where the workers of `ray_session` look for the points they are to die at."""
    return tmp_path_factory.mktemp("points")


@pytest.fixture(scope="session")
def ray_session(crash_points: Path) -> Iterator[None]:
    """One private local Ray for all tests that need no fault of their own in it: starting it takes seconds."""
    import ray

    os.environ[VARIABLE] = str(crash_points)  # workers inherit it, and this process is to live
    for attempt in range(RAY_STARTS):
        try:
            ray.init(address="local", include_dashboard=False, num_cpus=4, log_to_driver=False)
            break
        except Exception:
            ray.shutdown()
            if attempt == RAY_STARTS - 1:
                raise
    del os.environ[VARIABLE]
    yield
    ray.shutdown()


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Side by side, a file's tests stay together; those that share a Ray go first, in two groups of like length."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    for item in items:
        file = item.nodeid.split("::")[0]
        ray = "ray of the pipeline" if file.startswith("tests/pipeline/") else "ray of all others"
        item.add_marker(pytest.mark.xdist_group(ray if _shares_ray(item) else file))
    items.sort(key=lambda item: not _shares_ray(item))


def _shares_ray(item: pytest.Item) -> bool:
    return "ray_session" in getattr(item, "fixturenames", ())
