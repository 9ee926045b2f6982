"""Typed errors: what may cross an extension border or the wire.

Every error that a caller can act on is a subclass of `JanError` with a stable `type` string, a JSON-RPC `code`
and a `retryable` flag. Anything else that escapes a handler is a defect: the peer answers it as `InternalError`
with an `errorId` that is found in the log, and never with a traceback.

Codes: JSON-RPC 2.0 reserves -32768..-32000. -32000..-32019 and -32050 belong to this package; extensions take theirs
from the rest of -32020..-32099 and declare them on their methods, so that one table can be generated from the method
table.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

__all__ = [
    "Cancelled",
    "DeadlineExceeded",
    "ErrorObject",
    "ExtensionCrashed",
    "ExtensionNotFound",
    "ExtensionReloaded",
    "ExtensionUnavailable",
    "InstallFailed",
    "InternalError",
    "InvalidParams",
    "InvalidRequest",
    "JanError",
    "MethodNotFound",
    "NotInitialized",
    "Overloaded",
    "ParseError",
    "ReloadFailed",
    "RestartRequired",
    "RpcError",
    "ShuttingDown",
    "StorageError",
    "core_errors",
]


class ErrorObject(msgspec.Struct, omit_defaults=True):
    """The `error` member of a JSON-RPC response. `data` holds `type`, `retryable` and the error's own fields."""

    code: int
    message: str
    data: dict[str, Any] | None = None


class JanError(Exception):
    """An error a caller can act on. Subclass it and set the three class attributes.

    `message` is one line for a person; keyword arguments become members of the wire's `data`.
    """

    code: ClassVar[int] = -32000
    type: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, /, **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.data = data

    def to_object(self) -> ErrorObject:
        """The wire form of this error."""
        return ErrorObject(self.code, self.message, {"type": self.type, "retryable": self.retryable, **self.data})


class RpcError(JanError):
    """An error as a caller receives it, over the wire or in memory: same fields, no class of the other side."""

    def __init__(self, error: ErrorObject) -> None:
        data = dict(error.data or {})
        # Instance attributes shadow the class's: the other side's values are data here, not a type of ours.
        self.code = error.code  # type: ignore[misc]
        self.type = str(data.pop("type", "error"))  # type: ignore[misc]
        self.retryable = bool(data.pop("retryable", False))  # type: ignore[misc]
        super().__init__(error.message, **data)


class ParseError(JanError):
    """The bytes are not JSON (RFC 8259) in UTF-8."""

    code, type = -32700, "parse_error"


class InvalidRequest(JanError):
    """JSON, but not a JSON-RPC 2.0 request; or an id in flight; or past a limit of size, nesting or batch."""

    code, type = -32600, "invalid_request"


class MethodNotFound(JanError):
    """No extension serves this method. `extension` names a disabled one that would."""

    code, type = -32601, "method_not_found"


class InvalidParams(JanError):
    """The params do not fit the method's schema. `path` is the JSON path of the bad field."""

    code, type = -32602, "invalid_params"


class InternalError(JanError):
    """A defect of ours. `errorId` is in the log, beside the traceback."""

    code, type = -32603, "internal_error"


class Cancelled(JanError):
    """The request was cancelled with `$/cancelRequest` (code as in the Language Server Protocol)."""

    code, type = -32800, "cancelled"


class Overloaded(JanError):
    """A limit is reached (requests in flight, queue, rate). Try again later."""

    code, type, retryable = -32001, "overloaded", True


class NotInitialized(JanError):
    """A request came before `initialize`."""

    code, type = -32002, "not_initialized"


class ShuttingDown(JanError):
    """The host is draining and takes no new work."""

    code, type, retryable = -32003, "shutting_down", True


class ExtensionUnavailable(JanError):
    """The extension that serves this method failed or is quarantined; `extension` and `state` say which."""

    code, type = -32004, "extension_unavailable"


class StorageError(JanError):
    """The data folder cannot be read or written (full disk, permissions, damage)."""

    code, type = -32005, "storage_error"


class DeadlineExceeded(JanError):
    """The method did not end within its own deadline; `seconds` says which."""

    code, type, retryable = -32006, "deadline_exceeded", True


class ExtensionNotFound(JanError):
    """No extension of this id is installed."""

    code, type = -32007, "extension_not_found"


class ReloadFailed(JanError):
    """The new generation could not be made; the old one goes on serving. `failure` has stage, type, message, file and
    line."""

    code, type = -32008, "reload_failed"


class RestartRequired(JanError):
    """The change cannot be taken over while the process runs (native code, another dependency, the core itself)."""

    code, type = -32009, "restart_required"


class InstallFailed(JanError):
    """An extension could not be installed or removed; nothing was changed. `reason` is conflict, not_found, build,
    refused, consent (`permissions` says to what), smoke (`failure` says where), storage, network or uv."""

    code, type = -32010, "install_failed"


class ExtensionCrashed(JanError):
    """The process of an isolated extension ended, or had to be ended, before it had answered. It is started again:
    call again, unless the call must not be made twice. `extension` says which."""

    code, type, retryable = -32011, "extension_crashed", True


class ExtensionReloaded(JanError):
    """The generation that was serving this call was retired before the call had ended: call again."""

    code, type, retryable = -32050, "extension_reloaded", True


def core_errors() -> list[type[JanError]]:
    """The errors any method may end with, by code: the first rows of the generated error table."""
    kinds = [k for k in globals().values() if isinstance(k, type) and issubclass(k, JanError)]
    return sorted((k for k in kinds if k not in (JanError, RpcError)), key=lambda k: k.code, reverse=True)
