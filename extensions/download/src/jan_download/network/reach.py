"""Whether this machine has a network at all. Asking sends no packet."""

from __future__ import annotations

import ipaddress
import socket

__all__ = ["is_loopback", "online"]

# Documentation addresses would do as well, but some systems route those nowhere. Nothing is sent to these.
_FAR = ((socket.AF_INET, "8.8.8.8"), (socket.AF_INET6, "2001:4860:4860::8888"))


def online() -> bool:
    """Whether there is a route to the world, by IPv4 or IPv6."""
    return any(_route(family, address) for family, address in _FAR)


def _route(family: socket.AddressFamily, address: str) -> bool:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 53))  # a UDP socket only looks the route up
    except OSError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, so that no network is needed for it."""
    host = host.rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
