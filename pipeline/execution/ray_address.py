"""Whether a Ray cluster can be used at an address: Ray itself would try for minutes."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

from unipic.pipeline.errors import EngineError

CONNECT_S = 5.0
REMEDY = (
    "Check --address: it takes HOST:PORT of a running cluster, or auto on one of the cluster's machines. Without it, a "
    "private Ray starts on this machine."
)
TOKEN_REMEDY = (
    "Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the token of the cluster (on its head, "
    "`ray get-auth-token` prints it). Clusters of Ray 2.60 and later ask for one by default."
)
CHECK_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"

_HOST_AND_PORT = re.compile(r"(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^\s:/\[\]]+)):(?P<port>\d+)/?")


def check_reachable(address: str) -> None:
    """Try to reach `address` where it names host and port; Ray itself looks up "auto" and other words.

    Raises:
        EngineError: there is no answer within a few seconds, or the address is Ray Client's.
    """
    if address.strip().startswith("ray://"):
        raise EngineError(
            f"{address} is an address of Ray Client, which runs do not support",
            remedy="Use `unipic submit --address http://HOST:8265`, or HOST:PORT on one of the cluster's machines.",
        )
    match = _HOST_AND_PORT.fullmatch(address.strip())
    if match is None:
        return
    host = match["v6"] or match["host"]
    try:
        socket.create_connection((host, int(match["port"])), timeout=CONNECT_S).close()
    except (OSError, OverflowError) as error:
        reason = "no answer" if isinstance(error, TimeoutError) else getattr(error, "strerror", None) or str(error)
        raise EngineError(f"there is no Ray cluster at {address}: {reason}", remedy=REMEDY) from error


def check_token(address: str) -> None:
    """Refuse a cluster that asks for a token which this process does not have: Ray would wait for minutes.

    Raises:
        EngineError: there is no token here, or another one.
    """
    match = _HOST_AND_PORT.fullmatch(address.strip())
    if match is None or _admits(address.strip("/ "), None):
        return
    token, mode = _own_token(), os.environ.get("RAY_AUTH_MODE", "token").lower()
    if token and mode == "token" and _admits(address.strip("/ "), token):
        return
    lack = "the token here is not the one it expects" if token else "there is none here"
    if token and mode != "token":
        lack = f"RAY_AUTH_MODE is {mode} here"
    raise EngineError(f"the Ray cluster at {address} asks for a token, and {lack}", remedy=TOKEN_REMEDY)


def _admits(address: str, token: str | None) -> bool:
    """Whether the head at `address` answers a caller with `token`; any other difficulty is left to Ray to report."""
    import grpc  # comes with Ray

    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(address) as channel:
        try:
            channel.unary_unary(CHECK_ALIVE)(b"", timeout=CONNECT_S, metadata=metadata)
        except grpc.RpcError as error:
            return bool(error.code() != grpc.StatusCode.UNAUTHENTICATED)
    return True


def _own_token() -> str:
    """What Ray would send: where it looks for tokens, in its order."""
    if token := os.environ.get("RAY_AUTH_TOKEN", ""):
        return token.strip()
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token"
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
