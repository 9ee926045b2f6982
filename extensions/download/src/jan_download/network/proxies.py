"""Which proxy a URL goes through: the setting, else the environment, the way curl reads it.

`no_proxy` is matched exactly: a name matches itself and, at a dot, what is below it. `example.com` is not
`badexample.com`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from ..errors import BadSource
from ..settings import DownloadSettings

__all__ = ["Proxies", "Proxy"]

_PORTS = {"http": 80, "https": 443, "socks5h": 1080, "socks5": 1080, "socks4a": 1080, "socks4": 1080}


@dataclass(frozen=True)
class Proxy:
    """A proxy and the login for it, "" for none. `kind`: `http`, `https`, or `socks5h` and the like, of which those
    that end in `h` or `a` look names up themselves."""

    kind: str
    host: str
    port: int
    name: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    @property
    def url(self) -> str:
        """Without the login."""
        return f"{self.kind}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


class Proxies:
    """The proxies of one run. `environment`: where they are read from when the settings name none."""

    def __init__(self, settings: DownloadSettings, environment: Mapping[str, str]) -> None:
        self._setting, self._exempt = settings.proxy.strip(), settings.no_proxy
        self._environment = environment

    def of(self, url: str) -> Proxy | None:
        """The proxy for `url`, None for a direct connection. Raises BadSource for one that cannot be used.

        `http_proxy` is read in lower case only: in upper case a web server's client could have set it (CVE-2016-5385).
        """
        if self._setting.lower() == "none":
            return None
        parts, environment = urlsplit(url), self._environment
        host = (parts.hostname or "").rstrip(".")
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
        names = ["http_proxy"] if parts.scheme == "http" else ["https_proxy", "HTTPS_PROXY"]
        found = (environment[n] for n in [*names, "all_proxy", "ALL_PROXY"] if environment.get(n))
        proxy = self._setting or next(found, "")
        exempt = self._exempt or environment.get("no_proxy") or environment.get("NO_PROXY") or ""
        if not proxy or any(_matches(entry, host, port) for entry in exempt.replace(",", " ").split()):
            return None
        return _parse(proxy if "://" in proxy else f"http://{proxy}")


def _parse(proxy: str) -> Proxy:
    """What the URL of a proxy says. Raises BadSource when it is none that can be used."""
    try:
        parts = urlsplit(proxy)
        port = parts.port
    except ValueError:
        raise BadSource("the address of the proxy is not one") from None
    if parts.scheme not in _PORTS:
        kind = parts.scheme[:20]
        raise BadSource(f"a proxy of the kind {kind}:// is not supported, only http, https, socks5h, socks5, socks4a")
    if not parts.hostname or port == 0:
        raise BadSource("the address of the proxy names no host")
    name, password = (None if text is None else unquote(text) for text in (parts.username, parts.password))
    return Proxy(parts.scheme, parts.hostname, port or _PORTS[parts.scheme], name or "", password or "")


def _matches(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        try:
            return address in ipaddress.ip_network(entry.strip("[]"), strict=False)
        except ValueError:
            pass
    name, colon, number = entry.rpartition(":")
    if colon and number.isascii() and number.isdigit():
        if int(number) != port:
            return False
        entry = name
    entry = entry.strip("[]").lower().removeprefix("*").lstrip(".").rstrip(".")
    return bool(entry) and (host == entry or host.endswith("." + entry))
