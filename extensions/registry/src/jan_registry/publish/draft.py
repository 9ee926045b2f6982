"""The next state of a tree, worked out and signed in memory: what changes, what has to be signed, by whom.

Only what changed, what its keys no longer vouch for, and what expires soon gets a new version; the timestamp always.
Writes nothing: `tree.py` does.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import asdict

from .content import Content, pack
from .deltas import History, Point, advance, delta, delta_path, largest
from .errors import PublishInvalid, TreeDamaged
from .plan import CollectionChange, RoleChange
from .roles import DELEGATED, OFFLINE, due, lifetime, target_name, utc
from .signing import Lack, Pending, complete
from .state import State, Target, history_path, metadata_path, snapshot_path

if TYPE_CHECKING:
    from tuf.api.metadata import Metadata, Root, Targets

    from .keys import Keys

__all__ = ["Draft"]


class Draft:
    """Call `root`, `targets`, `collection` for each collection, then `online`, in this order.

    `keys`: None works out what would be signed if all keys were at hand. `files`: path below the tree -> content;
    `referenced`: the paths of all that clients may ask for from then on. Raises PublishInvalid, TreeDamaged.
    """

    def __init__(self, state: State, keys: Keys | None, pending: Pending, now: float) -> None:
        self.state, self.now = state, now
        self._keys, self._pending = keys, pending
        self.metadata: dict[str, Metadata[Any]] = dict(state.metadata)
        self.content: dict[str, Content] = {}
        self.files: dict[str, bytes] = {}
        self.referenced: set[str] = set()
        self.roles: list[RoleChange] = []
        self.collections: list[CollectionChange] = []
        self.missing: dict[str, Lack] = {}
        self.due: dict[str, Lack] = {}
        self.warnings: list[str] = []

    def root(self, payload: Root | None) -> None:
        """`payload`: a new version that is wanted; None: the present one, unless one was signed elsewhere."""
        self._top("root", payload)

    def targets(self, payload: Targets | None) -> None:
        self._top("targets", payload)

    def collection(self, name: str, records: Sequence[bytes] | None) -> None:
        """`records`: what it has to hold; None: what it holds, or nothing when it never held anything."""
        target = self.state.target(name)
        if records is None and target is not None:
            self._referred(name, target)
            self._sign(name, None, "")
            return
        before = self._content_before(name, target)
        after = self.content[name] = Content.of(name, records or (), before)
        if target is not None and target.sha256 == after.sha256:
            if before is None:  # its file is lost or damaged
                self.files[snapshot_path(name, after.sha256)] = pack(after.snapshot)
            self._referred(name, target)
            self._sign(name, None, "")
            return
        self.files[snapshot_path(name, after.sha256)] = packed = pack(after.snapshot)
        seq = target.seq + 1 if target else 1
        at = self._begun(name, after) or int(self.now)
        history = History([Point(seq, after.sha256, at)], {}, {})
        if target and before:
            known = self.state.history(name) or History([Point(target.seq, target.sha256, target.at)], {}, {})
            history = advance(known, before, after, seq=seq, now=at)
        history, deltas = _deltas(name, history, after, largest(len(packed)))
        self.files |= {delta_path(name, since, seq): content for since, content in deltas.items()}
        self.files[history_path(name, seq)] = pack(msgspec.json.encode(history))
        new = Target(after.sha256, len(after.snapshot), seq, len(after.records), sorted(deltas), len(packed), at)
        self._referred(name, new)
        old = before.records if before else {}
        self.collections.append(
            CollectionChange(
                name=name,
                seq=seq,
                count=new.count,
                created=[id for id in after.records if id not in old],
                updated=[id for id, record in after.records.items() if id in old and old[id] != record],
                deleted=[id for id in old if id not in after.records],
                full_bytes=new.gz,
                delta_bytes=len(deltas.get(seq - 1, b"")),
                delta_from=new.delta_from,
            )
        )
        self._sign(name, _targets_of(name, new), "changed")

    def online(self) -> None:
        """Snapshot and timestamp, over all that was settled before."""
        from tuf.api.metadata import MetaFile, Snapshot, Timestamp

        meta = {f"{role}.json": MetaFile(self.metadata[role].signed.version) for role in ("targets", *DELEGATED)}
        present = self.metadata.get("snapshot")
        self._sign("snapshot", None if present and present.signed.meta == meta else Snapshot(meta=meta), "changed")
        self._sign("timestamp", Timestamp(snapshot_meta=MetaFile(self.metadata["snapshot"].signed.version)), "always")
        issued = self.state.expires("timestamp") - lifetime("timestamp") if self.state.version else self.now
        if issued > self.now + 300:
            self.warnings.append(
                f"The clock says {utc(self.now):%F %T}, but this was last published {utc(issued):%F %T}."
            )

    def _top(self, role: str, payload: Root | Targets | None) -> None:
        version = self.state.version_of(role) + 1
        waiting = self._pending.get(role, version)
        if payload is not None or waiting is None:
            self._sign(role, payload, "changed")
            return
        lack = self._lack(role, waiting)
        if lack is None and waiting.signed.expires > utc(self.now):
            self._take(role, waiting, "signed elsewhere")
        elif lack and role not in self.metadata:
            self.missing[role] = lack
            self._take(role, waiting, "first")
        else:
            what = f"waits for {lack.needs} more signature(s) of {', '.join(lack.keyids)}" if lack else "has expired"
            self.warnings.append(f"Version {version} of {role} {what}.")
            self._sign(role, None, "")

    def _sign(self, role: str, payload: Any, reason: str) -> None:
        """Take `payload` as the next version of a role; None: the present one again, if it has to be signed anew."""
        present = self.metadata.get(role)
        needed = payload is not None
        if present is None and payload is None:
            raise PublishInvalid(f"The hub has no {role} yet.", reason=f"no {role}")
        if present is not None and payload is None:
            reason = self._why(role, present)
            if not reason:
                self._keep(role)
                return
            # One collection that is late must not keep the others back, least of all the revocations.
            optional = reason == "expires soon" or (reason == "expired" and role in DELEGATED)
            payload, needed = copy.deepcopy(present.signed), not optional
        if present is None:
            reason = "first"
        payload.version = self.state.version_of(role) + 1
        payload.expires = utc(self.now + lifetime(role))
        candidate = self._waiting(role, payload)
        if candidate is None and needed:
            reason = f"version {payload.version} of {role} waits for signatures and says something else"
            raise PublishInvalid(f"Another {reason}. Have it signed, or delete it.", reason=reason)
        if candidate is None:
            self._keep(role)
            return
        lack = self._lack(role, candidate)
        if lack is not None and not needed:
            self.due[role] = lack
            verb = "expired" if reason == "expired" else "expires"
            self.warnings.append(f"{role} {verb} {utc(self.state.expires(role)):%F}, and its keys are not here.")
            self._keep(role)
            return
        if lack is not None:
            self.missing[role] = lack
        self._take(role, candidate, reason)

    def _why(self, role: str, present: Metadata[Any]) -> str:
        """Why something that did not change has to be signed anew; "" when it has not."""
        results = [
            delegator.get_verification_result(role, present.signed_bytes, present.signatures)
            for delegator in self._delegators(role, present)
        ]
        if not all(results):
            return "keys changed"
        expires = self.state.expires(role)
        return "expired" if expires <= self.now else "expires soon" if due(role, expires, self.now) else ""

    def _waiting(self, role: str, payload: Any) -> Metadata[Any] | None:
        """The same thing with the signatures it got elsewhere, or without any. None: root or targets that wait say
        something else, which nobody but an operator may throw away."""
        from tuf.api.metadata import Metadata

        waiting = self._pending.get(role, payload.version)
        if waiting is None or waiting.signed.expires <= utc(self.now):
            return Metadata(payload)
        if waiting.signed.to_dict() | {"expires": ""} == payload.to_dict() | {"expires": ""}:
            return waiting
        return None if role in OFFLINE else Metadata(payload)

    def _lack(self, role: str, candidate: Metadata[Any]) -> Lack | None:
        return None if self._keys is None else complete(candidate, role, self._delegators(role, candidate), self._keys)

    def _delegators(self, role: str, candidate: Metadata[Any]) -> list[Root | Targets]:
        if role != "root":
            return [self.metadata["targets" if role in DELEGATED else "root"].signed]
        before = self.state.roots.get(candidate.signed.version - 1)
        return [before.signed, candidate.signed] if before else [candidate.signed]

    def _take(self, role: str, metadata: Metadata[Any], reason: str) -> None:
        self.metadata[role] = metadata
        self._keep(role)
        signed = metadata.signed
        self.files[metadata_path(role, signed.version)] = metadata.to_bytes()
        self.roles.append(
            RoleChange(
                role=role,
                before=self.state.version_of(role),
                version=signed.version,
                expires=int(signed.expires.timestamp()),
                reason=reason,
            )
        )

    def _keep(self, role: str) -> None:
        self.referenced.add(metadata_path(role, self.metadata[role].signed.version))

    def _referred(self, name: str, target: Target) -> None:
        self.referenced |= {snapshot_path(name, target.sha256), history_path(name, target.seq)}
        self.referenced |= {delta_path(name, since, target.seq) for since in target.delta_from}

    def _begun(self, name: str, content: Content) -> int | None:
        """When the publication of this content was begun, if it waits for signatures since: they are good for that."""
        waiting = self._pending.get(name, self.state.version_of(name) + 1)
        if waiting is None:
            return None
        target = State(self.state.tree, metadata={name: waiting}).target(name)
        return target.at if target and target.sha256 == content.sha256 else None

    def _content_before(self, name: str, target: Target | None) -> Content | None:
        try:
            return self.state.content(name) if target else None
        except TreeDamaged as error:
            # What is given now replaces it. Only the difference is lost.
            self.warnings.append(f"{error.message} It is written anew; there will be no delta to it.")
            return None


def _deltas(name: str, history: History, after: Content, limit: int) -> tuple[History, dict[int, bytes]]:
    """The deltas worth having, from the newest version back until one is too long, and what is to be remembered."""
    deltas: dict[int, bytes] = {}
    for point in reversed(history.points[:-1]):
        packed = pack(delta(name, history, after.records, point.seq), 6)
        if len(packed) > limit:
            return history.from_on(point.seq + 1), deltas
        deltas[point.seq] = packed
    return history, deltas


def _targets_of(name: str, target: Target) -> Targets:
    from tuf.api.metadata import TargetFile, Targets

    custom = {name: value for name, value in asdict(target).items() if name not in ("sha256", "length")}
    file = TargetFile(target.length, {"sha256": target.sha256}, target_name(name), {"custom": custom})
    return Targets(targets={target_name(name): file})
