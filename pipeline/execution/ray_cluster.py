"""Connecting to Ray for one run, quietly, and leaving this process as it was."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

from unipic.pipeline.errors import EngineError
from unipic.pipeline.execution.quiet import quiet_native_stderr
from unipic.pipeline.execution.ray_address import REMEDY, check_reachable
from unipic.pipeline.supervision.failures import essence
from unipic.pipeline.supervision.supervisor import Supervisor

QUIET_LOGGERS = ("ray", "ray.data")  # what concerns the user reaches the driver, which reports it in our words

LOCAL_STARTS = 2  # Ray gives its own processes 30 s to start, which a busy machine may not

log = logging.getLogger("unipic.run")


@contextlib.contextmanager
def ray_cluster(address: str | None, *, cpus: float, verbose: bool) -> Iterator[None]:
    """Connect to Ray, and disconnect at the end; a Ray that was connected before stays connected.

    Ray's loggers, the default `DataContext` and the environment are as before when the body has ended.

    Args:
        address: of a cluster; None starts a private one on this machine.
        cpus: how many a private one must offer at least.
        verbose: let Ray print what it likes.

    Raises:
        EngineError: there is no Ray at `address`, or none could be started.
    """
    if address is not None:
        check_reachable(address)
    # A thread of Ray Data's that outlives its cluster would otherwise start a new one: so this one is never restored.
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
    with contextlib.ExitStack() as stack:
        if not verbose:
            stack.enter_context(quiet_native_stderr())
            # Read when Ray is imported: a pattern for lines of workers and raylets that it would print here.
            stack.enter_context(_environment("RAY_DEDUP_LOGS_SKIP_REGEX", "."))
        import ray
        import ray.data  # sets the level of its logger as it is imported

        loggers = stack.enter_context(_levels_restored(QUIET_LOGGERS))  # `ray.init` sets them too
        if not ray.is_initialized():
            _start(address, cpus=cpus, verbose=verbose)
            stack.callback(ray.shutdown)
        for logger in () if verbose else loggers:
            logger.setLevel(logging.CRITICAL)
        stack.enter_context(_data_settings(verbose=verbose))
        yield


@contextlib.contextmanager
def supervisor_actor() -> Iterator[Any]:
    """A handle of a new `Supervisor` actor on this node; it ends with the body. Ray must be connected."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # Beside the driver: losing any other node must not lose what the run knows of its crashes.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(num_cpus=0, max_concurrency=1, scheduling_strategy=here)(Supervisor).remote()
    try:
        yield actor
    finally:
        ray.kill(actor)


def _start(address: str | None, *, cpus: float, verbose: bool) -> None:
    import ray

    local: dict[str, Any] = {"include_dashboard": False, "num_cpus": max(os.cpu_count() or 1, int(cpus + 1))}
    for attempt in range(LOCAL_STARTS):
        try:
            ray.init(
                address=address or "local",
                log_to_driver=verbose,
                logging_level=logging.INFO if verbose else logging.ERROR,
                **(local if address is None else {}),
            )
            return
        except Exception as error:  # Ray raises many kinds: ConnectionError, RuntimeError, TimeoutError
            ray.shutdown()
            if address is not None:
                raise EngineError(f"Ray at {address} could not be used: {essence(error)}", remedy=REMEDY) from error
            if attempt == LOCAL_STARTS - 1:
                raise EngineError(f"Ray could not be started on this machine: {essence(error)}") from error
            log.info("Ray did not start, trying once more: %s", essence(error))


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
