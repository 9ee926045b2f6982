"""The method table: everything the system can do, by name.

A *method* is a name, a msgspec type for its params, one for its result and perhaps one for its stream items.
Extensions contribute methods; stdio, HTTP, the command line, tests and other extensions all reach the same table.
This module knows types and handlers. It does not know who calls (`invoke.py`) nor how bytes travel (`rpc/`).

    class Clock:
        @method("clock.now")
        async def now(self, params: Now) -> Time:
            "What time it is."

        @method("clock.ticks", item=Time)
        async def ticks(self, params: Ticks, call: Call) -> Done:
            "Send the time once a second."
            for _ in range(params.count):
                await call.send(Time(...))
            return Done()

    methods_of(Clock())     # what an extension returns from its `jan_methods` hook
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from .errors import JanError
from .params import Traits, traits_of

if TYPE_CHECKING:
    from .extension import Generation

__all__ = ["Call", "Empty", "Method", "MethodTable", "method", "methods_of"]


class Empty(msgspec.Struct, forbid_unknown_fields=True):
    """Params or result with no members."""


class Call(Protocol):
    """What a handler may do with the call it serves, beside answering it."""

    @property
    def caller(self) -> str:
        """Who calls: the id of an extension, or the name a client gave in `initialize`."""
        ...

    async def send(self, item: Any) -> None:
        """Send one stream item. Waits while the caller's reader is behind, so memory stays bounded."""
        ...

    def progress(self, message: str = "", *, done: float | None = None, total: float | None = None) -> None:
        """Report how far long work has come. Cheap when nobody asked; a later report may replace an unsent one."""
        ...


Handler = Callable[..., Awaitable[Any] | Any]


@dataclass(frozen=True, slots=True)
class Method:
    """One row of the table. `handler` is bound; `takes_call` says whether it wants the `Call` as second argument."""

    name: str
    params: Any
    result: Any
    item: Any | None
    handler: Handler
    takes_call: bool
    summary: str
    errors: tuple[type[JanError], ...] = ()
    events: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False, kw_only=True)
    """Types of the data of the events that tell of what this method reads or changes, by the event's name."""
    decode: Callable[[bytes | msgspec.Raw], Any] = dataclasses.field(repr=False, compare=False, kw_only=True)
    """Decodes and checks params from JSON. Raises msgspec.ValidationError (wrong shape) or msgspec.DecodeError (not
    JSON). Kept here and not in a cache of the process, which would keep a retired generation's types alive."""
    owner: str = ""
    generation: Generation | None = dataclasses.field(default=None, repr=False, compare=False)
    """Whom a call must keep alive (`Generation.lease`); None for what lives as long as the host."""
    deadline: float | None = None
    """Seconds one call may take; None: as long as it likes."""
    described: Mapping[str, Any] | None = dataclasses.field(default=None, repr=False, compare=False)
    """The OpenRPC document that describes it, where its types are those of another process."""
    traits: Traits = dataclasses.field(default=None, repr=False, compare=False)  # type: ignore[assignment]
    """What `params` tells by itself; found when it is not given, or is that of another type."""

    def __post_init__(self) -> None:
        if self.traits is None or self.traits.kind is not self.params:
            object.__setattr__(self, "traits", traits_of(self.params))

    @property
    def is_async(self) -> bool:
        """Whether the handler is an `async def`, perhaps behind decorators."""
        return inspect.iscoroutinefunction(self.handler) or inspect.iscoroutinefunction(inspect.unwrap(self.handler))

    def convert(self, params: Any) -> Any:
        """Check params that are already Python values: a Struct of the right type passes as it is.

        A Struct of another type (another extension's, or another generation's of the same source) crosses as data.
        Raises msgspec.ValidationError.
        """
        if type(params) is self.params:
            return params
        return msgspec.convert(msgspec.to_builtins(params, builtin_types=(bytes,)), self.params)


def method(
    name: str,
    *,
    item: Any | None = None,
    errors: Iterable[type[JanError]] = (),
    events: Mapping[str, Any] | None = None,
    deadline: float | None = None,
) -> Callable[[Handler], Handler]:
    """Mark a function as the handler of method `name`.

    Params and result types are read from its annotations: `(self, params: P) -> R` or
    `(self, params: P, call: Call) -> R`. `item` is the type of the stream items; `errors` are the domain errors it may
    end with, and `events` the types of the data of the events that tell of what it reads or changes, both for the
    generated documentation: an event needs to be declared on one method only. An `async def` runs as a task and may
    have a `deadline` in seconds, past which it is cancelled and answered with DeadlineExceeded; a plain `def` runs on
    the event loop and must be quick.
    """

    def mark(function: Handler) -> Handler:
        function.__jan_method__ = (name, item, tuple(errors), dict(events or {}), deadline)  # type: ignore[attr-defined]
        return function

    return mark


def methods_of(*owners: object) -> list[Method]:
    """Collect the marked handlers of some objects, in the order of definition.

    Raises TypeError when a handler's annotations do not say what it takes and returns.
    """
    return [_describe(handler) for owner in owners for handler in _marked(owner)]


def _marked(owner: object) -> Iterator[Handler]:
    seen: set[str] = set()
    for kind in type(owner).__mro__:
        for name, value in vars(kind).items():
            if name not in seen and hasattr(value, "__jan_method__"):
                yield getattr(owner, name)
            seen.add(name)


def _describe(handler: Handler) -> Method:
    name, item, errors, events, deadline = handler.__jan_method__  # type: ignore[attr-defined]
    function = inspect.unwrap(handler)
    parameters = list(inspect.signature(function).parameters)
    hints = typing.get_type_hints(function)
    if not 1 <= len(parameters) <= 2 or parameters[0] not in hints or "return" not in hints:
        raise TypeError(
            f"{name}: a handler is (params: P) -> R or (params: P, call: Call) -> R, with annotations; "
            f"{function.__qualname__} is {inspect.signature(function)}"
        )
    if item is not None and not inspect.iscoroutinefunction(function):
        raise TypeError(
            f"{name}: {function.__qualname__} has stream items and must be an `async def`: a plain one cannot wait for "
            "a client that reads slowly"
        )
    if not inspect.getdoc(function):
        raise TypeError(f"{name}: {function.__qualname__} needs a docstring; it is the method's documentation")
    result = hints["return"]
    return Method(
        name=name,
        params=hints[parameters[0]],
        result=None if result is type(None) else result,
        item=item,
        handler=handler,
        takes_call=len(parameters) == 2,
        summary=inspect.getdoc(function) or "",
        errors=errors,
        events=events,
        decode=msgspec.json.Decoder(hints[parameters[0]]).decode,
        deadline=deadline,
    )


class MethodTable(Mapping[str, Method]):
    """The methods served now. Replaced, never changed in place: a reader always sees one whole state."""

    def __init__(self) -> None:
        self._methods: dict[str, Method] = {}
        self.version = 0
        """Counts the replacements, for whoever derives something from the table."""

    def __getitem__(self, name: str) -> Method:
        return self._methods[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._methods)

    def __len__(self) -> int:
        return len(self._methods)

    def replace(self, owner: str, methods: Iterable[Method]) -> None:
        """Make `methods` the whole of what `owner` contributes, in one step.

        Raises ValueError, and changes nothing, when a name is served by somebody else.
        """
        table = {name: m for name, m in self._methods.items() if m.owner != owner}
        for m in methods:
            if m.name in table:
                raise ValueError(f"method {m.name} is served by {table[m.name].owner or 'this extension already'}")
            table[m.name] = m
        self._methods = table
        self.version += 1
