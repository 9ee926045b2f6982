"""The plugin object that stands in the host for an extension in a process of its own.

To the rest of the host it is a plugin like any other: pluggy registers its hooks, which are those that the extension
implements; its methods are rows of the table, its settings a Struct. Each of them only asks the process. Params are
checked there, by the extension's own types, and the errors are its own.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from typing import Any

import msgspec

from ..events import Event
from ..hookspecs import HookSpec, hookimpl, hookspecs
from ..live import LiveContext
from ..methods import Call, Method
from .process import Child
from .shapes import Description, HookShape, MethodShape
from .starter import Starter
from .supervisor import Supervisor
from .typed import error_type, settings_type

__all__ = ["RemotePlugin"]

OWN = frozenset({"jan_activate", "jan_deactivate", "jan_methods", "jan_settings"})
"""Hooks that this class implements itself, whether or not the extension does."""

decode = msgspec.json.Decoder(Any).decode


class RemotePlugin:
    """One generation in a process of its own, which ends at the latest when nobody holds this object any more."""

    def __init__(self, starter: Starter, child: Child) -> None:
        description = starter.description
        assert description is not None
        self._description = description
        supervisor = self._supervisor = Supervisor(starter, child)
        self.discard = weakref.finalize(self, supervisor.abandon)
        specs = hookspecs()
        shapes = {shape.name: shape for shape in description.hooks if shape.name not in OWN}
        if description.settings is not None:
            shapes.setdefault("jan_event", HookShape("jan_event"))
        for name, shape in shapes.items():
            # On the instance: each generation implements what its source does.
            setattr(self, name, _implementation(_function(supervisor, description, specs[name]), specs[name], shape))

    @hookimpl
    def jan_methods(self) -> list[Method]:
        return [_method(self._supervisor, self._description, shape) for shape in self._description.methods]

    @hookimpl
    def jan_settings(self) -> type[msgspec.Struct] | None:
        return settings_type(self._description)

    @hookimpl
    async def jan_activate(self, ctx: LiveContext) -> None:
        await self._supervisor.begin(ctx)

    @hookimpl
    async def jan_deactivate(self, ctx: LiveContext) -> None:
        await self._supervisor.finish()


def _method(supervisor: Supervisor, description: Description, shape: MethodShape) -> Method:
    async def ask(params: Any, call: Call) -> Any:
        return await supervisor.call(shape, params, call)

    return Method(
        name=shape.name,
        params=Any,
        result=Any,
        item=Any if shape.streams else None,
        handler=ask,
        takes_call=True,
        summary=shape.summary,
        errors=tuple(error_type(error) for error in shape.errors),
        decode=decode,
        deadline=shape.deadline,
        described=description.document,
    )


Implementation = Callable[..., Any]


def _function(supervisor: Supervisor, description: Description, spec: HookSpec) -> Implementation:
    """What runs in the host for a hook of the extension: a plain function, since the plugin holds it itself."""
    implemented = {shape.name for shape in description.hooks}
    names = list(inspect.signature(spec.function).parameters)

    async def ask(*values: Any) -> Any:
        return await supervisor.hook(spec, dict(zip(names, values, strict=True)))

    async def hear(event: Event) -> Any:
        supervisor.tell_settings()
        return await supervisor.hook(spec, {"event": event}) if spec.name in implemented else None

    async def export_state() -> Any:
        return await supervisor.export_state()

    async def restore_state(state: Any) -> None:
        await supervisor.restore_state(state)

    special: dict[str, Implementation] = {
        "jan_event": hear,
        "jan_export_state": export_state,
        "jan_restore_state": restore_state,
    }
    return special.get(spec.name, ask)


def _implementation(function: Implementation, spec: HookSpec, shape: HookShape) -> Implementation:
    function.__name__ = function.__qualname__ = spec.name
    # It takes whatever the hook has; the extension's own, perhaps fewer, are picked in its process.
    function.__signature__ = inspect.signature(spec.function)  # type: ignore[attr-defined]
    return hookimpl(tryfirst=shape.tryfirst, trylast=shape.trylast)(function)
