"""What a tree publishes, who signs it, and what has to be signed again and when."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from msgspec import Struct

from .deltas import delta_path
from .errors import TreeDamaged
from .files import interrupted, on_disk
from .roles import DELEGATED, OFFLINE, ONLINE, due, margin
from .state import State, read

__all__ = ["CollectionStatus", "RoleStatus", "Status", "status"]

Standing = Literal["valid", "expires soon", "expired", "missing"]


class RoleStatus(Struct, frozen=True, kw_only=True):
    """`keyids` may sign, `threshold` of them have to; `signed_by` did. Times in seconds since the epoch: from `sign_by`
    on the next publication that finds the keys signs it anew. `standing`: `missing` when it was not signed yet."""

    role: str
    standing: Standing
    version: int
    expires: int
    sign_by: int
    threshold: int
    keyids: list[str]
    signed_by: list[str]


class CollectionStatus(Struct, frozen=True, kw_only=True):
    """Bytes: `length` of the canonical snapshot, `packed` as it is downloaded. `at`: when it was published. `problem`:
    what is wrong with its files, "" when nothing is."""

    name: str
    seq: int
    count: int
    sha256: str
    length: int
    packed: int
    at: int
    delta_from: list[int]
    problem: str


class Status(Struct, frozen=True, kw_only=True):
    """`version`: of the timestamp; 0 when nothing was published yet. `expires`: when clients begin to call what they
    have stale, because the first of all these roles expires. `interrupted`: a publication was cut off; the next one
    finishes it, or begins again. `files`, `bytes`: of the whole tree."""

    version: int
    expires: int
    roles: list[RoleStatus]
    collections: list[CollectionStatus]
    interrupted: bool
    files: int
    bytes: int


def status(tree: Path, *, now: float) -> Status:
    """Changes nothing. Raises TreeUnknown, TreeDamaged (metadata that are unreadable or unsigned), StorageError."""
    with on_disk(tree):
        return _status(tree, now)


def _status(tree: Path, now: float) -> Status:
    try:
        state = read(tree)
    except TreeDamaged as error:
        if not interrupted(tree):
            raise
        raise TreeDamaged(
            f"A publication was cut off; publish again to finish it. ({error.message})", **error.data
        ) from error
    roles = [_role(state, role, now) for role in (*OFFLINE, *DELEGATED, *ONLINE) if state.signers(role)]
    sizes = [path.stat().st_size for path in tree.rglob("*") if path.is_file()]
    return Status(
        version=state.version,
        expires=min(role.expires for role in roles) if state.version else 0,
        roles=roles,
        collections=[_collection(state, name) for name in DELEGATED if state.target(name)],
        interrupted=interrupted(tree),
        files=len(sizes),
        bytes=sum(sizes),
    )


def _role(state: State, role: str, now: float) -> RoleStatus:
    signers = state.signers(role)
    assert signers is not None
    found = state.metadata.get(role)
    expires = int(state.expires(role)) if found else 0
    standing: Standing = "missing" if not found else "expired" if expires <= now else "valid"
    if standing == "valid" and due(role, expires, now):
        standing = "expires soon"
    return RoleStatus(
        role=role,
        standing=standing,
        version=state.version_of(role),
        expires=expires,
        sign_by=int(expires - margin(role)) if found else 0,
        threshold=signers.threshold,
        keyids=[key.keyid for key in signers.keys],
        signed_by=list(found.signatures) if found else [],
    )


def _collection(state: State, name: str) -> CollectionStatus:
    target = state.target(name)
    assert target is not None
    problem = ""
    try:
        state.content(name)
    except TreeDamaged as error:
        problem = error.message
    lost = [since for since in target.delta_from if not (state.tree / delta_path(name, since, target.seq)).is_file()]
    if lost and not problem:
        problem = f"{len(lost)} of its deltas are missing; clients download the whole collection instead."
    return CollectionStatus(
        name=name,
        seq=target.seq,
        count=target.count,
        sha256=target.sha256,
        length=target.length,
        packed=target.gz,
        at=target.at,
        delta_from=target.delta_from,
        problem=problem,
    )
