"""Whether a Ray cluster can be reached at an address: Ray itself would try for minutes."""

from __future__ import annotations

import re
import socket

from unipic.pipeline.errors import EngineError

CONNECT_S = 5.0
REMEDY = (
    "Check --address: it takes HOST:PORT of a running cluster, ray://HOST:PORT, or auto on one of the cluster's "
    "machines. Without it, a private Ray starts on this machine."
)

_HOST_AND_PORT = re.compile(r"(?:ray://)?(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^\s:/\[\]]+)):(?P<port>\d+)/?")


def check_reachable(address: str) -> None:
    """Try to reach `address` where it names host and port; Ray itself looks up "auto" and other words.

    Raises:
        EngineError: there is no answer within a few seconds.
    """
    match = _HOST_AND_PORT.fullmatch(address.strip())
    if match is None:
        return
    try:
        socket.create_connection((match["v6"] or match["host"], int(match["port"])), timeout=CONNECT_S).close()
    except (OSError, OverflowError) as error:
        reason = "no answer" if isinstance(error, TimeoutError) else getattr(error, "strerror", None) or str(error)
        raise EngineError(f"there is no Ray cluster at {address}: {reason}", remedy=REMEDY) from error
