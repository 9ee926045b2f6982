"""Other keys for a role: because one was lost, stolen, or is simply old.

Who signs for root, targets, snapshot and timestamp stands in the root, which both its old and its new keys have to
sign; who signs for a collection stands in the targets. Clients need nothing for it: from the root they have they follow
each next one. What a role has signed is signed again by its new keys in the same publication.

Between the new root and the new timestamp there is a moment in which a client sees one without the other. It refuses
that, keeps what it has, and asks again; with a cache before the tree that moment lasts as long as the cache keeps
`timestamp.json` (so: a minute at most).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import PublishInvalid
from .files import exclusive, recover
from .plan import Published
from .roles import DELEGATED, OFFLINE, ONLINE, RoleKeys, set_delegation, set_signers
from .state import State, read
from .tree import Collections, publish

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey

    from .keys import Keys

__all__ = ["KeyChange", "renew", "rotate"]


@dataclass(frozen=True)
class KeyChange:
    """Keys that a role gets, ids of keys that it loses, and its threshold; None leaves that as it is."""

    add: Sequence[SSlibKey] = ()
    remove: Sequence[str] = ()
    threshold: int | None = None


def rotate(
    tree: Path,
    changes: Mapping[str, KeyChange],
    keys: Keys,
    *,
    collections: Collections | None = None,
    now: float,
    pending: Path | None = None,
) -> Published:
    """Change who signs for the roles named, and publish.

    When a key was stolen, give `collections`, so that nothing that its holder may have published is signed again. After
    an attack with a key also rotate `snapshot`: clients hold each role's version against the highest they saw, and
    forget it only when those who signed it lose their right to.

    Raises PublishInvalid, and what `publish` raises: MissingSignatures names the offline keys that have to sign. With
    `pending`, what they have to sign waits there, and the next `publish` that finds it signed finishes the rotation.
    """
    for role in changes:
        if role not in (*OFFLINE, *DELEGATED, *ONLINE):
            raise PublishInvalid(f"There is no role {role}.", reason="unknown role")
    return _publish_with(tree, changes, keys, collections or {}, now, pending)


def renew(tree: Path, roles: Sequence[str], keys: Keys, *, now: float, pending: Path | None = None) -> Published:
    """New versions of root or targets, or both, that say the same and expire later. Raises as `rotate` does."""
    if not roles or not set(roles) <= set(OFFLINE):
        raise PublishInvalid("Root and targets are renewed; everything else is by publishing.", reason="unknown role")
    return _publish_with(tree, {role: KeyChange() for role in roles}, keys, {}, now, pending, renewing=True)


def _publish_with(
    tree: Path,
    changes: Mapping[str, KeyChange],
    keys: Keys,
    collections: Collections,
    now: float,
    pending: Path | None,
    renewing: bool = False,
) -> Published:
    with exclusive(tree):
        recover(tree)
    state = read(tree)
    new: dict[str, Any] = {}
    for role, change in changes.items():
        home = role if renewing else "targets" if role in DELEGATED else "root"
        payload = new.setdefault(home, copy.deepcopy(state.metadata[home].signed))
        if not renewing:
            signers = _changed(state, role, change)
            (set_delegation if role in DELEGATED else set_signers)(payload, role, signers)
    root, targets = new.get("root"), new.get("targets")
    return publish(tree, keys, collections, now=now, pending=pending, expect=state.version, root=root, targets=targets)


def _changed(state: State, role: str, change: KeyChange) -> RoleKeys:
    present = state.signers(role)
    if present is None:
        raise PublishInvalid(f"Nothing says yet who signs for {role}.", reason="no keys yet")
    unknown = set(change.remove) - {key.keyid for key in present.keys}
    if unknown:
        raise PublishInvalid(f"{role} has no key {', '.join(sorted(unknown))}.", reason="unknown key")
    kept = [key for key in present.keys if key.keyid not in change.remove]
    threshold = present.threshold if change.threshold is None else change.threshold
    signers = RoleKeys([*kept, *change.add], threshold)
    if signers == present:
        raise PublishInvalid(f"Nothing would change about the keys of {role}.", reason="no change")
    return signers
