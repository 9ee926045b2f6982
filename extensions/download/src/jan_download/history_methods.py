"""The method `downloads.history`: what became of a download, who brought which piece, and both as a page."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from jan_core import method

from .errors import DownloadNotFound
from .records import Piece, PieceState
from .shapes import Download, Text, rfc3339
from .threads import in_thread

if TYPE_CHECKING:
    from .history import History

__all__ = ["DownloadHistory", "HistoryLine", "HistoryMethods", "HistoryQuery", "PieceRun"]


class HistoryQuery(Struct, forbid_unknown_fields=True):
    """`html`: the history as one HTML document too, in which nothing is loaded and nothing runs. `group`: in which all
    downloads of its group are, if it belongs to one."""

    id: Text
    html: bool = False
    group: bool = False


class HistoryLine(Struct):
    """Something that became of a download, at a time (RFC 3339, UTC). `kind` says what `data` has:

    `state`: `state`, `done` and `total` (bytes), and where they say something `error`, `waiting_for`, `retry_at`,
    `verified`, `warning`, `origin`. `sample`: `done`, `verified`, `discarded` (bytes), `speed` (bytes/s),
    `connections`. `source`: one that is used for the first time, or no longer, or again. `sources`: the `figures` of
    all of them at the end of a run. `piece`: the `index` of one that was wrong. `settings`: what somebody changed.
    """

    at: str
    kind: str
    data: dict[str, Any]


class PieceRun(Struct):
    """`count` pieces from number `first` on (from 0) that stand alike. `source`: the host that brought them, several
    joined by a space; `tries`: how often each was begun anew because it was wrong; `bytes` of them are there."""

    first: int
    count: int
    bytes: int
    state: PieceState
    source: str
    tries: int


class DownloadHistory(Struct):
    """`entries` oldest first, of samples the fewer the older they are. `pieces`: those that were begun. `html`: the
    page, if it was asked for."""

    download: Download
    entries: list[HistoryLine]
    pieces: list[PieceRun]
    html: str = ""


class HistoryMethods:
    """Handlers. `start` comes before any call."""

    _history: Callable[[], History]
    _get: Callable[[str], Awaitable[Download]]
    _members: Callable[[str], Awaitable[Sequence[Download]]]

    def start(
        self,
        history: Callable[[], History],
        get: Callable[[str], Awaitable[Download]],
        members: Callable[[str], Awaitable[Sequence[Download]]],
    ) -> None:
        """`get` shows a download as it stands, or raises DownloadNotFound, and `members` those of a group; `history` is
        asked for after that."""
        self._history, self._get, self._members = history, get, members

    @method("downloads.history", errors=[DownloadNotFound])
    async def history(self, params: HistoryQuery) -> DownloadHistory:
        """What became of a download since it was asked for: its states, its speed, its sources, its pieces."""
        download = await self._get(params.id)
        shown = [download] if params.html else []
        if params.html and params.group and download.group:
            shown = list(await self._members(download.group))
        return await in_thread(self._answer, download, shown)

    def _answer(self, download: Download, shown: Sequence[Download]) -> DownloadHistory:
        """`shown`: those that are on the page."""
        history = self._history()
        entries, pieces = history.of(download.id), history.pieces(download.id)
        document = ""
        if shown:
            from .page import page

            document = page([(each, history.of(each.id), history.pieces(each.id)) for each in shown], time.time())
        lines = [HistoryLine(rfc3339(entry.at), entry.kind, entry.data) for entry in entries]
        return DownloadHistory(download, lines, list(_runs(pieces)), document)


def _runs(pieces: Sequence[Piece]) -> Iterator[PieceRun]:
    """Neighbours that stand alike as one."""
    numbered = enumerate(pieces)
    for _, run in groupby(numbered, lambda at: (at[1].index - at[0], at[1].state, at[1].source, at[1].tries)):
        alike = [piece for _, piece in run]
        one = alike[0]
        length = sum(piece.length for piece in alike)
        yield PieceRun(one.index, len(alike), length, one.state, one.source, one.tries)
