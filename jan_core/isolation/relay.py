"""What the host serves to a child: everything its context can do, and nothing else.

It is written against the public context alone. So an isolated extension calls under its own name, like any other, and
what it may not do it cannot do from its own process either.
"""

from __future__ import annotations

from typing import Any, get_type_hints

import msgspec

from ..context import Context
from ..errors import InvalidParams
from ..events import EventBus
from ..hookspecs import hookspecs
from ..methods import Method, MethodTable, method, methods_of
from ..timing import Timings
from .shapes import HookCall
from .windows import WindowedCall, Windows

__all__ = ["Relay"]

decode = msgspec.json.Decoder(Any).decode


class Relay:
    """Implements `invoke.Service` for one child."""

    def __init__(self, context: Context) -> None:
        self.bus = EventBus()  # events reach the child through its `jan_event` hook
        self.table, self.timings = MethodTable(), Timings()  # empty: names are found, not listed
        self._context, self._windows = context, Windows()
        self._own = {"$/taken": self._windows.method} | self._windows.serve_all({m.name: m for m in methods_of(self)})

    def find(self, name: str) -> Method | None:
        return self._own.get(name) or self._windows.serve(self._forwarded(name))

    async def resolve(self, name: str) -> Method:
        raise NotImplementedError("every name is found: whether there is such a method, the host says")

    def _forwarded(self, name: str) -> Method:
        async def forward(params: Any, call: WindowedCall) -> Any:
            def report(message: str, done: float | None, total: float | None) -> None:
                call.progress(message, done=done, total=total)

            if not call.items:
                return await self._context.call(name, params, progress=report)
            async with self._context.stream(name, params, progress=report) as stream:
                async for item in stream:
                    await call.send(item)
                return await stream.result()

        return Method(
            name=name, params=Any, result=Any, item=Any, handler=forward, takes_call=True, summary="", decode=decode
        )

    @method("$/hooks")
    async def hooks(self, params: HookCall) -> Any:
        """Call a hook of the whole house, as its mode says."""
        spec = hookspecs().get(params.name)
        if spec is None or spec.mode == "single":
            raise InvalidParams(f"no hook {params.name} that an extension may call", path="$.name")
        hints = get_type_hints(spec.function)
        arguments = {name: msgspec.convert(value, hints[name]) for name, value in params.arguments.items()}
        return await getattr(self._context.hooks, params.name.removeprefix("jan_"))(**arguments)
