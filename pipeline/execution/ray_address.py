"""Whether anybody listens at the address of a Ray cluster: Ray itself tries for minutes before it says so."""

from __future__ import annotations

import re
import socket

from unipic.pipeline.errors import EngineError

CONNECT_S = 5.0
REMEDY = (
    "Look at --address: it takes HOST:PORT of a running cluster, ray://HOST:PORT, or auto on one of the cluster's "
    "machines; without it, a Ray of the run's own starts on this machine."
)

_HOST_AND_PORT = re.compile(r"(?:ray://)?(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^\s:/\[\]]+)):(?P<port>\d+)/?")


def somebody_listens(address: str) -> None:
    """Try to reach `address` where it names host and port; "auto" and other words are Ray's to look up.

    Raises:
        EngineError: nobody answers within a few seconds.
    """
    found = _HOST_AND_PORT.fullmatch(address.strip())
    if found is None:
        return
    try:
        socket.create_connection((found["v6"] or found["host"], int(found["port"])), timeout=CONNECT_S).close()
    except (OSError, OverflowError) as error:
        why = "no answer" if isinstance(error, TimeoutError) else getattr(error, "strerror", None) or str(error)
        raise EngineError(f"there is no Ray cluster at {address}: {why}", remedy=REMEDY) from error
