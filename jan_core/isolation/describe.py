"""Says what an extension is, as data: what the host needs to stand for it. Runs in the child."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec

from ..errors import JanError
from ..extension import Generation
from ..hookimpls import new_manager
from ..methods import Method
from ..rpc.openrpc import document
from .shapes import Description, ErrorShape, HookShape, MethodShape

__all__ = ["describe"]


def describe(generation: Generation) -> Description:
    """The description of a staged generation."""
    table = {m.name: m for m in generation.methods}
    description = Description(
        hooks=_hooks(generation),
        methods=[_method(m) for m in generation.methods],
        document=document(table, title=generation.extension, version=str(generation.number)),
    )
    if generation.settings_type is not None:
        (schema,), types = msgspec.json.schema_components([generation.settings_type])
        description.settings, description.settings_types = schema, types
        description.defaults = msgspec.to_builtins(generation.settings_type())
    return description


def _hooks(generation: Generation) -> list[HookShape]:
    manager = new_manager()
    manager.register(generation.plugin, generation.name)
    return [
        HookShape(caller.name, impl.tryfirst, impl.trylast)
        for caller in manager.get_hookcallers(generation.plugin) or ()
        for impl in caller.get_hookimpls()
    ]


def _method(method: Method) -> MethodShape:
    return MethodShape(
        name=method.name,
        summary=method.summary,
        streams=method.item is not None,
        takes_call=method.takes_call,
        deadline=method.deadline,
        errors=[_error(kind) for kind in method.errors],
    )


def _error(kind: type[JanError]) -> ErrorShape:
    doc: Any = inspect.getdoc(kind)
    return ErrorShape(kind.__name__, kind.code, kind.type, kind.retryable, doc or "")
