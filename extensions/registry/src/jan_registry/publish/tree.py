"""A hub on disk: made, planned, published. Any web server, CDN or folder can hold the tree that stands here.

    metadata/    timestamp.json, N.ROLE.json            TUF; only timestamp.json ever changes
    targets/     collections/SHA.NAME.json.gz, pieces/SHA.bin
    deltas/      NAME/FROM-TO.json.gz                   not signed: clients check what comes of them

Everything else in it begins with a dot and is the publisher's. Every function blocks, takes the time as `now` (seconds
since the epoch), and gives the same bytes for the same input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ..collections import digest
from .draft import Draft
from .errors import MissingSignatures, PublishConflict, PublishInvalid, TreeDamaged
from .files import Staging, differs, exclusive, on_disk, prune, recover
from .pieces import referenced_pieces
from .plan import Plan, Published
from .reading import contents
from .roles import DAY, DELEGATED, OFFLINE, ONLINE, RoleKeys, first_root, first_targets, lifetime
from .signing import Pending
from .state import State, metadata_path, read

if TYPE_CHECKING:
    from tuf.api.metadata import Root, Targets

    from .keys import Keys

__all__ = ["create", "plan", "publish"]

Collections = Mapping[str, Sequence[bytes]]
GRACE = lifetime("timestamp") + DAY
"""Seconds that a file stays although nothing refers to it any more: as long as a cache may hold a timestamp that still
leads to it, and a day."""
_LARGEST_PIECES = 16 << 20


def create(tree: Path, roles: Mapping[str, RoleKeys], keys: Keys, *, now: float, pending: Path | None = None) -> None:
    """Make a hub: its first root and targets, signed. `roles`: who signs for each of root, targets, snapshot,
    timestamp and the collections.

    Raises PublishInvalid when there is a hub already or the roles cannot be, MissingSignatures when keys are elsewhere
    (with a folder `pending` the two files wait there, and the first `publish` puts them in place), StorageError.
    """
    with exclusive(tree):
        recover(tree)
        if (tree / metadata_path("root", 1)).exists():
            raise PublishInvalid(f"There is a hub in {tree} already.", reason="exists")
        draft = Draft(State(tree), keys, Pending(pending), now)
        draft.root(first_root(roles, now))
        draft.targets(first_targets(roles, now))
        _write(draft, pending)


def publish(
    tree: Path,
    keys: Keys,
    collections: Collections,
    *,
    now: float,
    pending: Path | None = None,
    pieces: Path | None = None,
    expect: int | None = None,
    root: Root | None = None,
    targets: Targets | None = None,
) -> Published:
    """Publish the collections given (records in canonical bytes); the others stay as they are.

    `pending`: the folder of metadata that wait for signatures; `pieces`: a folder with piece lists (`SHA.bin`) that the
    models' records name; `expect`: the version (of the timestamp) that the caller knows, so that nobody publishes over
    what somebody else published; `root`, `targets`: new versions of these (see `rotation.py`).

    Raises TreeUnknown, TreeDamaged, MissingSignatures, PublishInvalid, PublishConflict, PublishBusy, StorageError. What
    clients see changes in one step at the end, or not at all.
    """
    with exclusive(tree):
        recover(tree)
        draft = _draft(tree, keys, collections, now, pending, pieces, expect, root, targets)
        size = _write(draft, pending)
        pruned = prune(tree, draft.referenced, now=now, grace=GRACE)
    return Published(**msgspec.structs.asdict(_plan(draft, size)), pruned=pruned)


def plan(
    tree: Path,
    collections: Collections,
    *,
    now: float,
    keys: Keys | None = None,
    pending: Path | None = None,
    pieces: Path | None = None,
) -> Plan:
    """What `publish` would do, without doing it. `keys`: None asks for what would happen if all of them were at hand.

    Raises as `publish` does, but for missing signatures, which it answers.
    """
    with on_disk(tree):
        draft = _draft(tree, keys, collections, now, pending, pieces, None, None, None)
        new = (content for path, content in draft.files.items() if differs(tree / path, content))
        return _plan(draft, sum(map(len, new)))


def _draft(
    tree: Path,
    keys: Keys | None,
    collections: Collections,
    now: float,
    pending: Path | None,
    pieces: Path | None,
    expect: int | None,
    root: Root | None,
    targets: Targets | None,
) -> Draft:
    for name in collections:
        if name not in DELEGATED:
            raise PublishInvalid(f"There is no collection {name}.", reason="unknown collection")
    waiting = Pending(pending)
    first = waiting.get("root", 1) and not (tree / metadata_path("root", 1)).exists()
    state = State(tree) if first else read(tree)
    if expect is not None and state.version != expect:
        how = "Somebody else has published" if state.version > expect else "This is an older copy"
        message = f"{how}: the hub is at version {state.version}, not {expect}."
        raise PublishConflict(message, expected=expect, found=state.version)
    draft = Draft(state, keys, waiting, now)
    draft.root(root)
    draft.targets(targets)
    for name in DELEGATED:
        draft.collection(name, collections.get(name))
    draft.online()
    draft.referenced |= {metadata_path("root", version) for version in (*state.roots, state.version_of("root") + 1)}
    _piece_lists(draft, pieces)
    return draft


def _piece_lists(draft: Draft, pieces: Path | None) -> None:
    tree = draft.state.tree
    try:
        models = draft.content.get("models") or draft.state.content("models")
    except TreeDamaged as error:
        draft.warnings.append(error.message)
        draft.referenced |= {path.relative_to(tree).as_posix() for path in tree.glob("targets/pieces/*")}
        return
    for path in referenced_pieces(models.records.values() if models else ()):
        draft.referenced.add(path)
        source = pieces / Path(path).name if pieces else None
        if source and source.is_file():
            content = contents(source, _LARGEST_PIECES)
            if digest(content) != source.stem:  # a link, say, to something that is nobody's business
                reason = f"{source} is not the piece list that its name says."
                raise PublishInvalid(reason, reason="damaged piece list")
            draft.files[path] = content
        elif not (tree / path).is_file():
            draft.warnings.append(f"The piece list {path} is not there; downloads cannot be repaired piece by piece.")


def _write(draft: Draft, pending: Path | None) -> int:
    """Put everything in place; answers how many bytes are new. Raises MissingSignatures."""
    waiting = Pending(pending)
    if draft.missing:
        # What is complete waits with the rest: it was made to go with it.
        kept = [waiting.put(each.role, draft.metadata[each.role]) for each in draft.roles if each.role not in ONLINE]
        needs = [f"{role} needs {lack.needs} more of {', '.join(lack.keyids)}" for role, lack in draft.missing.items()]
        raise MissingSignatures(
            f"Signatures are missing: {'; '.join(needs)}.",
            roles={role: {"needs": lack.needs, "keyids": lack.keyids} for role, lack in draft.missing.items()},
            pending=[str(path) for path in kept if path],
        )
    # Whatever is named must be there before what names it; a root, which names keys, right before what they signed.
    last = {
        metadata_path(role, draft.metadata[role].signed.version): number
        for number, role in enumerate(("snapshot", "root", "timestamp"), 1)
        if role in draft.metadata
    }
    staging = Staging(draft.state.tree)
    for path in sorted(draft.files, key=lambda path: (path.startswith("metadata/"), last.get(path, 0))):
        staging.put(path, draft.files[path])
    staging.commit()
    for role in (*OFFLINE, *DELEGATED):
        if role in draft.metadata:
            waiting.clear(role, draft.metadata[role].signed.version)
    return staging.size


def _plan(draft: Draft, size: int) -> Plan:
    return Plan(
        version=draft.metadata["timestamp"].signed.version,
        roles=draft.roles,
        collections=draft.collections,
        missing=draft.missing,
        due=draft.due,
        warnings=draft.warnings,
        bytes_written=size,
    )
