"""The roles of a hub: who may sign what, for how long, and where their metadata lie.

The names and expiries are the contract with clients; keys and thresholds are the operator's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ..collections import COLLECTIONS
from .errors import PublishInvalid

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey
    from tuf.api.metadata import Key, Role, Root, Targets

__all__ = [
    "DELEGATED",
    "OFFLINE",
    "ONLINE",
    "RoleKeys",
    "due",
    "first_root",
    "first_targets",
    "lifetime",
    "margin",
    "set_delegation",
    "set_signers",
    "target_name",
    "utc",
]

DAY = 86400
OFFLINE = ("root", "targets")
"""Their keys belong on machines without a network."""
DELEGATED = tuple(COLLECTIONS)
"""One role a collection, of the same name."""
ONLINE = ("snapshot", "timestamp")
_LIFETIME_DAYS = (("root", 365), ("targets", 90), ("models", 30), ("timestamp", 2))  # every other role: 7


@dataclass(frozen=True)
class RoleKeys:
    """Who may sign for a role, and how many of them have to."""

    keys: Sequence[SSlibKey]
    threshold: int = 1


def lifetime(role: str) -> int:
    """For how many seconds what a role signs is valid."""
    return dict(_LIFETIME_DAYS).get(role, 7) * DAY


def margin(role: str) -> float:
    """How many seconds before it expires it is time to sign it anew: half of its life, a quarter for the offline roles,
    which nobody signs by the way."""
    return lifetime(role) / (4 if role in OFFLINE else 2)


def due(role: str, expires: float, now: float) -> bool:
    """Whether it is time to sign it anew although nothing changed."""
    return expires - now < margin(role)


def target_name(collection: str) -> str:
    """The TUF target that a collection is."""
    return f"collections/{collection}.json"


def utc(seconds: float) -> datetime:
    """As TUF has times: whole seconds."""
    return datetime.fromtimestamp(int(seconds), UTC)


def first_root(roles: Mapping[str, RoleKeys], expires: float) -> Root:
    """Version 1 of the root. Raises PublishInvalid."""
    from tuf.api.metadata import Root

    root = Root(version=1, expires=utc(expires), consistent_snapshot=True)
    for name in (*OFFLINE, *ONLINE):
        set_signers(root, name, _given(name, roles))
    return root


def first_targets(roles: Mapping[str, RoleKeys], expires: float) -> Targets:
    """Version 1 of the top-level targets: no targets of its own, one delegation a collection. Raises PublishInvalid."""
    from tuf.api.metadata import Delegations, Targets

    targets = Targets(version=1, expires=utc(expires), delegations=Delegations({}, {}))
    for name in DELEGATED:
        set_delegation(targets, name, _given(name, roles))
    return targets


def set_signers(root: Root, role: str, given: RoleKeys) -> None:
    """Say in the root who signs for a top-level role. Raises PublishInvalid."""
    _check(role, given)
    root.roles[role].keyids = [key.keyid for key in given.keys]
    root.roles[role].threshold = given.threshold
    root.keys.update({key.keyid: key for key in given.keys})
    _drop_unused(root.keys, root.roles.values())


def set_delegation(targets: Targets, role: str, given: RoleKeys) -> None:
    """Say in the targets who signs for a collection. Raises PublishInvalid."""
    from tuf.api.metadata import DelegatedRole

    _check(role, given)
    delegations = targets.delegations
    assert delegations is not None
    assert delegations.roles is not None
    keyids = [key.keyid for key in given.keys]
    # Terminating: what is not in this role's metadata is not looked for in another's.
    delegations.roles[role] = DelegatedRole(role, keyids, given.threshold, True, paths=[target_name(role)])
    delegations.keys.update({key.keyid: key for key in given.keys})
    _drop_unused(delegations.keys, delegations.roles.values())


def _drop_unused(keys: dict[str, Key], roles: Iterable[Role]) -> None:
    used = {keyid for role in roles for keyid in role.keyids}
    for keyid in set(keys) - used:
        del keys[keyid]


def _given(role: str, roles: Mapping[str, RoleKeys]) -> RoleKeys:
    if role not in roles:
        raise PublishInvalid(f"The role {role} has no key.", reason="no key")
    return roles[role]


def _check(role: str, given: RoleKeys) -> None:
    distinct = len({key.keyid for key in given.keys})
    if distinct < len(given.keys):
        raise PublishInvalid(f"The role {role} has the same key twice.", reason="same key twice")
    if not 1 <= given.threshold <= distinct:
        reason = f"{given.threshold} of {distinct} keys would have to sign for {role}"
        raise PublishInvalid(f"The role {role} could not be signed: {reason}.", reason=reason)
