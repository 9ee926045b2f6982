"""How hubs are asked: what is known is answered at once, what is old is shown while it is asked anew.

It decides from the cache, the limits and the offline switch whether the network is used at all; `transfer.py` uses it.
It reads nothing of what hubs say beyond what a `decode` tells it is no answer.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import anyio
import anyio.to_thread

from jan_core import JanError, ShuttingDown, StorageError

from .cache import Entry, HubCache, cache_key
from .errors import HubInvalid, HubRefused, HubUnreachable, error_of
from .freshness import Kind, entry_of, shown_while_asking
from .limits import Limits, wait_asked
from .transfer import Admit, Token, host_of, origin_of, transfer

if TYPE_CHECKING:
    from jan_core import Context

    from ..sqlite import Database

__all__ = ["MAX_BODY", "Answer", "Http", "Token"]

MAX_BODY = 8 << 20
"""Bytes of an answer, also after decompression, where a hub does not say otherwise."""

_FAILED = 30
"""Seconds after a failure, for which what is known is shown without asking again: nobody waits for a time-out twice."""

_LARGE = 256 << 10
"""Bytes of a body that is read in a thread of its own."""

_NOT_THERE = (404, 410)
T = TypeVar("T")


async def _everything(url: str) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What a hub answered. `value`: what `decode` made of the body, None when `status` is not 200.

    `fetched_at` in seconds since the epoch, `age` in seconds since then. `from_cache`: `network` was asked now, `fresh`
    was known and is still good, `stale` is what was known when it could not be asked, or while it is asked.
    """

    value: T | None
    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)
    fetched_at: float
    age: float
    from_cache: Literal["network", "fresh", "stale"]


class Http:
    """Asks hubs, for one generation of the extension.

    `admit` may veto each use of the network: offline mode. `timeout` in seconds, of one answer with its redirects.
    Transfers run in the context's tasks: they end with the generation, not with whoever asked first.
    """

    def __init__(
        self,
        ctx: Context,
        database: Database,
        *,
        admit: Admit = _everything,
        timeout: Callable[[], float] = lambda: 30.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._ctx, self._admit, self._timeout, self.now = ctx, admit, timeout, now
        self._cache = HubCache(database)
        self._limits = Limits()
        self._limits_read: set[str] = set()
        self._flights: dict[str, _Flight] = {}

    @property
    def context(self) -> Context:
        """The extension's own, for a hub that is asked in its own way."""
        return self._ctx

    @property
    def timeout(self) -> float:
        return self._timeout()

    def failed(self, key: str) -> None:
        """Asking for `key` failed just now; `failed_lately` says so for half a minute."""
        self._limits.hold(key, self.now() + _FAILED)

    def failed_lately(self, key: str) -> bool:
        return self._limits.left(key, self.now()) > 0

    async def admit(self, url: str) -> None:
        """Raises HubRefused when somebody vetoes the use of the network for `url`."""
        if why := await self._admit(url):
            host = host_of(url)
            raise HubRefused(f"{host} is not asked: {why}", reason="offline", host=host)

    async def get(
        self,
        url: str,
        *,
        hub: str,
        decode: Callable[[bytes], T],
        kind: Kind = "detail",
        token: Token | None = None,
        accept: str = "application/json",
        limit: int = MAX_BODY,
        answers: Collection[int] = (),
    ) -> Answer[T]:
        """Get `url` for the source `hub`, from the cache where that is good enough.

        `decode` makes of a body what it means, or raises ValueError: such an answer is never kept, and what was known
        before is. 404 (and 410) is an answer with `value` None; `answers`: further statuses that are. A token is sent
        to its own origin only; what was answered with one is not shown to who asks without.

        Raises HubUnreachable, HubRefused, HubInvalid.
        """
        if token is not None and not token.fits(url):
            token = None
        ask = _Ask(
            hub, url, decode, kind, token, accept, limit, frozenset(answers),
            cache_key(url, accept, token.value if token and not token.public else ""),
        )  # fmt: skip
        entry, value = (None, None) if kind == "none" else await self._known(ask)
        now = self.now()
        if entry is not None and entry.fetched_at <= now + 1 and now < entry.fresh_until:
            return self._answer(entry, value, "fresh")
        usable = entry is not None and now < entry.stale_until
        if entry is not None and usable:
            if self._limits.left(ask.key, now):
                return self._answer(entry, value, "stale")
            if entry.fetched_at <= now < entry.fetched_at + shown_while_asking(kind, entry.status):
                self._fly(ask, entry)
                return self._answer(entry, value, "stale")
        flight = self._fly(ask, entry)
        await flight.landed.wait()
        if flight.error is None and flight.entry is not None:
            return self._answer(flight.entry, await _value(ask, flight.entry), "network")
        error = flight.error or ShuttingDown("the registry is shutting down")
        if entry is not None and usable and _helps_to_wait(error):
            return self._answer(entry, value, "stale")
        raise _again(error)

    def _answer(self, entry: Entry, value: T | None, how: Literal["network", "fresh", "stale"]) -> Answer[T]:
        age = max(0.0, self.now() - entry.fetched_at)
        return Answer(value, entry.status, entry.headers, entry.body, entry.fetched_at, age, how)

    async def _known(self, ask: _Ask[Any]) -> tuple[Entry | None, Any]:
        """What is kept, and what it means. What an earlier version understood may be nothing to this one."""
        try:
            entry = await anyio.to_thread.run_sync(self._cache.get, ask.key, self.now())
            return (entry, await _value(ask, entry)) if entry is not None else (None, None)
        except StorageError as error:
            self._ctx.log.warning("the cache of hubs cannot be read: %s", error.message)
        except HubInvalid:
            pass
        return None, None

    def _fly(self, ask: _Ask[T], entry: Entry | None) -> _Flight:
        """The transfer under way for this question, begun now if there is none."""
        flight = self._flights.get(ask.key)
        if flight is None:
            flight = _Flight()
            self._ctx.tasks.start_soon(self._transfer, ask, entry, flight, name=f"asking {ask.hub}")
            self._flights[ask.key] = flight
        return flight

    async def _transfer(self, ask: _Ask[T], entry: Entry | None, flight: _Flight) -> None:
        try:
            flight.entry = await self._ask(ask, entry)
        except JanError as error:
            flight.error = error
            self.failed(ask.key)
        finally:
            del self._flights[ask.key]
            flight.landed.set()

    async def _ask(self, ask: _Ask[T], entry: Entry | None) -> Entry:
        """Use the network. Raises what `get` raises."""
        host, scope = host_of(ask.url), _scope(ask)
        await self.admit(ask.url)
        await self._heed(scope, host)
        try:
            client = self._ctx.http
        except RuntimeError as error:  # a host without a client
            raise HubUnreachable(f"{host} cannot be reached: {error}", host=host) from None
        headers = {"Accept": ask.accept, "Accept-Encoding": "gzip"}
        if entry is not None and entry.status == 200:
            if entry.etag:
                headers["If-None-Match"] = entry.etag
            if entry.last_modified:
                headers["If-Modified-Since"] = entry.last_modified
        response = await transfer(
            client, ask.url,
            headers=headers, token=ask.token, limit=ask.limit, timeout=self._timeout(), admit=self._admit,
        )  # fmt: skip
        now = self.now()
        if wait := wait_asked(response.status, response.headers, now):
            self._limits.hold(scope, now + wait)
            await self._store(scope, ask.hub, Entry(429, {}, b"", int(now), int(now + wait), int(now + wait)))
        if response.status in (401, 403) and entry is not None:
            await self._forget(ask.key)
        if response.status == 304 and entry is not None:
            kept = entry_of(ask.kind, response, now, confirmed=entry)
        elif response.status == 200 or response.status in _NOT_THERE:
            kept = entry_of(ask.kind, response, now)
        elif response.status in ask.answers:
            return Entry(response.status, response.headers, response.body, int(now), 0, 0)
        else:
            raise error_of(host, response.status, wait)
        await _value(ask, kept)  # what is no answer is not kept
        if ask.kind != "none":
            await self._store(ask.key, ask.hub, kept)
        return kept

    async def _heed(self, scope: str, host: str) -> None:
        """Raises HubRefused while the server wants to be left alone; what it said to an earlier process counts too."""
        now = self.now()
        if scope not in self._limits_read:
            try:
                held = await anyio.to_thread.run_sync(self._cache.get, scope, now)
            except StorageError:
                held = None
            self._limits_read.add(scope)
            if held is not None and held.fetched_at <= now:
                self._limits.hold(scope, held.fresh_until)
        if left := self._limits.left(scope, now):
            message = f"{host} asked to be left alone for another {left:.0f} s"
            raise HubRefused(message, reason="rate_limited", retry_after=left, host=host)

    async def _store(self, key: str, hub: str, entry: Entry) -> None:
        try:
            await anyio.to_thread.run_sync(self._cache.put, key, hub, entry, self.now())
        except StorageError as error:  # a full disk must not take the answer away
            self._ctx.log.warning("what %s answered is not kept: %s", hub, error.message)

    async def _forget(self, key: str) -> None:
        try:
            await anyio.to_thread.run_sync(self._cache.drop, key)
        except StorageError as error:
            self._ctx.log.warning("the cache of hubs cannot be written: %s", error.message)


@dataclass(frozen=True, slots=True)
class _Ask(Generic[T]):
    """One question, whole."""

    hub: str
    url: str
    decode: Callable[[bytes], T]
    kind: Kind
    token: Token | None
    accept: str
    limit: int
    answers: frozenset[int]
    key: str

    def read(self, body: bytes) -> T:
        try:
            return self.decode(body)
        except (ValueError, RecursionError) as error:  # msgspec's errors and those of UTF-8 are ValueErrors
            host = host_of(self.url)
            raise HubInvalid(f"{host} does not answer as its kind does: {str(error)[:200]}", host=host) from None


async def _value(ask: _Ask[Any], entry: Entry) -> Any:
    """What an answer means; a large one is read in a thread, so that nobody waits for it. Raises HubInvalid."""
    if entry.status != 200:
        return None
    if len(entry.body) < _LARGE:
        return ask.read(entry.body)
    return await anyio.to_thread.run_sync(ask.read, entry.body)


class _Flight:
    """A transfer under way, for all who ask the same. Landed with neither: it was cancelled."""

    def __init__(self) -> None:
        self.landed = anyio.Event()
        self.entry: Entry | None = None
        self.error: JanError | None = None


def _scope(ask: _Ask[T]) -> str:
    """Whom a server's limits are for: this origin, with this token."""
    text = "\0".join(("limit", *map(str, origin_of(ask.url)), ask.token.value if ask.token else ""))
    return hashlib.sha256(text.encode()).hexdigest()


def _helps_to_wait(error: JanError) -> bool:
    """Whether what was known before may stand in: not where the hub said who may see it."""
    return not (isinstance(error, HubRefused) and error.reason in ("auth_required", "license_required"))


def _again(error: JanError) -> JanError:
    """The error for one of several who wait: an exception that is raised twice gathers both tracebacks."""
    copy = error.__class__.__new__(error.__class__)
    copy.__dict__.update(error.__dict__)
    copy.args = error.args
    return copy
