"""Whether strangers can reach the Ray that a run uses: Ray runs code for everyone who reaches it."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence

SHOWN = 3


def exposure() -> str:
    """A warning about the Ray this process is connected to, or "". Ray must be initialised.

    The mode is this process's own: a cluster that requires a token refuses clients without one, and
    `ray.init` sets the variable where it finds a token.
    """
    import ray

    addresses = [str(node["NodeManagerAddress"]) for node in ray.nodes() if node["Alive"]]
    return warning(addresses, auth_mode=os.environ.get("RAY_AUTH_MODE", ""))


def warning(addresses: Sequence[str], *, auth_mode: str) -> str:
    """The warning for nodes at `addresses` (Ray listens on all of a machine's), or "" where they are safe.

    Args:
        auth_mode: what RAY_AUTH_MODE says: "token", or anything else for no token.
    """
    if auth_mode.lower() == "token":
        return ""
    reachable = [address for address in addresses if not _only_from_here(address)]
    if not reachable:
        return ""
    more = f" and {len(reachable) - SHOWN} more" if len(reachable) > SHOWN else ""
    return (
        f"Ray listens at {', '.join(reachable[:SHOWN])}{more} and requires no token: everyone who can connect can "
        "run code there. Run `ray get-auth-token --generate` once, set RAY_AUTH_MODE=token on every machine and "
        "restart Ray"
    )


def _only_from_here(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
