"""Where a request goes, told in one pass over its bytes.

A request's envelope and its params are decoded together: the method table is one union of Structs, tagged by `method`.
It is made anew when the table changes. What does not fit it (other messages, wrong params, methods not yet there) is no
error here: the peer looks at it again, slowly, and finds the right answer.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, Protocol

import msgspec

from ..methods import Method
from ..package import forget_unions
from ..timing import Timing, Timings
from .messages import Id

__all__ = ["Incoming", "Route", "Routes"]


class Route:
    """A method as a request finds it: what is asked of it for each call is at hand."""

    __slots__ = ("_timings", "handler", "is_async", "loose", "method", "plain", "takes_call", "tame", "timing")

    def __init__(self, method: Method, timings: Timings) -> None:
        self.method, self.handler, self.takes_call = method, method.handler, method.takes_call
        self.is_async = method.is_async
        _, names, open, nests = method.traits
        self.loose = names is None or "progressToken" in names or (method.takes_call and open)
        """Whether a `progressToken` among the params would not make decoding fail, and yet mean something."""
        self.tame = not (self.loose or nests)
        """Whether a request that could be decoded needs no second look: it cannot be nested too deeply either."""
        self.plain = not (self.is_async or self.takes_call)
        self.timing: Timing | None = None
        """Where what its calls took is recorded; None until the first of them asks with `timed`."""
        self._timings = timings

    def timed(self) -> Timing:
        """`timing`, begun if need be: methods that nobody calls have no figures."""
        if self.timing is None:
            generation = self.method.generation
            self.timing = self._timings.of(self.method.name, generation.number if generation else 0)
        return self.timing


class Incoming(Protocol):
    """What the decoder makes of a request."""

    id: Id
    params: Any
    route: Route


class Routes:
    """The routes to the methods of one state of a table, but for those named in `without`.

    What `before` has of the same methods is used again: a reload of one extension need not hold up the loop for all.
    """

    def __init__(
        self,
        table: Mapping[str, Method],
        timings: Timings,
        without: Collection[str] = (),
        before: Routes | None = None,
    ) -> None:
        self._timings = timings
        self._routes = {name: before.of(m) if before else Route(m, timings) for name, m in table.items()}
        old: dict[Route, type[msgspec.Struct]] = before._kinds if before else {}
        self._kinds: dict[Route, type[msgspec.Struct]] = {
            route: old.get(route) or _request(route) for route in self._routes.values()
        }
        kinds = [kind for route, kind in self._kinds.items() if route.method.name not in without]
        self.decode: Callable[[Any], Incoming] = _nothing
        """Decodes a request of one of these methods. Raises for everything else: msgspec.MsgspecError,
        UnicodeDecodeError, RecursionError, TypeError (what is no bytes) or LookupError (there are none)."""
        tame = [kind for route, kind in self._kinds.items() if route.tame and route.method.name not in without]
        self.decode_lines: Callable[[Any], list[Incoming]] = _nothing
        """Decodes lines at once, if all are requests of methods about which the bytes need not be asked. Raises for
        everything else."""
        if kinds:
            # `|` and not `Union[…]`, which typing keeps; and msgspec is made to forget it: methods that are gone,
            # and with them all the code of their generation, would stay.
            union: Any = functools.reduce(operator.or_, kinds)
            self.decode = msgspec.json.Decoder(union).decode
            if tame:
                tame_union: Any = functools.reduce(operator.or_, tame)
                self.decode_lines = msgspec.json.Decoder(tame_union).decode_lines
            forget_unions(set(kinds).__contains__)

    def of(self, method: Method) -> Route:
        """The route to a method, of this table or another."""
        route = self._routes.get(method.name)
        return route if route is not None and route.method is method else Route(method, self._timings)


def _nothing(message: Any) -> Any:
    raise LookupError("there are no methods")


def _request(route: Route) -> type[msgspec.Struct]:
    return msgspec.defstruct(
        "Request",
        [("jsonrpc", Literal["2.0"]), ("id", int | str), ("params", route.method.params)],
        namespace={"route": route},
        tag_field="method",
        tag=route.method.name,
        gc=False,
    )
