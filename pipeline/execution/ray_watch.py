"""Notices within seconds that Ray is gone: Ray itself waits for a minute, or ends this process without a message."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import TypeVar

from unipic.pipeline.execution.ray_processes import RayProcesses
from unipic.pipeline.supervision.client import NOTICE_S
from unipic.pipeline.supervision.failures import RESUME, RayLost

CHECK_EVERY_S = 0.5
LOOK_EVERY_S = 5.0  # for new processes: listing a machine's processes is not free
CONNECT_S = 2.0
UNREACHABLE_S = 6.0  # a cluster's service may miss a connection or two, and is gone after this long

T = TypeVar("T")


class RayWatch:
    """Watches, on a thread of its own, what the run's Ray cannot do without. Use it as a context manager.

    Args:
        processes: of a private Ray.
        services: (name, host, port) of a cluster's services, which must accept connections.
        on_wait: called several times a second while `call` waits, with what it waits for.
    """

    def __init__(
        self,
        processes: RayProcesses | None = None,
        services: Sequence[tuple[str, str, int]] = (),
        on_wait: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.processes = processes
        self.services = services
        self.on_wait = on_wait
        self.failure = ""
        self.noticed = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="ray watch", daemon=True)

    def __enter__(self) -> RayWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def check(self, *, wait_s: float = 0.0) -> None:
        """Give the watch `wait_s` to notice what a caller has just met.

        Raises:
            RayLost: Ray is gone.
        """
        if self.noticed.wait(wait_s) if wait_s else self.noticed.is_set():
            raise RayLost(self.failure, remedy=RESUME)

    def call(self, ask: Callable[[], T], what: str) -> T:
        """The result of `ask`, which calls Ray and would wait for a minute if Ray is gone.

        Args:
            what: what it does, in words, such as "asking Ray for its machines".

        Raises:
            RayLost: Ray is gone.
        """
        answer: Future[T] = Future()

        def work() -> None:
            try:
                answer.set_result(ask())
            except BaseException as error:  # raised where the answer is asked for
                answer.set_exception(error)

        threading.Thread(target=work, name="ray call", daemon=True).start()
        began = time.monotonic()
        while not wait([answer], timeout=CHECK_EVERY_S).done:
            self.check()
            self.on_wait(f"Ray is up; {what}, {time.monotonic() - began:.0f} s")
        if answer.exception() is not None:
            self.check(wait_s=NOTICE_S)
        return answer.result()

    def _watch(self) -> None:
        answered_at = {name: time.monotonic() for name, _, _ in self.services}
        looked_at = 0.0
        while not self._over.wait(CHECK_EVERY_S):
            if self.processes is not None:
                if time.monotonic() - looked_at > LOOK_EVERY_S:
                    self.processes.look()
                    looked_at = time.monotonic()
                if name := self.processes.ended():
                    self._notice(f"Ray's {name} process has ended")
                    return
            for name, host, port in self.services:
                if _accepts(host, port):
                    answered_at[name] = time.monotonic()
                elif time.monotonic() - answered_at[name] > UNREACHABLE_S:
                    self._notice(f"Ray's {name} at {host}:{port} cannot be reached any more")
                    return

    def _notice(self, failure: str) -> None:
        self.failure = failure
        self.noticed.set()


def services() -> list[tuple[str, str, int]]:
    """What the connected driver cannot do without: the cluster's head, and the raylet of its own node."""
    import ray

    context = ray.get_runtime_context()
    host, _, port = str(context.gcs_address).rpartition(":")
    here = context.get_node_id()
    raylets = [
        ("raylet", str(node["NodeManagerAddress"]), int(node["NodeManagerPort"]))
        for node in ray.nodes()
        if node["NodeID"] == here
    ]
    return [("GCS", host.strip("[]"), int(port)), *raylets]


def _accepts(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=CONNECT_S).close()
    except OSError:
        return False
    return True
