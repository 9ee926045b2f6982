"""Which proxy a URL goes through, from the environment, the way curl reads it.

`no_proxy` is matched exactly: a name matches itself and, at a dot, what is below it. `example.com` is not
`badexample.com`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

__all__ = ["proxy_for"]


def proxy_for(url: str, environment: Mapping[str, str]) -> str:
    """The proxy's URL, or "" for a direct connection.

    `http_proxy` is read in lower case only: in upper case a web server's client could have set it
    (CVE-2016-5385).
    """
    parts = urlsplit(url)
    host, port = (
        (parts.hostname or "").rstrip("."),
        parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0),
    )
    names = ["http_proxy"] if parts.scheme == "http" else ["https_proxy", "HTTPS_PROXY"]
    proxy = next((environment[n] for n in [*names, "all_proxy", "ALL_PROXY"] if environment.get(n)), "")
    exempt = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    if not proxy or any(_matches(entry, host, port) for entry in exempt.replace(",", " ").split()):
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"


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
