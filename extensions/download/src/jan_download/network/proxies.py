"""Which proxy a URL goes through: the setting, else the environment, the way curl reads it.

`no_proxy` is matched exactly: a name matches itself and, at a dot, what is below it. `example.com` is not
`badexample.com`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from ..errors import BadSource
from ..settings import DownloadSettings

if TYPE_CHECKING:
    from urllib3 import PoolManager

__all__ = ["Proxies"]

_SOCKS = ("socks5", "socks5h", "socks4", "socks4a")


class Proxies:
    """The proxies of one run. `environment`: where they are read from when the settings name none."""

    def __init__(self, settings: DownloadSettings, environment: Mapping[str, str]) -> None:
        self._setting, self._exempt = settings.proxy.strip(), settings.no_proxy
        self._environment = environment

    def of(self, url: str) -> str:
        """The URL of the proxy for `url`, or "" for a direct connection.

        `http_proxy` is read in lower case only: in upper case a web server's client could have set it (CVE-2016-5385).
        """
        if self._setting.lower() == "none":
            return ""
        parts, environment = urlsplit(url), self._environment
        host = (parts.hostname or "").rstrip(".")
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
        names = ["http_proxy"] if parts.scheme == "http" else ["https_proxy", "HTTPS_PROXY"]
        found = (environment[n] for n in [*names, "all_proxy", "ALL_PROXY"] if environment.get(n))
        proxy = self._setting or next(found, "")
        exempt = self._exempt or environment.get("no_proxy") or environment.get("NO_PROXY") or ""
        if not proxy or any(_matches(entry, host, port) for entry in exempt.replace(",", " ").split()):
            return ""
        return proxy if "://" in proxy else f"http://{proxy}"

    def manager(self, proxy: str, maxsize: int) -> PoolManager:
        """Connections through a proxy that `of` named. Raises BadSource when it is none."""
        import urllib3

        if not proxy:
            return urllib3.PoolManager(num_pools=32, maxsize=maxsize)
        try:
            parts = urlsplit(proxy)
            port = parts.port
        except ValueError:
            raise BadSource("the proxy's address is not one") from None
        if not parts.hostname or port == 0:
            raise BadSource("the proxy's address names no host")
        login = (unquote(parts.username or ""), unquote(parts.password or ""))
        bare = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        if parts.scheme in _SOCKS:
            from urllib3.contrib.socks import SOCKSProxyManager

            name, password = login if parts.username else (None, None)
            return SOCKSProxyManager(bare, name, password, num_pools=32, maxsize=maxsize)
        if parts.scheme in ("http", "https"):
            headers = urllib3.make_headers(proxy_basic_auth=":".join(login) if parts.username else None)
            return urllib3.ProxyManager(bare, num_pools=32, maxsize=maxsize, proxy_headers=headers)
        raise BadSource(f"proxies of the kind {parts.scheme}:// are not supported: only http, https and socks5h")


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
    if colon and number.isdigit():
        if int(number) != port:
            return False
        entry = name
    entry = entry.strip("[]").lower().removeprefix("*").lstrip(".").rstrip(".")
    return bool(entry) and (host == entry or host.endswith("." + entry))
