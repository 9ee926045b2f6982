"""From the operator's folder to the signed tree: what would be seen, doing it, and how things stand.

Blocks. Keys are opened only when their signature is needed: those of the offline roles stay closed on most days.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..collections import Constraint, Experiment, Flag, Rule
from ..shapes import rfc3339
from .answers import (
    KeyState,
    Lacking,
    OperatorStatus,
    Preview,
    Problem,
    Publication,
    RoleState,
    ShownCollection,
    ShownExperiment,
    ShownFlag,
    ShownList,
    WaitingFile,
)
from .changes import opened, published_experiments, reviewed
from .conditions import written
from .consistency import review
from .errors import PublishInvalid, TreeUnknown, WorkspaceInvalid
from .keys import Keys, load, load_public
from .plan import CollectionChange, Plan
from .signing import Pending, describe
from .workspace import Workspace

if TYPE_CHECKING:
    from .status import RoleStatus

__all__ = ["key_files", "open_keys", "publish_folder", "status", "valid", "waiting"]


def valid(folder: Path, *, mend: bool = False) -> Workspace:
    """A folder that may be published. Raises as `reviewed` does, and WorkspaceInvalid."""
    held = reviewed(folder, mend=mend)
    if held.problems:
        count = len(held.problems)
        message = f"{folder} cannot be published: {count} problem{'s' if count > 1 else ''}, of which the first: "
        raise WorkspaceInvalid(message + str(held.problems[0]), problems=msgspec.to_builtins(held.problems))
    return held


def publish_folder(
    folder: Path,
    *,
    now: float,
    dry_run: bool = False,
    only: Iterable[str] = (),
    passphrase: bytes | None = None,
    expect: int | None = None,
) -> Publication:
    """Publish, or say what would come of it. Raises WorkspaceInvalid and what `tree.publish` raises."""
    from .tree import plan, publish

    held = valid(folder, mend=not dry_run)
    collections = _chosen(held, only)
    pieces = held.folder / "pieces"
    planned = plan(held.tree, collections, now=now, keys=Keys(), pending=held.pending, pieces=pieces)
    files = key_files(held)
    if dry_run:
        missing = {
            role: lack for role, lack in planned.missing.items() if len(files.keys() & set(lack.keyids)) < lack.needs
        }
        return Publication(False, str(held.tree), _preview(held, planned, missing))
    # What expires soon is signed anew by the way, by the keys that are here: it must not come to expire.
    needed = {keyid for lack in (*planned.missing.values(), *planned.due.values()) for keyid in lack.keyids}
    keys = open_keys((path for keyid, path in files.items() if keyid in needed), passphrase)
    done = publish(held.tree, keys, collections, now=now, pending=held.pending, pieces=pieces, expect=expect)
    return Publication(True, str(held.tree), _preview(held, done, {}))


def key_files(held: Workspace) -> dict[str, Path]:
    """The private keys on this machine, by key id: those whose public half lies beside them. Raises KeyUnusable."""
    found = {}
    for folder in held.key_folders:
        for path in sorted(folder.glob("*.pem")):
            public = path.with_suffix(".pub")
            if public.is_file():
                found[load_public(public).keyid] = path
    return found


def open_keys(files: Iterable[Path], passphrase: bytes | None) -> Keys:
    """Raises KeyUnusable."""
    return Keys(load(path, passphrase) for path in files)


def status(folder: Path, *, now: float) -> OperatorStatus:
    """How the folder, the hub and its keys stand. Raises WorkspaceUnknown, TreeDamaged."""
    from .status import status as status_of
    from .tree import plan

    held = opened(folder)
    version, size, roles, changes, damaged = 0, 0, [], [], []
    with contextlib.suppress(TreeUnknown):  # its first root still waits for signatures
        hub, files = status_of(held.tree, now=now), key_files(held)
        version, size, roles = hub.version, hub.bytes, [_role(role, files) for role in hub.roles]
        damaged = [Problem(one.name, 0, "", one.problem) for one in hub.collections if one.problem]
    review(held, published_experiments(held.tree))
    if roles and not held.problems:
        changes = [_change(one) for one in plan(held.tree, held.collections(), now=now).collections]
    return OperatorStatus(
        folder=str(held.folder),
        name=held.config.name,
        url=held.config.url,
        tree=str(held.tree),
        version=version,
        bytes=size,
        records={name: len(entries) for name, entries in held.entries.items()},
        changes=changes,
        roles=roles,
        waiting=waiting(held.pending),
        problems=held.problems,
        warnings=[*held.warnings, *damaged],
    )


def waiting(folder: Path) -> list[WaitingFile]:
    """What waits for signatures. Raises PublishInvalid."""
    return [_waiting(path) for path, _, _ in Pending(folder).files()]


def _waiting(path: Path) -> WaitingFile:
    it = describe(path)
    says = [
        f"{role}: {it.thresholds[role]} of {', '.join(keyid[:12] for keyid in keyids)}"
        for role, keyids in it.signers.items()
    ]
    if it.target:
        custom, hashes = it.target.get("custom") or {}, it.target.get("hashes") or {}
        says.append(f"{custom.get('count')} records, SHA-256 {hashes.get('sha256')}")
    return WaitingFile(str(path), it.role, it.version, rfc3339(it.expires), it.signed_by, says)


def _chosen(held: Workspace, only: Iterable[str]) -> Mapping[str, list[bytes]]:
    wanted = set(only)
    collections = held.collections()
    for name in sorted(wanted - collections.keys()):
        known = ", ".join(collections)
        raise PublishInvalid(f"There is no collection {name}; there are {known}.", reason="unknown collection")
    return {name: records for name, records in collections.items() if name in wanted} if wanted else collections


def _preview(held: Workspace, planned: Plan, missing: Mapping[str, Any]) -> Preview:
    names = {id: entry.value.name for id, entry in held.entries["models"].items()}
    flags, experiments = [], []
    for _, entry in sorted(held.entries["flags"].items()):
        if isinstance(entry.value, Flag):
            flags.append(ShownFlag(entry.value.id, _values(entry.value)))
        else:
            experiments.append(_experiment(entry.value))
    return Preview(
        version=planned.version,
        collections=[_change(change) for change in planned.collections],
        featured=[
            ShownList(slot.id, slot.title, _who(slot.target, 100), [names.get(id, id) for id in slot.models])
            for slot in sorted(held.values("featured"), key=lambda slot: (-slot.priority, slot.id))
        ],
        flags=flags,
        experiments=experiments,
        revocations=[
            f"{it.model or it.sha256}: {it.reason}"
            for it in sorted(held.values("revocations"), key=lambda it: str(it.id))
        ],
        signs=[f"{role.role} {role.version} ({role.reason})" for role in planned.roles],
        missing=[Lacking(role, lack.needs, lack.keyids) for role, lack in missing.items()],
        bytes_written=planned.bytes_written,
        warnings=[*planned.warnings, *map(str, held.warnings)],
    )


def _change(it: CollectionChange) -> ShownCollection:
    return ShownCollection(it.name, it.seq, it.count, it.created, it.updated, it.deleted, it.full_bytes, it.delta_bytes)


def _values(flag: Flag) -> list[str]:
    rules: Iterable[Rule] = flag.rules
    tried = [f"{_text(rule.value)} for {_who(rule.target, rule.percent)}" for rule in rules]
    return [*tried, f"{_text(flag.value)} for everybody{' else' if tried else ''}"]


def _experiment(it: Experiment) -> ShownExperiment:
    total = sum(branch.ratio for branch in it.branches)
    branches = [f"{one.id}: {one.slot or 'as it is'} ({one.ratio}/{total})" for one in it.branches]
    return ShownExperiment(it.id, it.state, _who(it.target, it.percent), branches)


def _who(target: Iterable[Constraint], percent: int) -> str:
    conditions = " and ".join(map(written, target))
    if percent < 100:
        return f"{percent} % of those with {conditions}" if conditions else f"{percent} %"
    return conditions or "everybody"


def _text(value: bool | int | str) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _role(it: RoleStatus, files: Mapping[str, Path]) -> RoleState:
    return RoleState(
        role=it.role,
        version=it.version,
        expires=rfc3339(it.expires),
        due=it.standing != "valid",
        threshold=it.threshold,
        keys=[KeyState(keyid, str(files.get(keyid, ""))) for keyid in it.keyids],
    )
