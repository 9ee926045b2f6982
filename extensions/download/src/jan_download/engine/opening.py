"""The first answer, for a file of which nobody knows how large it is: somebody must say so before it can be planned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from jan_core.types import DownloadSource

from ..errors import BadSource
from ..network.errors import Unreachable
from .plan import REQUEST
from .stop import Stop, Stopped
from .trust import Trust

if TYPE_CHECKING:
    from ..network.body import Body
    from ..network.network import Network
    from ..source import Source

__all__ = ["first_answer"]


def first_answer(
    trust: Trust, network: Network, more_sources: Callable[[], Sequence[DownloadSource]], stop: Stop
) -> tuple[Source, Body]:
    """Who answers first, and a body that begins where the file does; blocks.

    Where nothing would tell two versions apart it is all of the file. Raises Stopped; Unreachable or a JanError when
    nobody has it.
    """
    last = -1 if trust.careful else REQUEST - 1
    while not stop.is_set():
        source = trust.pick(set())
        if source is None:
            if trust.book.wait() is not None:
                raise trust.reason(Unreachable("no source can be reached"))
            if not trust.book.add(more_sources()):
                raise trust.reason(BadSource("nobody knows a place to get this file from"))
            continue
        trust.book.began(source)
        try:
            return source, network.open(source.source, 0, last)
        except Exception as error:
            trust.judge(source, error, proven=False, begun=False)
        finally:
            trust.book.ended(source)
    raise Stopped
