"""Where an endpoint is, and whether its address may be used at all. Text only: nothing here resolves or connects.

Off this machine only TLS will do: prompts and the key go along. Plain http is for addresses that cannot leave it, which
are literal ones of the loopback network, and `localhost`. The latter is never looked up (RFC 6761, 6.3): it stands for
127.0.0.1, then ::1.
"""

from __future__ import annotations

import ipaddress
from typing import NamedTuple
from urllib.parse import urlsplit

__all__ = ["Address", "address_of"]

_PORTS = {"http": 80, "https": 443}


class Address(NamedTuple):
    """`origin` is scheme, host and port in one spelling. `hosts`: what to connect to, in turn, in place of `host`."""

    scheme: str
    host: str
    origin: str
    loopback: bool
    hosts: tuple[str, ...]


def address_of(url: str, *, plain: bool = False) -> Address:
    """Read an address. `plain`: http will do anywhere, for what sees no more than TLS records (a proxy).

    Raises ValueError for one that cannot be used, saying why.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise ValueError(f"not an address: {error}") from None
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise ValueError("an address is of printable ASCII characters, without spaces (a domain in its xn-- form)")
    if parts.scheme not in _PORTS or not host:
        raise ValueError("an address begins with https:// (or http:// on this machine) and a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("an address must not hold a user name or password: the key is kept apart")
    if parts.query or parts.fragment:
        raise ValueError("an address must not hold a query or fragment")
    loopback, hosts = _loopback(host)
    if parts.scheme == "http" and not (loopback or plain):
        raise ValueError(f"plain http reaches this machine only (127.0.0.0/8, ::1, localhost): use https for {host}")
    shown = f"[{host}]" if ":" in host else host
    origin = f"{parts.scheme}://{shown}:{port if port is not None else _PORTS[parts.scheme]}"
    return Address(parts.scheme, host, origin, loopback, hosts)


def _loopback(host: str) -> tuple[bool, tuple[str, ...]]:
    if host == "localhost":
        return True, ("127.0.0.1", "::1")
    try:
        return ipaddress.ip_address(host).is_loopback, (host,)
    except ValueError:  # A name, or a spelling of an address (127.1, 0x7f.1) that others read in other ways.
        return False, (host,)
