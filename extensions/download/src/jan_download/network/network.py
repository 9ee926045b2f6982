"""Requests for files: one GET each, redirects followed by hand, answers checked before anybody reads them."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from jan_core import InvalidParams
from jan_core.types import DownloadSource

from ..errors import BadSource
from ..names import check_url
from ..settings import DownloadSettings
from . import reach
from .answers import extent, refusal
from .body import Body
from .errors import Unreachable
from .lines import Lines, deadline
from .naming import Names
from .proxies import Proxies, Proxy
from .ranges import content_length
from .redirects import REDIRECTS, expiry, host_of, origin, target
from .tls import tls_context
from .tokens import Tokens, challenge
from .translate import causes, nobody_answers, translated

if TYPE_CHECKING:
    import ssl

    from urllib3 import HTTPResponse, PoolManager

__all__ = ["Network"]

_STALE = frozenset({401, 403, 404, 410})
"""What a signed link answers when its time is over."""
_MOST_REDIRECTS = 10
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_OURS = frozenset(
    {"accept-encoding", "connection", "content-length", "host", "if-range", "range", "te", "transfer-encoding"}
)
"""Headers that this layer decides upon."""
_SMALL = 1 << 16
"""Bodies up to this many bytes, of redirects and errors, are read to keep the connection."""
_LONGEST_FETCH = 10
"""A small file may take so many times the stall timeout."""


class Network:
    """The connections of one run; any thread may use it. `environment`: where proxies and tokens are read from."""

    def __init__(self, settings: DownloadSettings, environment: Mapping[str, str] = os.environ) -> None:
        self._settings = settings
        self._proxies = Proxies(settings, environment)
        self._tokens = Tokens(settings.tokens, environment)
        self._lines = Lines()
        self._names = Names(self._lines)
        self._lock = threading.Lock()
        self._pools: dict[tuple[Proxy | None, bool], PoolManager] = {}
        self._context: ssl.SSLContext | None = None
        self._targets: dict[str, tuple[str, float]] = {}
        """Where a source redirected to, and until when that holds."""

    def open(
        self, source: DownloadSource, first: int = 0, last: int = -1, *, validator: str = "", size: int = 0
    ) -> Body:
        """Ask for the bytes `first` to `last` (inclusive; -1: to the end) of a file of `size` bytes (0: unknown).

        `validator`: the version that is meant; the source answers with that one or not at all. Blocks until the head of
        the answer is there. Raises Unreachable when it may work later; NoRanges or Changed when the source cannot give
        this part; SourceUnauthorized, SourceNotFound or BadSource when a person must do something.
        """
        headers = {"Range": f"bytes={first}-{last if last >= 0 else ''}"}
        if validator:
            headers["If-Range"] = validator
        response, url = self._get(source, headers)
        if response.status == 416 and not first:  # an empty file has no range at all
            self._finish(response)
            response, url = self._get(source, {})
        host = host_of(url)
        try:
            found = extent(response.status, response.headers, host, first, last, validator, size)
        except BaseException:
            self._finish(response)
            raise
        return Body(response, found, host, most=size)

    def fetch(self, source: DownloadSource, limit: int) -> bytes:
        """A small file as a whole. Raises as `open` does, and BadSource when it has more than `limit` bytes."""
        response, url = self._get(source, {})
        host = host_of(url)
        if response.status != 200:
            response.close()
            raise BadSource(f"{host} answered {response.status} to a request for a whole file", host=host)
        return self._whole(response, host, limit)

    def close(self) -> None:
        """End what is under way, in whatever thread, and let go of the connections that were kept."""
        self._lines.close()
        with self._lock:
            pools, self._pools = list(self._pools.values()), {}
        for pool in pools:
            pool.clear()

    # -- one request ----------------------------------------

    def _get(self, source: DownloadSource, headers: Mapping[str, str]) -> tuple[HTTPResponse, str]:
        """The answer (200, 206 or 416) to a request for a source, and the address that gave it."""
        try:
            check_url(source.url, "$")
        except InvalidParams as error:
            raise BadSource(f"the address of a source cannot be used: {error.message}") from None
        with self._lock:
            url, until = self._targets.get(source.url, ("", 0.0))
        if url and time.time() < until:
            try:
                response = self._request(url, headers)
                if response.status not in _STALE and response.status not in REDIRECTS:
                    return self._accepted(response, url), url
            except Unreachable:
                self._forget(source)  # it may lead elsewhere next time
                raise
            self._finish(response)
        if url:
            self._forget(source)
        return self._follow(source, headers)

    def _follow(self, source: DownloadSource, headers: Mapping[str, str]) -> tuple[HTTPResponse, str]:
        url, until, home = source.url, float("inf"), True
        seen = set[str]()
        host = host_of(url)
        while url not in seen:
            if len(seen) > _MOST_REDIRECTS:
                raise BadSource(f"{host} redirects more than {_MOST_REDIRECTS} times", host=host)
            seen.add(url)
            home = home and origin(url) == origin(source.url)
            response = self._ask_home(source, url, headers) if home else self._request(url, headers)
            if response.status not in REDIRECTS:
                response = self._accepted(response, url)
                if not home and time.time() < until:
                    with self._lock:
                        self._targets[source.url] = url, until
                return response, url
            self._finish(response)
            url = target(url, response.headers.get("Location", ""))
            until = min(until, expiry(url, response.headers))
        raise BadSource(f"{host} redirects in a circle", host=host)

    def _ask_home(self, source: DownloadSource, url: str, headers: Mapping[str, str]) -> HTTPResponse:
        """Ask the source's own origin, with its credentials, or with those that anybody may have for the asking."""
        own = _sendable(source) | dict(headers)
        if any(name.lower() == "authorization" for name in own):
            return self._request(url, own)
        response = self._request(url, own | self._authorized(url))
        wanted = challenge(response.headers.get("WWW-Authenticate", ""), url) if response.status == 401 else None
        if wanted is None:
            return response
        self._finish(response)
        given = self._tokens.ask(wanted, url, self._anonymous)
        return self._request(url, own | self._authorized(url)) if given else response

    def _authorized(self, url: str) -> dict[str, str]:
        value = self._tokens.authorization(url)
        return {"Authorization": value} if value else {}

    def _anonymous(self, url: str) -> bytes:
        """A small file from `url` itself, without credentials; empty when it is not given."""
        response = self._request(url, {})
        if response.status != 200:
            self._finish(response)
            return b""
        return self._whole(response, host_of(url), _SMALL)

    def _request(self, url: str, headers: Mapping[str, str]) -> HTTPResponse:
        import urllib3

        from .connections import KEPT, Stale

        fields = {"User-Agent": "jan-download/0.1", "Accept": "*/*", **headers, "Accept-Encoding": "identity"}
        timeout = urllib3.Timeout(connect=self._settings.connect_timeout, read=self._settings.stall_timeout)
        host, proxy = host_of(url), self._proxies.of(url)
        if (urllib3.util.parse_url(url).host or "").strip("[]") != host:
            raise BadSource(f"{host}: its address can be read in two ways, and is not used", host=host)
        stale = 0
        while True:
            try:
                with translated(host):
                    self._lines.check()
                    response = self._pool(url, proxy).request(
                        "GET",
                        url,
                        headers=fields,
                        redirect=False,
                        retries=False,
                        preload_content=False,
                        timeout=timeout,
                    )
            except Unreachable as error:
                if self._lines.closed.is_set():
                    raise Unreachable(f"{host}: the transfer was interrupted") from error
                if stale <= KEPT and any(isinstance(e, Stale) for e in causes(error)):
                    stale += 1
                    continue
                near = reach.is_loopback(proxy.host if proxy else host)
                if not near and nobody_answers(error, self._names.known):
                    raise Unreachable(f"{host}: this machine has no network", offline=True) from error
                raise
            assert isinstance(response, urllib3.HTTPResponse)
            return response

    def _pool(self, url: str, proxy: Proxy | None) -> PoolManager:
        from .connections import pools

        with self._lock:
            self._lines.check()
            secure = url.startswith("https:") or (proxy is not None and proxy.kind == "https")
            if secure and self._context is None:
                self._context = tls_context(self._settings.certificates)
            key = proxy, secure
            if key not in self._pools:
                self._pools[key] = pools(self._lines, self._names, proxy, self._context if secure else None)
            return self._pools[key]

    # -- what comes back ----------------------------------------

    def _accepted(self, response: HTTPResponse, url: str) -> HTTPResponse:
        """The response if it is a file, or says why it is not (416). Raises what it stands for otherwise."""
        error = refusal(response.status, response.headers, host_of(url), self._tokens.missing(url))
        if error is None:
            return response
        self._finish(response)
        raise error

    def _finish(self, response: HTTPResponse) -> None:
        """Read what little an answer without a file carries, so that its connection can serve the next request."""
        if 0 <= content_length(response.headers) <= _SMALL:
            with deadline(self._settings.stall_timeout) as until:
                until.watch(getattr(response.connection, "line", None))
                response.drain_conn()
        response.close()

    def _whole(self, response: HTTPResponse, host: str, limit: int) -> bytes:
        """The body of a 200, of at most `limit` bytes."""
        found = extent(200, response.headers, host, 0, -1, "", 0)
        body, data = Body(response, found, host), bytearray()
        try:
            if found.total > limit:
                raise BadSource(f"{host} sends {found.total} bytes where {limit} are expected at most", host=host)
            buffer = memoryview(bytearray(min(_SMALL, limit + 1)))
            with deadline(self._settings.stall_timeout * _LONGEST_FETCH) as until:
                until.watch(getattr(response.connection, "line", None))
                while count := body.readinto(buffer):
                    data += buffer[:count]
                    if len(data) > limit:
                        raise BadSource(f"{host} sends more than the {limit} bytes that are expected", host=host)
            return bytes(data)
        except Unreachable as error:
            if until.passed:
                raise Unreachable(f"{host}: it sends too slowly") from error
            raise
        finally:
            body.close()

    def _forget(self, source: DownloadSource) -> None:
        with self._lock:
            self._targets.pop(source.url, None)


def _sendable(source: DownloadSource) -> dict[str, str]:
    """The headers of a source, without those that are not its to set. Raises BadSource for what is none."""
    for name, value in source.headers.items():
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise BadSource(f"a header that {host_of(source.url)} should be sent cannot be sent")  # it may be a secret
    return {name: value for name, value in source.headers.items() if name.lower() not in _OURS}
