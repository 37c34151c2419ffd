"""Connecting to Ray for one run, quietly, and leaving this process as it was."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

from unipic.pipeline.execution.quiet import quiet_native_stderr
from unipic.pipeline.execution.ray_address import check_reachable, check_token
from unipic.pipeline.execution.ray_start import connected
from unipic.pipeline.execution.ray_watch import RayWatch, services
from unipic.pipeline.supervision.supervisor import Supervisor

QUIET_LOGGERS = ("ray", "ray.data")  # what concerns the user reaches the driver, which reports it in our words


@contextlib.contextmanager
def ray_cluster(
    address: str | None, *, cpus: float, verbose: bool, on_wait: Callable[[str], None] = lambda _: None
) -> Iterator[RayWatch]:
    """Connect to Ray, and disconnect at the end; a Ray that was connected before stays connected.

    Ray's loggers, the default `DataContext` and the environment are as before when the body has ended.

    Args:
        address: of a cluster; None starts a private one on this machine.
        cpus: how many a private one must offer at least.
        verbose: let Ray print what it likes.
        on_wait: called several times a second, while Ray starts and later calls wait, with what is being waited for.

    Yields:
        Whether Ray is still there.

    Raises:
        EngineError: there is no Ray at `address`; RayLost where none could be started.
    """
    if address is not None:
        check_reachable(address)
        check_token(address)
    # A thread of Ray Data's that outlives its cluster would otherwise start a new one: so this one is never restored.
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
    with contextlib.ExitStack() as stack:
        if not verbose:
            stack.enter_context(quiet_native_stderr())
            # Read when Ray is imported: a pattern for lines of workers and raylets that it would print here.
            stack.enter_context(_environment("RAY_DEDUP_LOGS_SKIP_REGEX", "."))
        on_wait("loading Ray")
        import ray
        import ray.data  # sets the levels of its loggers

        loggers = stack.enter_context(_levels_restored(QUIET_LOGGERS))  # `ray.init` sets them too
        processes = None
        if not ray.is_initialized():
            processes = stack.enter_context(connected(address, cpus=cpus, verbose=verbose, on_wait=on_wait))
        for logger in () if verbose else loggers:
            logger.setLevel(logging.CRITICAL)
        stack.enter_context(_data_settings(verbose=verbose))
        yield stack.enter_context(RayWatch(processes, () if processes else services(), on_wait))


@contextlib.contextmanager
def supervisor_actor(watch: RayWatch | None = None) -> Iterator[Any]:
    """A handle of a new `Supervisor` actor on this node, which answers; it ends with the body."""
    import ray

    what = "starting the run's supervisor"
    actor = watch.call(_new_supervisor, what) if watch is not None else _new_supervisor()
    try:
        yield actor
    finally:
        with contextlib.suppress(ray.exceptions.RayError):  # Ray is gone, and the actor with it
            ray.kill(actor)


def _new_supervisor() -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # Beside the driver: losing any other node must not lose what the run knows of its crashes.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(num_cpus=0, max_concurrency=1, scheduling_strategy=here)(Supervisor).remote()
    ray.get(actor.health.remote())
    return actor


@contextlib.contextmanager
def _data_settings(*, verbose: bool) -> Iterator[None]:
    """Ray Data keeps each block, which is a unit, whole; and prints nothing."""
    from ray.data import DataContext

    settings = DataContext.get_current().copy()
    settings.target_max_block_size = None
    settings.memory_usage_poll_interval_s = None
    settings.enable_progress_bars = verbose
    settings.print_on_execution_start = verbose
    with DataContext.current(settings):
        yield


@contextlib.contextmanager
def _levels_restored(names: tuple[str, ...]) -> Iterator[list[logging.Logger]]:
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        yield loggers
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
