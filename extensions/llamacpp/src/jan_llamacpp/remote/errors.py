"""The typed errors of remote engines. Codes -32080 to -32090. `data.remote` names the engine.

No message holds the key, nor more than a line of what an endpoint said.
"""

from __future__ import annotations

from jan_core import JanError

__all__ = [
    "REMOTE_ERRORS",
    "RemoteAnswerInvalid",
    "RemoteAuthFailed",
    "RemoteBusy",
    "RemoteExists",
    "RemoteFailed",
    "RemoteInterrupted",
    "RemoteKeyUnavailable",
    "RemoteModelNotFound",
    "RemoteNotFound",
    "RemoteRefused",
    "RemoteUnreachable",
]


class RemoteNotFound(JanError):
    """No remote engine of this id is configured. `data.known` lists those that are."""

    code, type = -32080, "remote_not_found"


class RemoteExists(JanError):
    """A remote engine, or an engine of this machine, has this id already."""

    code, type = -32081, "remote_exists"


class RemoteUnreachable(JanError):
    """No answer began. `data.reason`: `connect` (also names that cannot be resolved), `tls`, `lost` (the connection
    ended before an answer) or `timeout`.
    """

    code, type, retryable = -32082, "remote_unreachable", True


class RemoteAuthFailed(JanError):
    """The endpoint does not accept the key (401, 403), or wants one."""

    code, type = -32083, "remote_auth_failed"


class RemoteModelNotFound(JanError):
    """The endpoint has no such model, or serves no chat at this address (404)."""

    code, type = -32084, "remote_model_not_found"


class RemoteBusy(JanError):
    """The endpoint takes no more requests now (429, 503). `data.retry_after` in seconds where it said so."""

    code, type, retryable = -32085, "remote_busy", True


class RemoteRefused(JanError):
    """The endpoint refuses this request (another 4xx). `data.status`."""

    code, type = -32086, "remote_refused"


class RemoteFailed(JanError):
    """The endpoint failed (5xx, or an error amid its answer). `data.status` where there is one."""

    code, type, retryable = -32087, "remote_failed", True


class RemoteAnswerInvalid(JanError):
    """What came is no answer. `data.reason`: `web_page` (a login page of the network, mostly), `redirect` (never
    followed: the key would go along), `malformed`, `encoding` or `limit`.
    """

    code, type = -32088, "remote_answer_invalid"


class RemoteInterrupted(JanError):
    """The answer began and did not end: what came is not the whole of it. `data.reason`: `truncated` or `idle`."""

    code, type, retryable = -32089, "remote_interrupted", True


class RemoteKeyUnavailable(JanError):
    """The engine's key is gone, locked away, kept for another address, or readable by others."""

    code, type = -32090, "remote_key_unavailable"


REMOTE_ERRORS: tuple[type[JanError], ...] = (
    RemoteNotFound,
    RemoteUnreachable,
    RemoteAuthFailed,
    RemoteModelNotFound,
    RemoteBusy,
    RemoteRefused,
    RemoteFailed,
    RemoteAnswerInvalid,
    RemoteInterrupted,
    RemoteKeyUnavailable,
)
"""What asking a remote engine may end with."""
