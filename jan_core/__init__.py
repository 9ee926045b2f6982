"""A minimal plugin host for local-first applications.

An extension is a package with an entry point in the group `jan.extensions` that names a class:

    from jan_core import Context, Empty, hookimpl, method, methods_of

    class Greeter:
        @hookimpl
        def jan_activate(self, ctx: Context) -> None:
            self.ctx = ctx

        @hookimpl
        def jan_methods(self):
            return methods_of(self)

        @method("hello.greet")
        async def greet(self, params: Empty) -> str:
            "Say hello."
            return "hello"

The names below are the public API; everything else may change.
"""

from .context import Caller, Context, Progress, Stream, Tasks
from .errors import (
    Cancelled,
    ErrorObject,
    ExtensionUnavailable,
    InternalError,
    InvalidParams,
    JanError,
    MethodNotFound,
    Overloaded,
    RpcError,
    ShuttingDown,
    StorageError,
)
from .events import Event
from .hookspecs import hookimpl
from .methods import Call, Empty, Method, method, methods_of

__all__ = [
    "API_VERSION",
    "Call",
    "Caller",
    "Cancelled",
    "Context",
    "Empty",
    "ErrorObject",
    "Event",
    "ExtensionUnavailable",
    "InternalError",
    "InvalidParams",
    "JanError",
    "Method",
    "MethodNotFound",
    "Overloaded",
    "Progress",
    "RpcError",
    "ShuttingDown",
    "StorageError",
    "Stream",
    "Tasks",
    "hookimpl",
    "method",
    "methods_of",
]

API_VERSION = "1.0"
"""The host API that extensions' `requires-core` ranges are checked against. Not the version of this distribution."""
