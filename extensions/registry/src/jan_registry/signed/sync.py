"""Bring what is stored of a hub to what the hub has signed, or leave it as it is.

Readers see the state before or the one after, never one between: each collection changes in one transaction, in which
what comes out is hashed and held against what was signed. A crash at any point costs only that it is done again.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Literal, Protocol

from ..collections import snapshot
from . import rows
from .delta import Delta, read_delta, read_snapshot, unpack
from .errors import Refused
from .fetching import Fetch, NotThere, TooLarge, Unreachable
from .report import CollectionReport, SyncReport
from .store import CollectionState, HubStore, load_states
from .trust import load_seen, save_seen

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

    from .metadata import Hub, Settled, Target

__all__ = ["Base", "CollectionReport", "OnModels", "SyncReport", "sync"]

OnModels = Callable[["sqlite3.Connection", Iterable[str] | None], None]
"""Called inside the transaction that changes `models` or `stats`, with the ids that it touched; None: all of them."""


class Base(Protocol):
    """What bundle.py reads. `records` may raise Refused: what is damaged is no base."""

    def state(self, name: str) -> CollectionState | None: ...
    def records(self, name: str) -> list[bytes]: ...


_ORDER = ("revocations", "flags", "stats", "models", "featured")
"""What protects comes first: a sync that is cut short has done that. Numbers come before the models, whose order in the
index they decide."""
_LOCK_SECONDS = 60.0
_SMALL = 4096
"""Bytes that a compressed delta may always have, however small the collection; else at most half of it."""
_SLACK = 1024
"""Bytes by which a file may be larger than it was when it was signed: a server that packs it once more adds some."""


class _Differs(Exception):
    """What came out of a delta is not what was signed."""


def sync(
    store: HubStore,
    fetch: Fetch,
    root: bytes,
    *,
    now: Callable[[], float],
    on_models: OnModels | None = None,
    base: Base | None = None,
) -> SyncReport:
    """Ask the hub once. `root`: its first root metadata, which this program trusts; `now`: seconds since the epoch.

    `base`: what was shipped with the program. A collection that was never had is made from it and the changes since,
    if that gives what the hub has signed.

    Blocks, for a worker thread; other processes wait for their turn. Raises Unreachable, Refused (both with the
    `report` of what was done nevertheless: a collection that cannot be had does not keep others back), StorageError.
    """
    run = _Sync(store, fetch, now(), on_models, base)
    try:
        with _alone(store.folder):
            run.all(root)
    except (Unreachable, Refused) as error:
        error.report = run.finished()
        raise
    return run.finished()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else, in no other process, works on this hub's files meanwhile."""
    from filelock import FileLock, Timeout

    from jan_core import StorageError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "sync.lock", timeout=_LOCK_SECONDS):
            yield
    except Timeout:
        raise Unreachable("another process has been refreshing this hub for a minute") from None
    except OSError as error:
        raise StorageError(f"{folder}: {error}") from error


class _Sync:
    def __init__(self, store: HubStore, fetch: Fetch, at: float, on_models: OnModels | None, base: Base | None) -> None:
        self.store, self.fetch, self.at, self.on_models, self.base = store, fetch, at, on_models, base
        self.report = SyncReport()
        self.began = time.perf_counter()
        fetch.backoff = 0.0
        self.before = fetch.requests, fetch.received

    def finished(self) -> SyncReport:
        report = self.report
        report.collections.sort(key=lambda one: _ORDER.index(one.name))
        report.requests, report.bytes = self.fetch.requests - self.before[0], self.fetch.received - self.before[1]
        report.seconds, report.backoff = round(time.perf_counter() - self.began, 6), self.fetch.backoff
        if any(one.how in ("delta", "full", "removed") for one in report.collections):
            report.outcome = "updated"
        return report

    def all(self, root: bytes) -> None:
        from .metadata import refresh

        with self.store.db.read() as db:
            seen, states = load_seen(db), load_states(db)
        hub = refresh(self.store.folder / "tuf", self.fetch, root, seen, self.at, self._settled(states))
        if hub.healed:
            self.report.note = "the cache of signed metadata was damaged and was fetched anew"
        if hub.settled:
            self._touch(states)
            return
        done = self._confirm(hub, states)
        errors: list[Refused | NotThere] = []
        for name in _ORDER:
            state = states.get(name)
            if name in done:
                continue
            try:
                if name in hub.failed:
                    raise hub.failed[name]
                if name in hub.targets:
                    self.report.collections.append(self._update(hub.targets[name], state))
                elif name in hub.withdrawn and state is not None:
                    self.report.collections.append(self._remove(name))
            except (Refused, NotThere) as error:
                errors.append(error)
                seq = state.seq if state else 0
                self.report.collections.append(CollectionReport(name=name, how="failed", seq=seq, error=str(error)))
        # A refusal says more than a file that is missing.
        if errors:
            raise min(errors, key=lambda one: not isinstance(one, Refused))

    def _settled(self, states: dict[str, CollectionState]) -> Settled | None:
        """What needs no second look when the hub is at the same versions; None when something was left undone."""
        from .metadata import TOP, Settled

        at = [{role: state.versions.get(role, 0) for role in TOP} for state in states.values()]
        if not at or any(one != at[0] for one in at) or any(state.expires_at <= self.at for state in states.values()):
            return None
        return Settled(at[0], states.keys())

    def _touch(self, states: dict[str, CollectionState]) -> None:
        with self.store.db.write() as db:
            db.execute("UPDATE collection SET checked_at = ?", [int(self.at)])
        self.report.collections += [
            CollectionReport(name=name, how="unchanged", seq=state.seq) for name, state in states.items()
        ]

    def _confirm(self, hub: Hub, states: dict[str, CollectionState]) -> set[str]:
        """Remember the versions that were seen, and what is as it was, in one transaction. What that is."""
        done = set()
        with self.store.db.write() as db:
            save_seen(db, hub.seen)
            for name, target in hub.targets.items():
                state = states.get(name)
                if state is not None and state.sha256 == target.sha256:
                    rows.save_state(db, self._state(target, state.count, state.verified_at))
                    self.report.collections.append(CollectionReport(name=name, how="unchanged", seq=target.seq))
                    done.add(name)
        return done

    def _state(self, target: Target, count: int, verified_at: int) -> CollectionState:
        return CollectionState(
            name=target.name,
            seq=target.seq,
            sha256=target.sha256,
            count=count,
            verified_at=verified_at,
            checked_at=int(self.at),
            expires_at=target.expires_at,
            origin="net",
            role=target.role,
            keyids=target.keyids,
            versions=target.versions,
        )

    def _remove(self, name: str) -> CollectionReport:
        with self.store.db.write() as db:
            deleted = rows.drop(db, name)
            self._reindex(db, name, None)
        return CollectionReport(name=name, how="removed", deleted=deleted)

    def _update(self, target: Target, state: CollectionState | None) -> CollectionReport:
        start = state or (self.base.state(target.name) if self.base else None)
        if start is not None and (start.seq in target.delta_from or start.sha256 == target.sha256):
            try:
                return self._by_delta(target, start, None if state else self.base)
            except (NotThere, TooLarge, ValueError, _Differs, Refused) as error:
                reason = str(error)
            except Unreachable as error:
                if not error.status or error.retry_after:
                    raise  # the hub as a whole does not answer, or wants to be left alone
                reason = str(error)
            self.report.fallbacks.append(f"{target.name}, delta {start.seq} to {target.seq}: {reason}")
        return self._whole(target, state)

    def _by_delta(self, target: Target, start: CollectionState, base: Base | None) -> CollectionReport:
        delta = Delta([], [])
        if start.sha256 != target.sha256:
            path = f"deltas/{target.name}/{start.seq}-{target.seq}.json.gz"
            content = unpack(self.fetch(path, max(target.gz // 2, _SMALL)), target.length + _SLACK)
            delta = read_delta(content, target.name, start.seq, target.seq)
        shipped = read_snapshot(snapshot(base.records(target.name))) if base else []
        with self.store.db.write() as db:
            if base:
                rows.replace(db, target.name, shipped)
            change = rows.apply(db, target.name, delta)
            sha256, count = rows.digest(db, target.name)
            if sha256 != target.sha256:
                raise _Differs("what comes out is not what was signed")
            self._accept(db, target, count, change, everything=base is not None)
        return _report("delta", target, change)

    def _whole(self, target: Target, state: CollectionState | None) -> CollectionReport:
        try:
            content = unpack(self.fetch(target.path, target.gz + _SLACK), target.length)
        except TooLarge as error:
            raise Refused("too_large", f"the collection {target.name}: {error}") from None
        except ValueError as error:
            raise Refused("tampered", f"the collection {target.name}: {error}") from None
        if hashlib.sha256(content).hexdigest() != target.sha256 or len(content) != target.length:
            raise Refused("tampered", f"the collection {target.name} is not the one that was signed")
        try:
            new = read_snapshot(content)
        except ValueError as error:
            raise Refused("malformed", f"the collection {target.name}: {error}") from None
        with self.store.db.write() as db:
            change = rows.replace(db, target.name, new)
            self._accept(db, target, len(new), change, everything=state is None)
        return _report("full", target, change)

    def _accept(
        self, db: sqlite3.Connection, target: Target, count: int, change: rows.Change, *, everything: bool = False
    ) -> None:
        rows.save_state(db, self._state(target, count, int(self.at)))
        self._reindex(db, target.name, None if everything else change.ids)

    def _reindex(self, db: sqlite3.Connection, name: str, ids: Iterable[str] | None) -> None:
        if name in ("models", "stats") and self.on_models is not None:
            self.on_models(db, ids)


def _report(how: Literal["delta", "full"], target: Target, change: rows.Change) -> CollectionReport:
    return CollectionReport(
        name=target.name,
        how=how,
        seq=target.seq,
        created=len(change.created),
        updated=len(change.updated),
        deleted=len(change.deleted),
    )
