"""Who may speak to the local API: addresses, Host and Origin lists, and keys. Decisions only; `guard.py` enforces them.

A loopback port is reachable by every web page the person visits. Three ways in are closed, each by its own list,
because none closes the others: DNS rebinding (Host), requests that need no CORS preflight (Origin, Sec-Fetch-Site,
content type), and other machines (an API key, without which nothing but loopback is bound).
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

__all__ = [
    "NATIVE_ORIGINS",
    "Access",
    "AccessError",
    "Keys",
    "allowed_hosts",
    "allowed_origins",
    "is_loopback",
    "read_keys",
]

NATIVE_ORIGINS = ("tauri://localhost", "http://tauri.localhost", "https://tauri.localhost")
"""Origins that no web page can have: a Tauri application's own window and its HTTP plugin."""

SHORTEST_KEY = 16


class AccessError(Exception):
    """The configuration would be unsafe or cannot be read; the message is for the person who wrote it."""


class Keys:
    """A set of API keys. Kept as digests, so that comparing takes the same time whatever is presented."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._digests = [_digest(key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def accept(self, presented: str) -> bool:
        """Whether this is one of the keys. Every key is compared, so that time tells nothing."""
        digest = _digest(presented)
        found = False
        for known in self._digests:
            found |= hmac.compare_digest(known, digest)
        return found


@dataclass(frozen=True, slots=True)
class Access:
    """The rules in force. `hosts` are lower-case `host[:port]`; `cors` are the origins that may also read answers."""

    hosts: frozenset[str]
    origins: frozenset[str] = frozenset(NATIVE_ORIGINS)
    cors: frozenset[str] = frozenset()
    keys: Keys = field(default_factory=Keys)
    body_limit: int = 32 * 1024 * 1024

    def origin_allowed(self, origin: str) -> bool:
        return origin in self.origins or origin in self.cors


def allowed_hosts(port: int, bound: Iterable[str] = (), configured: Iterable[str] = ()) -> frozenset[str]:
    """The exact values of `Host` that are served.

    Loopback names and the addresses bound by name always carry the port; an unspecified address (0.0.0.0, ::) is never
    a name of ours. A configured name is taken as given and, when it names no port, with ours too.
    """
    names = {"127.0.0.1", "localhost", "[::1]"}
    for address in bound:
        parsed = ipaddress.ip_address(address)
        if not parsed.is_unspecified:
            names.add(f"[{parsed}]" if parsed.version == 6 else str(parsed))
    hosts = {f"{name}:{port}" for name in names}
    if port == 80:
        hosts |= names  # clients leave out the scheme's own port
    for given in configured:
        name = given.strip().lower()
        if not name or "*" in name or "/" in name or any(c.isspace() for c in name):
            raise AccessError(f"{given!r} is not a host name; give it exactly, as in example.lan or example.lan:8443")
        hosts.add(name)
        if ":" not in name.rpartition("]")[2]:
            hosts.add(f"{name}:{port}")
    return frozenset(hosts)


def allowed_origins(configured: Iterable[str]) -> frozenset[str]:
    """Origins as browsers write them (`scheme://host[:port]`, RFC 6454). Raises AccessError for anything else."""
    origins = set()
    for given in configured:
        scheme, separator, rest = given.strip().lower().partition("://")
        if not scheme or not separator or not rest or "*" in rest or "/" in rest or any(c.isspace() for c in rest):
            raise AccessError(f"{given!r} is not an origin; give it exactly, as in http://localhost:3000")
        origins.add(f"{scheme}://{rest}")
    return frozenset(origins)


def is_loopback(address: str) -> bool:
    """Whether this IP address can be reached from this machine only."""
    return ipaddress.ip_address(address).is_loopback


def read_keys(path: Path) -> tuple[Keys, list[str]]:
    """Read API keys, one a line; blank lines and `#` comments are skipped. Also returns warnings for the person.

    Raises AccessError when the file cannot be read, holds no key, or holds one too short to be safe.
    """
    try:
        text = path.read_text("ascii")
        mode = path.stat().st_mode
    except OSError as error:
        raise AccessError(f"cannot read the key file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise AccessError(f"the key file {path} holds more than ASCII letters, digits and signs") from None
    keys = [line.strip() for line in text.splitlines()]
    keys = [key for key in keys if key and not key.startswith("#")]
    if not keys:
        raise AccessError(f"the key file {path} holds no key")
    for number, key in enumerate(keys, 1):
        if len(key) < SHORTEST_KEY or any(c.isspace() or not c.isprintable() for c in key):
            raise AccessError(
                f"key {number} in {path} must be at least {SHORTEST_KEY} printable characters without spaces"
            )
    warnings = []
    if os.name != "nt" and mode & 0o077:  # on Windows the mode bits say nothing about other users
        warnings.append(f"other users can read the key file {path}; run: chmod 600 {path}")
    return Keys(keys), warnings


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
