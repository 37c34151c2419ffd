"""How stages and the driver call a run's supervisor: over Ray, or directly in one process."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from unipic.pipeline.supervision.admission import Permission
from unipic.pipeline.supervision.failures import RESUME, Failure, RayLost
from unipic.pipeline.supervision.health import Health, Rows
from unipic.pipeline.supervision.supervisor import Supervisor, UnitHistory

SUPERVISOR_TIMEOUT_S = 60.0  # it answers in milliseconds; a machine that swaps may need longer
POLL_S = 0.5
ALIVE_EVERY_S = 5.0
NOTICE_S = 3.0  # within which whoever watches Ray notices that it is gone


class SupervisorClient(Protocol):
    """What stages call. `RemoteClient` and `LocalClient` implement it."""

    def request_load(self, actor: str) -> Permission: ...
    def warmup_loaded(self, seconds: float) -> None: ...
    def warmup_passed(self, message: str) -> None: ...
    def warmup_failed(self, failure: Failure) -> None: ...
    def replica_loading(self, replica: str) -> None: ...
    def replica_loaded(self, replica: str) -> None: ...
    def begin_task(self, unit: str, stage: str) -> int | None: ...
    def start_unit(self, unit: str, replica: str) -> UnitHistory | None: ...
    def release_unit(self, unit: str) -> None: ...
    def attempt(self, unit: str, rows: Rows, replica: str) -> None: ...
    def answered(self, unit: str, rows: Rows, count: int) -> None: ...
    def flush(self) -> None: ...


class RemoteClient:
    """Calls a supervisor that is a Ray actor, and waits for its answer: what a dying replica reported has arrived.

    One call a micro-batch: answers are reported with the next attempt, of whichever unit, or by `flush`.

    Args:
        actor: handle of the `Supervisor` actor.
    """

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.unreported: list[tuple[str, Rows, int]] = []
        self.lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteClient, (self.actor,)

    def request_load(self, actor: str) -> Permission:
        """As `Supervisor.request_load`; "leave" where the supervisor is gone because its run has ended.

        Ray would print an error of a replica that still waits then, to whoever uses that Ray next.
        """
        from ray.exceptions import RayActorError

        try:
            permission: Permission = self._call("request_load", actor)
        except RayActorError:
            return "leave"
        return permission

    def warmup_loaded(self, seconds: float) -> None:
        self._call("warmup_loaded", seconds)

    def warmup_passed(self, message: str) -> None:
        self._call("warmup_passed", message)

    def warmup_failed(self, failure: Failure) -> None:
        self._call("warmup_failed", failure)

    def replica_loading(self, replica: str) -> None:
        self._call("replica_loading", replica)

    def replica_loaded(self, replica: str) -> None:
        self._call("replica_loaded", replica)
        threading.Thread(target=self._stay_counted, args=(replica,), name="alive", daemon=True).start()

    def _stay_counted(self, replica: str) -> None:
        with contextlib.suppress(Exception):  # Ray is gone, and this process is about to end
            while True:
                time.sleep(ALIVE_EVERY_S)
                self.actor.replica_alive.remote(replica)

    def begin_task(self, unit: str, stage: str) -> int | None:
        deaths: int | None = self._call("begin_task", unit, stage)
        return deaths

    def start_unit(self, unit: str, replica: str) -> UnitHistory | None:
        history: UnitHistory | None = self._call("start_unit", unit, replica)
        return history

    def release_unit(self, unit: str) -> None:
        self._call("release_unit", unit)

    def attempt(self, unit: str, rows: Rows, replica: str) -> None:
        with self.lock:
            before, self.unreported = self.unreported, []
            self._call("attempt", unit, rows, replica, before)

    def answered(self, unit: str, rows: Rows, count: int) -> None:
        with self.lock:
            self.unreported.append((unit, rows, count))

    def flush(self) -> None:
        with self.lock:
            if self.unreported:
                self.actor.record_answers.remote(self.unreported)  # losing this call costs a count, no row
                self.unreported = []

    def _call(self, method: str, *args: object) -> Any:
        import ray

        return ray.get(getattr(self.actor, method).remote(*args))


LocalClient = Supervisor
"""Where stages and supervisor share a process, the state is its own client."""


def ask_health(actor: Any, check: Callable[[float], None] = lambda _: None) -> Health:
    """The state of the run whose `Supervisor` actor this is.

    Args:
        check: raises RayLost if Ray itself is gone; it may wait for so many seconds to find out.

    Raises:
        RayLost: the supervisor is gone or does not answer: without it a stall would go unnoticed.
    """
    import ray

    asked_at = time.monotonic()
    answer = actor.health.remote()
    try:
        while not ray.wait([answer], timeout=POLL_S)[0]:
            check(0.0)
            if time.monotonic() - asked_at > SUPERVISOR_TIMEOUT_S:
                raise RayLost(f"the run's supervisor has not answered for {SUPERVISOR_TIMEOUT_S:.0f} s", remedy=RESUME)
        health: Health = ray.get(answer)
    except ray.exceptions.RayError as error:
        check(NOTICE_S)
        raise RayLost("the run's supervisor, a process on the driver's node, has ended", remedy=RESUME) from error
    return health
