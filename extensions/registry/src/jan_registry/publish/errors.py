"""What can go wrong when a hub is signed and written. Codes -32091 to -32099."""

from __future__ import annotations

from jan_core import JanError

__all__ = [
    "KeyUnusable",
    "MissingSignatures",
    "PublishBusy",
    "PublishConflict",
    "PublishInvalid",
    "TreeDamaged",
    "TreeUnknown",
    "WorkspaceInvalid",
    "WorkspaceUnknown",
]


class TreeUnknown(JanError):
    """There is no hub in this folder (no signed metadata). `tree` is the folder."""

    code, type = -32091, "tree_unknown"


class TreeDamaged(JanError):
    """A file of the hub is missing, is not what it should be, or is not signed by who should have: `file`, `reason`.
    Nothing was changed."""

    code, type = -32092, "tree_damaged"


class MissingSignatures(JanError):
    """Keys are missing. `roles`: for each role how many signatures it `needs` more, and of which `keyids`. What clients
    see was not changed; with a folder for pending metadata, what waits for signatures lies there."""

    code, type = -32093, "missing_signatures"


class KeyUnusable(JanError):
    """A key file cannot be read, written or opened: `file`, `reason`. (A wrong passphrase is such a reason.)"""

    code, type = -32094, "key_unusable"


class PublishBusy(JanError):
    """Somebody else is publishing to this folder at this moment."""

    code, type, retryable = -32095, "publish_busy", True


class PublishConflict(JanError):
    """The hub is not at the version that the caller knows: `expected`, `found`."""

    code, type = -32096, "publish_conflict"


class PublishInvalid(JanError):
    """What should be published, or changed about keys, cannot be: `reason`."""

    code, type = -32097, "publish_invalid"


class WorkspaceUnknown(JanError):
    """This is no operator's folder (no `registry.toml`). `folder` says which."""

    code, type = -32098, "workspace_unknown"


class WorkspaceInvalid(JanError):
    """Something in the operator's folder is wrong, or an edit would make it so; nothing was changed. `problems` are all
    there are, as `Problem`."""

    code, type = -32099, "workspace_invalid"
