"""A run leaves the process as it was: Ray's loggers, the default DataContext, the environment."""

from __future__ import annotations

import logging
import os

import pytest
from ray.data import DataContext

from tests.patience import HANGS_S
from unipic.pipeline.execution.ray_cluster import QUIET_LOGGERS, ray_cluster

SETTINGS = (
    "target_max_block_size",
    "memory_usage_poll_interval_s",
    "enable_progress_bars",
    "print_on_execution_start",
)


def ambient() -> dict[str, object]:
    """What a run changes while it lasts."""
    context = DataContext.get_current()
    return {
        **{name: getattr(context, name) for name in SETTINGS},
        **{name: logging.getLogger(name).level for name in QUIET_LOGGERS},
        **{name: os.environ.get(name) for name in ("RAY_DEDUP_LOGS_SKIP_REGEX",)},
    }


def test_loggers_data_settings_and_environment_are_restored(ray_session: None) -> None:
    before = ambient()
    with ray_cluster(None, cpus=1, verbose=False):
        assert DataContext.get_current().target_max_block_size is None
        assert ambient() != before
    assert ambient() == before


def test_they_are_restored_after_an_error_too(ray_session: None) -> None:
    before = ambient()
    with pytest.raises(ValueError, match="the run failed"), ray_cluster(None, cpus=1, verbose=False):
        raise ValueError("the run failed")
    assert ambient() == before


@pytest.mark.slow
def test_a_private_ray_leaves_nothing_changed(tmp_path: object) -> None:
    """In a process of its own, where Ray is not up before."""
    import subprocess
    import sys

    code = """
from tests.pipeline.execution.test_ray_cluster import ambient
from unipic.pipeline.execution.ray_cluster import ray_cluster
before = ambient()
for _ in range(2):
    with ray_cluster(None, cpus=1, verbose=False):
        assert ambient() != before
    assert ambient() == before, (before, ambient())
print("as before")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=HANGS_S, check=False)
    assert done.stdout == "as before\n", done.stderr
