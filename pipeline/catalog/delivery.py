"""Sends OpenLineage events in a thread of its own: a data catalogue that is slow or down slows and fails no job.

Each run keeps its events in a file of its output. While some of them may be unsent a marker is beside that file, and
the next run that has somewhere to send events sends them again: catalogues take an event twice as one.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from unipic.pipeline.errors import UniPicError, redact
from unipic.pipeline.openlineage_options import OpenLineageOptions
from unipic.pipeline.output.layout import EVENTS
from unipic.pipeline.output.ledger import Ledger

if TYPE_CHECKING:
    from openlineage.client import OpenLineageClient
    from openlineage.client.event_v2 import RunEvent

CLOSE_S = 3.0  # that the end of a run waits for events on their way
TIMEOUT_S = 5.0
MOST_UNSENT = 100  # earlier runs whose events are sent again
RETRIES = {"total": 2, "backoff_factor": 0.2, "status_forcelist": [429, 502, 503, 504], "allowed_methods": ["POST"]}


class Sender:
    """Sends the events of one run, if a place to send them to is configured.

    Args:
        run_id: names the run's file of events.
        warn: told once why events could not be sent.
    """

    def __init__(
        self, ledger: Ledger, options: OpenLineageOptions, run_id: str, *, warn: Callable[[str], None]
    ) -> None:
        self.ledger = ledger
        self.warn = warn
        self.marker = ledger.uri(marker_path(run_id))
        self.problem = ""
        self._events: queue.SimpleQueue[RunEvent | None] = queue.SimpleQueue()
        self._client = self._connected(options)
        self._thread = threading.Thread(target=self._work, name="openlineage", daemon=True)
        if self._client is not None:
            self._mark()
            self._thread.start()

    def send(self, event: RunEvent) -> None:
        if self._client is not None:
            self._events.put(event)

    def close(self) -> None:
        """Wait a moment for what is on its way. What is unsent then stays marked."""
        if self._client is None:
            return
        self._events.put(None)
        self._thread.join(CLOSE_S)
        if self._thread.is_alive():
            self.problem = self.problem or f"no answer within {CLOSE_S:g} s"
        if self.problem:
            self.warn(f"OpenLineage events were not sent ({self.problem}); the next run of this job sends them")
            return
        try:
            self.ledger.storage.delete(self.marker)
        except UniPicError:
            return  # then they are sent twice, which does no harm

    def _connected(self, options: OpenLineageOptions) -> OpenLineageClient | None:
        try:
            return client(options)
        except Exception as error:  # whatever a configuration of the client's own may hold
            self.warn(f"OpenLineage is not configured correctly: {redact(str(error))}")
            return None

    def _mark(self) -> None:
        try:
            self.ledger.storage.write(self.marker, b"")
        except UniPicError as error:
            self.problem = error.message

    def _work(self) -> None:
        self._send_earlier()
        while (event := self._events.get()) is not None:
            self._attempt(event)

    def _attempt(self, event: RunEvent) -> bool:
        assert self._client is not None
        try:
            self._client.emit(event)
        except Exception as error:  # a transport may raise anything
            self.problem = redact(f"{type(error).__name__}: {error}")[:300]
            return False
        return True

    def _send_earlier(self) -> None:
        """Send what earlier runs left, until something cannot be sent."""
        assert self._client is not None
        try:
            found = [path for path in self.ledger.list(EVENTS, suffix=UNSENT) if self.ledger.uri(path) != self.marker]
            for path in found[:MOST_UNSENT]:
                lines = self.ledger.storage.read(self.ledger.uri(path.removesuffix(UNSENT) + EVENTS_OF_RUN))
                for line in lines.splitlines():
                    self._client.transport.emit(json.loads(line))
                self.ledger.storage.delete(self.ledger.uri(path))
        except Exception as error:  # the next run tries again
            logging.getLogger(__name__).debug("events of earlier runs stay unsent: %s", redact(str(error)))


UNSENT = ".unsent"
EVENTS_OF_RUN = ".ndjson"


def events_path(run_id: str) -> str:
    """The file of a run's events, inside the output."""
    return f"{EVENTS}/{run_id}{EVENTS_OF_RUN}"


def marker_path(run_id: str) -> str:
    return f"{EVENTS}/{run_id}{UNSENT}"


def client(options: OpenLineageOptions) -> OpenLineageClient | None:
    """The OpenLineage client that sends where the job, `openlineage.yml` or the environment say; None for nowhere."""
    if os.environ.get("OPENLINEAGE_DISABLED", "").strip().lower() == "true":
        return None
    from openlineage.client import OpenLineageClient
    from openlineage.client.transport import get_default_factory
    from openlineage.client.transport.noop import NoopConfig, NoopTransport

    logging.getLogger("openlineage").addHandler(logging.NullHandler())  # what fails is said once, in our words
    if transports := _transports(options):
        config: Any = transports[0] if len(transports) == 1 else {"type": "composite", "transports": transports}
        return OpenLineageClient(transport=get_default_factory().create(config))
    configured = OpenLineageClient(transport=NoopTransport(NoopConfig())).config.transport or {}
    if not configured.get("type") and not os.environ.get("OPENLINEAGE_URL"):
        return None  # the client would print events
    return OpenLineageClient()


def _transports(options: OpenLineageOptions) -> list[dict[str, Any]]:
    """What the job itself says, as the client's transports are configured."""
    found: list[dict[str, Any]] = []
    if options.url is not None:
        http: dict[str, Any] = {"type": "http", "url": options.url, "timeout": TIMEOUT_S, "retry": RETRIES}
        if key := os.environ.get("OPENLINEAGE_API_KEY"):
            http["auth"] = {"type": "api_key", "apiKey": key}
        found.append(http)
    if options.file is not None:
        found.append({"type": "file", "log_file_path": options.file, "append": True})
    return found
