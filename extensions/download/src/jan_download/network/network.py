"""Requests for files: one GET each, redirects followed by hand, answers checked before anybody reads them."""

from __future__ import annotations

import http.client
import os
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from jan_core import JanError
from jan_core.types import DownloadSource

from ..errors import BadSource, SourceNotFound, SourceUnauthorized
from ..settings import DownloadSettings
from .body import Body
from .errors import Changed, NoRanges, Unreachable
from .proxies import Proxies
from .ranges import content_length, content_range, retry_after, strong_validator
from .redirects import REDIRECTS, expiry, host_of, origin, target
from .translate import translated

if TYPE_CHECKING:
    from urllib3 import HTTPResponse, PoolManager

__all__ = ["Network"]

_TRANSIENT = frozenset({408, 425, 429})
_STALE = frozenset({401, 403, 404, 410})
"""What a signed link answers when its time is over."""
_MOST_REDIRECTS = 10


class Network:
    """The connections of one run; any thread may use it. `environment`: where proxies and tokens are read from."""

    def __init__(self, settings: DownloadSettings, environment: Mapping[str, str] = os.environ) -> None:
        self._settings = settings
        self._proxies = Proxies(settings, environment)
        self._lock = threading.Lock()
        self._pools: dict[str, PoolManager] = {}
        self._bodies: set[Body] = set()
        self._targets: dict[str, tuple[str, float]] = {}
        """Where a source redirected to, and until when that holds."""
        self._closed = False

    def open(
        self, source: DownloadSource, first: int = 0, last: int = -1, *, validator: str = "", size: int = 0
    ) -> Body:
        """Ask for the bytes `first` to `last` (inclusive; -1: to the end) of a file of `size` bytes (0: unknown).

        `validator`: the version that is meant; the source answers with that one or not at all. Raises Unreachable when
        it may work later; NoRanges or Changed when the source cannot give this part; SourceUnauthorized, SourceNotFound
        or BadSource when a person must do something.
        """
        headers = {"Range": f"bytes={first}-{last if last >= 0 else ''}"}
        if validator:
            headers["If-Range"] = validator
        response, url = self._get(source, headers)
        if response.status == 416 and not first:  # an empty file has no range at all
            response.close()
            response, url = self._get(source, {})
        try:
            body = self._body(response, host_of(url), first, last, validator, size)
        except BaseException:
            response.close()
            raise
        with self._lock:
            self._bodies = {each for each in self._bodies if not each.closed} | {body}
            closed = self._closed
        if closed:
            body.interrupt()
        return body

    def fetch(self, source: DownloadSource, limit: int) -> bytes:
        """A small file as a whole. Raises as `open` does, and BadSource when it has more than `limit` bytes."""
        response, url = self._get(source, {})
        host = host_of(url)
        try:
            length = content_length(response.headers)
            if response.status != 200:
                raise BadSource(f"{host} answered {response.status} to a request for a whole file", host=host)
            parts: list[bytes] = []
            got = 0
            while got <= limit and length <= limit:
                with translated(host):
                    part = response.read1(min(1 << 16, limit + 1 - got), decode_content=False)
                if not part:
                    response.release_conn()
                    return b"".join(parts)
                parts.append(part)
                got += len(part)
            raise BadSource(f"{host} sends more than {limit} bytes", host=host)
        finally:
            response.close()

    def close(self) -> None:
        """End what is under way, in whatever thread, and let go of the connections that were kept."""
        with self._lock:
            self._closed = True
            bodies, pools = self._bodies, list(self._pools.values())
            self._bodies = set()
            self._pools = {}
        for body in bodies:
            body.interrupt()
        for pool in pools:
            pool.clear()

    # -- one request ----------------------------------------

    def _get(self, source: DownloadSource, headers: Mapping[str, str]) -> tuple[HTTPResponse, str]:
        """The answer (200, 206 or 416) to a request for a source, and the address that gave it."""
        with self._lock:
            url, until = self._targets.get(source.url, (source.url, 0.0))
        if url != source.url:
            if time.time() < until:
                try:
                    response = self._request(source, url, headers)
                except Unreachable:
                    self._forget(source)
                    raise
                if response.status not in _STALE and response.status not in REDIRECTS:
                    return self._accepted(response, url), url
                response.close()
            self._forget(source)
        return self._follow(source, headers)

    def _follow(self, source: DownloadSource, headers: Mapping[str, str]) -> tuple[HTTPResponse, str]:
        url, until, seen = source.url, float("inf"), set[str]()
        host = host_of(url)
        while url not in seen:
            if len(seen) > _MOST_REDIRECTS:
                raise BadSource(f"{host} redirects more than {_MOST_REDIRECTS} times", host=host)
            seen.add(url)
            response = self._request(source, url, headers)
            if response.status not in REDIRECTS:
                response = self._accepted(response, url)
                if url != source.url and time.time() < until:
                    with self._lock:
                        self._targets[source.url] = url, until
                return response, url
            response.close()
            url = target(url, response.headers.get("Location", ""))
            until = min(until, expiry(url, response.headers))
        raise BadSource(f"{host} redirects in a circle", host=host)

    def _forget(self, source: DownloadSource) -> None:
        with self._lock:
            self._targets.pop(source.url, None)

    def _request(self, source: DownloadSource, url: str, headers: Mapping[str, str]) -> HTTPResponse:
        import urllib3

        own = source.headers if origin(url) == origin(source.url) else {}
        fields = {"User-Agent": "jan-download/0.1", "Accept": "*/*", **own, "Accept-Encoding": "identity", **headers}
        timeout = urllib3.Timeout(connect=self._settings.connect_timeout, read=self._settings.stall_timeout)
        with translated(host_of(url)):
            response = self._pool(url).request(
                "GET",
                url,
                headers=fields,
                redirect=False,
                retries=False,
                preload_content=False,
                timeout=timeout,
            )
        assert isinstance(response, urllib3.HTTPResponse)
        return response

    def _pool(self, url: str) -> PoolManager:
        proxy = self._proxies.of(url)
        with self._lock:
            if self._closed:
                raise Unreachable(f"{host_of(url)}: the transfer was interrupted")
            if proxy not in self._pools:
                self._pools[proxy] = self._proxies.manager(proxy, maxsize=self._settings.max_connections)
            return self._pools[proxy]

    # -- judging an answer ----------------------------------------

    def _accepted(self, response: HTTPResponse, url: str) -> HTTPResponse:
        """The response if it is a file, or says why it is not (416); the error it stands for otherwise."""
        status, host = response.status, host_of(url)
        if status in (200, 206, 416):
            encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
            if encoding in ("", "identity"):
                return response
            response.close()
            raise BadSource(
                f"{host} sends the file encoded as {encoding[:40]}, though only identity was asked for", host=host
            )
        delay = retry_after(response.headers.get("Retry-After"))
        response.close()
        said = f"{host} answered {status} {http.client.responses.get(status, '')}".rstrip()
        if status in _TRANSIENT or status >= 500:
            raise Unreachable(said, delay)
        kind: type[JanError] = BadSource
        if status in (401, 403):
            kind = SourceUnauthorized
            said += ": it wants credentials, or a licence accepted on its web page"
        elif status in (404, 410):
            kind = SourceNotFound
        raise kind(said, status=status, host=host)

    def _body(self, response: HTTPResponse, host: str, first: int, last: int, validator: str, size: int) -> Body:
        """Check what the head says against what was asked for."""
        got = content_range(response.headers.get("Content-Range"))
        length, version = content_length(response.headers), strong_validator(response.headers)
        if response.status == 416:
            if got is not None and got.total >= 0 and got.total != size:
                raise Changed(f"{host} has a file of {got.total} bytes", host=host, actual=got.total, expected=size)
            raise NoRanges(f"{host} says that the part from byte {first} cannot be had", host=host)
        if validator and version and version != validator and version[0] == validator[0] == '"':
            raise Changed(f"{host} has another version of the file now", host=host)
        if response.status == 200:
            if size and length >= 0 and length != size:
                raise Changed(
                    f"{host} has a file of {length} bytes, not {size}", host=host, actual=length, expected=size
                )
            if first:
                raise NoRanges(f"{host} gives only the whole file", host=host)
            return Body(response, host=host, first=0, last=length - 1, total=length, ranged=False, validator=version)
        if got is None or got.first != first:
            raise BadSource(f"{host} sends another part than was asked for", host=host)
        if size and got.total not in (-1, size):
            raise Changed(
                f"{host} has a file of {got.total} bytes, not {size}", host=host, actual=got.total, expected=size
            )
        end = got.total - 1 if last < 0 or 0 <= got.total <= last else last
        if got.last != end or length not in (-1, got.last - got.first + 1):
            raise BadSource(f"{host} sends another part than was asked for", host=host)
        return Body(response, host=host, first=first, last=got.last, total=got.total, ranged=True, validator=version)
