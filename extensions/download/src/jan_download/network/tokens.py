"""Credentials by host: tokens of the settings, and the anonymous ones that registries of the Docker kind hand out.

A token is for one origin. Nothing here ever puts one into a message.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from jan_core import InvalidParams

from ..errors import BadSource
from ..names import check_url
from .reach import is_loopback
from .redirects import host_of

__all__ = ["Challenge", "Tokens", "challenge"]

_USUAL = {"http": 80, "https": 443}
_SHORTEST = 60.0
"""Seconds that a registry's token holds when the registry does not say (as the Docker token protocol has it)."""
_PARAMETER = re.compile(r'([A-Za-z][A-Za-z0-9_-]{0,31})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


@dataclass(frozen=True)
class Challenge:
    """Where an anonymous token may be had, and what for."""

    realm: str
    service: str = ""
    scope: str = ""

    @property
    def url(self) -> str:
        """What to GET for it."""
        asked = "&".join(f"{n}={quote(v, safe=':/,')}" for n in ("service", "scope") if (v := getattr(self, n)))
        return self.realm + ("&" if "?" in self.realm else "?") * bool(asked) + asked


def challenge(header: str, url: str) -> Challenge | None:
    """Read a WWW-Authenticate header of the answer to `url`: the Bearer form that Docker's registries use.

    None when it is another one, or when its realm may not be asked: plain http, but for one on this machine that is
    named by a server on this machine.
    """
    begin = re.search(r"(?:^|,)\s*Bearer\s+", header[:8192], re.IGNORECASE)
    if not begin:
        return None
    values: dict[str, str] = {}
    for name, quoted, plain in _PARAMETER.findall(header[begin.end() : 8192]):
        values.setdefault(name.lower(), re.sub(r"\\(.)", r"\1", quoted) or plain)
    realm = values.get("realm", "")
    try:
        check_url(realm, "$")
    except InvalidParams:
        return None
    near = is_loopback(host_of(realm))
    if near != is_loopback(host_of(url)) or not (realm.startswith("https:") or near):
        return None
    return Challenge(realm, values.get("service", ""), values.get("scope", ""))


class Tokens:
    """The tokens of one run; any thread may use it. `named`: by host, or `host:port`; `$NAME` is a variable of the
    environment."""

    def __init__(self, named: Mapping[str, str], environment: Mapping[str, str]) -> None:
        self._named = {host.strip().rstrip(".").lower(): token.strip() for host, token in named.items()}
        self._environment = environment
        self._lock = threading.Lock()
        self._handed: dict[str, tuple[str, float]] = {}

    def authorization(self, url: str) -> str:
        """The Authorization for `url`, "" for none. Raises BadSource for a token that no header can carry."""
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".")
        if parts.scheme != "https" and not is_loopback(host):
            return ""
        token = self._value(self._find(url))
        if token:
            if not token.isascii() or not token.isprintable():
                raise BadSource(f"the token for {host} has characters that no token has", host=host)
            return token if " " in token else f"Bearer {token}"
        with self._lock:
            handed, until = self._handed.get(url, ("", 0.0))
        return f"Bearer {handed}" if handed and time.monotonic() < until else ""

    def missing(self, url: str) -> str:
        """The variable of the environment that should hold the token for `url`, and does not; "" otherwise."""
        token = self._find(url)
        return token[1:] if token.startswith("$") and not self._value(token) else ""

    def ask(self, wanted: Challenge, url: str, fetch: Callable[[str], bytes]) -> bool:
        """Get an anonymous token for `url` and keep it as long as it holds; False when none is given.

        `fetch` gets a small file without credentials.
        """
        if self._value(self._find(url)):
            return False  # the person's own was refused: nobody else's will do
        token, seconds = _handed_out(fetch(wanted.url))
        if not token:
            return False
        with self._lock:
            self._handed[url] = token, time.monotonic() + max(1.0, seconds * 0.9)
        return True

    def _find(self, url: str) -> str:
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".")
        usual = _USUAL.get(parts.scheme, 0)
        port = parts.port or usual
        token = self._named.get(f"{host}:{port}", "")
        return token or (self._named.get(host, "") if port == usual or is_loopback(host) else "")

    def _value(self, token: str) -> str:
        return self._environment.get(token[1:], "").strip() if token.startswith("$") else token


def _handed_out(answer: bytes) -> tuple[str, float]:
    """The token of a registry's answer and the seconds it holds; "" when there is none that can be used."""
    try:
        found: Any = json.loads(answer)
    except (ValueError, RecursionError):
        return "", 0.0
    if not isinstance(found, dict):
        return "", 0.0
    token = found.get("token") or found.get("access_token")
    if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]{1,16384}", token):
        return "", 0.0
    seconds = found.get("expires_in")
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 < seconds < 1e9:
        return token, _SHORTEST
    return token, float(seconds)
