"""Connecting to Ray and disconnecting from it, without ever waiting silently or for ever."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from unipic.pipeline.errors import EngineError
from unipic.pipeline.execution.ray_address import REMEDY, TOKEN_REMEDY
from unipic.pipeline.execution.ray_processes import RayProcesses
from unipic.pipeline.supervision.failures import RayLost, essence

POLL_S = 0.2
OWN_ERROR_S = 5.0
CONNECT_S = 60.0  # takes three; Ray itself may never give up
LOCAL_STARTS = 2  # Ray gives its own processes 30 s to start, which is too short on a busy machine
SLOW_START = "timed out during startup"  # in the message of Ray's exception, which is a plain Exception
SHUTDOWN_S = 15.0  # it takes one second, or seven where a part of Ray is gone
RETRY = "The machine may be short of memory, or too busy with other work; run the same command again."

log = logging.getLogger("unipic.run")


@contextlib.contextmanager
def connected(
    address: str | None, *, cpus: float, verbose: bool, on_wait: Callable[[str], None]
) -> Iterator[RayProcesses | None]:
    """Connect this process to Ray while the body runs.

    Args:
        address: of a cluster; None starts a private Ray.
        cpus: how many a private one must offer at least.
        on_wait: called several times a second with what is being waited for.

    Yields:
        The processes of the private Ray. None of them is left at the end.

    Raises:
        EngineError: there is no Ray at `address`; RayLost where none could be started.
    """
    options: dict[str, Any] = {
        "address": address or "local",
        "log_to_driver": verbose,
        "logging_level": logging.INFO if verbose else logging.ERROR,
    }
    what = f"connecting to Ray at {address}"
    if address is None:
        options |= {"include_dashboard": False, "num_cpus": max(os.cpu_count() or 1, int(cpus + 1))}
        what = "starting Ray"
    for attempt in range(1, LOCAL_STARTS + 1):
        processes = RayProcesses() if address is None else None
        session = _Session(options)
        try:
            try:
                _wait(session, processes, lambda waited_s: on_wait(f"{what}, {waited_s:.0f} s"))
            except RayLost as error:
                if attempt == LOCAL_STARTS or SLOW_START not in error.message:
                    raise
                log.info("Ray is started once more: %s", error.message)
                continue
            yield processes
            return
        finally:
            session.end()
            if processes is not None:
                processes.end()


class _Session:
    """A thread that calls `ray.init`, which may hang, and lives as long as Ray: Linux kills what it started with it."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.error: BaseException | None = None
        self.ready = threading.Event()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run, name="ray session", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        import ray

        try:
            ray.init(**self.options)
        except BaseException as error:  # Ray raises many kinds: ConnectionError, RuntimeError, TimeoutError
            self.error = error
            self.ready.set()
            return
        self.ready.set()
        self.over.wait()
        ray.shutdown()

    def end(self) -> None:
        self.over.set()
        if self.ready.is_set():
            self.thread.join(SHUTDOWN_S)
            if self.thread.is_alive():
                log.info("Ray did not shut down within %.0f s", SHUTDOWN_S)


def _wait(session: _Session, processes: RayProcesses | None, on_wait: Callable[[float], None]) -> None:
    began = time.monotonic()
    while not session.ready.wait(POLL_S):
        waited_s = time.monotonic() - began
        on_wait(waited_s)
        if processes is None:
            if waited_s > CONNECT_S:
                address = session.options["address"]
                raise EngineError(f"Ray at {address} gave no answer within {CONNECT_S:.0f} s", remedy=REMEDY)
            continue
        processes.look()
        name = processes.ended()
        # Ray may be ending its processes itself, over an error that says more.
        if name and not session.ready.wait(OWN_ERROR_S):
            raise RayLost(f"Ray could not be started on this machine: its {name} process ended", remedy=RETRY)
    if (error := session.error) is None:
        return
    if processes is None:
        address = session.options["address"]
        said = essence(error)
        remedy = TOKEN_REMEDY if "AuthenticationError" in said else REMEDY
        raise EngineError(f"Ray at {address} could not be used: {said}", remedy=remedy) from error
    raise RayLost(f"Ray could not be started on this machine: {essence(error)}", remedy=RETRY) from error
