"""What `system.metrics` answers: the figures of one host since it began, gathered where they are kept.

Hooks and threads are the dispatcher's, methods the peers' record on the host, stalls the watch's. Nothing is measured
here, and nothing is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from .stall import Stalls
from .threads import ThreadFigures
from .timing import Figures

if TYPE_CHECKING:
    from .host import Host

__all__ = ["Metrics", "gather"]


class Metrics(Struct):
    """`hooks`: by extension and hook. `calls`: by method, of methods that were called. Each is of the generation it
    names, begun anew when a newer one is called. `threads`: extensions whose plain implementations are at work.
    `stalls`: what blocked the event loop. `methods`: how many there are. `uptime` in seconds."""

    hooks: dict[str, dict[str, Figures]]
    calls: dict[str, Figures]
    threads: dict[str, ThreadFigures]
    stalls: Stalls
    methods: int
    uptime: float


def gather(host: Host, uptime: float) -> Metrics:
    """The figures as they are now. Deriving percentiles costs some 5 us a record, once here instead of at each call."""
    return Metrics(
        host.dispatcher.timings(),
        host.timings.figures(),
        host.dispatcher.threads(),
        host.stalls.figures(),
        len(host.table),
        uptime,
    )
