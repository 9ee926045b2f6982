"""One GET over HTTP(S): redirects by hand, proxies, and errors in our words. It knows nothing of files and
jobs.

urllib3 is imported when the first connection is made. TLS is checked against the system's certificates.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from jan_core import InvalidParams, JanError
from jan_core.types import DownloadSource

from .errors import BadSource, SourceNotFound, SourceUnauthorized, SourceUnreachable
from .names import check_url
from .proxies import proxy_for
from .ranges import retry_after

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager

__all__ = ["Answer", "Transport", "Unreachable", "host_of"]

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRANSIENT = frozenset({408, 425, 429})
_MAX_REDIRECTS = 10


class Unreachable(Exception):
    """The source fails for now. `delay`: seconds the server asked to wait, 0 when it did not."""

    def __init__(self, message: str, delay: float = 0.0) -> None:
        super().__init__(message)
        self.error = SourceUnreachable(message)
        self.delay = delay


@dataclass
class Answer:
    """A response whose body has not been read. `redirected`: it comes from another origin than was asked."""

    response: BaseHTTPResponse
    url: str
    redirected: bool

    @property
    def status(self) -> int:
        return self.response.status

    @property
    def headers(self) -> Mapping[str, str]:
        """Field names in any case."""
        return self.response.headers

    def read(self, size: int) -> bytes:
        """What has arrived, at most `size` bytes, waiting for the first; empty at the end. Raises
        Unreachable."""
        with _translated(self.url):
            return self.response.read1(size, decode_content=False) or b""

    def interrupt(self) -> None:
        """Make a `read` in another thread return or raise at once."""
        with contextlib.suppress(OSError, RuntimeError, ValueError):  # it may have ended already
            self.response.shutdown()

    def close(self) -> None:
        self.response.close()


@dataclass
class Transport:
    """Connections of one job. `environment` is where proxies are read from."""

    connect_timeout: float
    stall_timeout: float
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    _pools: dict[str, PoolManager] = field(default_factory=dict)

    def get(self, source: DownloadSource, headers: Mapping[str, str]) -> Answer:
        """Ask for a source and follow its redirects; answers only 200, 206 and 416.

        The source's own headers (credentials, as a rule) go to its own origin and nowhere else. Raises
        Unreachable when it may work later, else SourceUnauthorized, SourceNotFound or BadSource.
        """
        url, home = source.url, _origin(source.url)
        for _ in range(_MAX_REDIRECTS + 1):
            own = source.headers if _origin(url) == home else {}
            answer = Answer(self._request(url, {**own, **headers}), url, _origin(url) != home)
            if answer.status not in _REDIRECTS:
                return self._accepted(answer)
            location = answer.headers.get("Location", "")
            answer.close()
            url = _redirect(url, location)
        raise BadSource(f"{host_of(source.url)} redirects more than {_MAX_REDIRECTS} times", host=host_of(source.url))

    def close(self) -> None:
        for pool in self._pools.values():
            pool.clear()
        self._pools.clear()

    def _request(self, url: str, headers: Mapping[str, str]) -> BaseHTTPResponse:
        import urllib3

        fields = {"User-Agent": "jan-download/0.1", "Accept": "*/*", "Accept-Encoding": "identity", **headers}
        with _translated(url):
            return self._pool(url).request(
                "GET",
                url,
                headers=fields,
                redirect=False,
                retries=False,
                preload_content=False,
                timeout=urllib3.Timeout(connect=self.connect_timeout, read=self.stall_timeout),
            )

    def _pool(self, url: str) -> PoolManager:
        import urllib3

        proxy = proxy_for(url, self.environment)
        if proxy not in self._pools:
            if not proxy:
                self._pools[proxy] = urllib3.PoolManager(num_pools=4, maxsize=1)
            else:
                parts = urlsplit(proxy)
                if parts.scheme not in ("http", "https"):
                    raise BadSource(
                        f"proxies of the kind {parts.scheme}:// are not supported, only http:// and https://"
                    )
                bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
                login = f"{parts.username or ''}:{parts.password or ''}" if parts.username else None
                self._pools[proxy] = urllib3.ProxyManager(
                    bare, num_pools=4, maxsize=1, proxy_headers=urllib3.make_headers(proxy_basic_auth=login)
                )
        return self._pools[proxy]

    def _accepted(self, answer: Answer) -> Answer:
        status, host = answer.status, host_of(answer.url)
        if status in (200, 206, 416):
            encoding = answer.headers.get("Content-Encoding", "identity").strip().lower()
            if encoding in ("", "identity"):
                return answer
            answer.close()
            raise BadSource(
                f"{host} sends the file encoded as {encoding}, though only identity was asked for", host=host
            )
        delay = retry_after(answer.headers.get("Retry-After"))
        answer.close()
        said = f"{host} answered {status} {http.client.responses.get(status, '')}".rstrip()
        if status in _TRANSIENT or status >= 500:
            raise Unreachable(said, delay)
        kind: type[JanError] = BadSource
        if status in (401, 403):
            kind = SourceUnauthorized
            said += ": it wants credentials, or a licence accepted on its web page"
        elif status in (404, 410):
            kind = SourceNotFound
        raise kind(said, status=status, host=host, redirected=answer.redirected)


class _translated:  # noqa: N801 - reads as a statement
    """Turns what urllib3 and the socket raise into Unreachable or BadSource."""

    def __init__(self, url: str) -> None:
        self._host = host_of(url)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        import urllib3.exceptions as u

        if isinstance(error, u.SSLError | ssl.SSLError):
            reasons = [error, *error.args, error.__cause__, error.__context__]
            bad = next((r for r in reasons if isinstance(r, ssl.SSLCertVerificationError)), None)
            if bad is not None:
                raise BadSource(
                    f"the certificate of {self._host} is not trusted: {bad.verify_message}", host=self._host
                ) from error
        if isinstance(error, u.LocationParseError | u.InvalidHeader | u.URLSchemeUnknown):
            raise BadSource(f"{self._host}: {error}", host=self._host) from error
        if isinstance(error, u.HTTPError | OSError | http.client.HTTPException):
            raise Unreachable(f"{self._host}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    import urllib3.exceptions as u

    if isinstance(error, u.NameResolutionError):
        return "its name cannot be resolved"
    if isinstance(error, u.NewConnectionError):
        return "no connection"  # a subclass of the next
    if isinstance(error, u.ConnectTimeoutError):
        return "no connection in time"
    if isinstance(error, u.ReadTimeoutError):
        return "it stopped sending"
    if isinstance(error, u.ProxyError):
        return "the proxy does not answer"
    if isinstance(error, u.ProtocolError):
        return "the connection broke"
    return str(error) or type(error).__name__


def _redirect(url: str, location: str) -> str:
    target = urljoin(url, location)
    host = host_of(url)
    if not location:
        raise BadSource(f"{host} redirects, but does not say where to", host=host)
    try:
        check_url(target, "$")
    except InvalidParams as error:
        raise BadSource(f"{host} redirects to an address that cannot be used: {error.message}", host=host) from None
    if url.startswith("https:") and not target.startswith("https:"):
        raise BadSource(f"{host} redirects from https to plain http, which is refused", host=host)
    return target


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return (
        parts.scheme,
        (parts.hostname or "").rstrip("."),
        parts.port or {"http": 80, "https": 443}[parts.scheme],
    )


def host_of(url: str) -> str:
    """The host, for messages: paths and queries may hold secrets."""
    return urlsplit(url).hostname or "the source"
