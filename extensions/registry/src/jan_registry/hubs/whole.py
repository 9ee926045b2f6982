"""Hubs that are one document: the whole list at one address, read anew for each question (it comes from the cache).

What one entry says wrongly takes no other with it; a document in which nothing can be read is no list.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import anyio.to_thread
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from jan_core.types import ModelRecord, SourcePage, SourceQuery

from .base import HubClient
from .errors import HubInvalid
from .paging import few, page_of

__all__ = ["Entries", "WholeListHub", "entries"]

T = TypeVar("T", bound=Struct)


class Entries(Struct):
    """The entries of a document that could be read, and notes about those that could not."""

    good: list[Any]
    notes: list[str]


def entries(raws: list[msgspec.Raw], form: type[T], name: Callable[[T], str]) -> Entries:
    """Each entry in `form`; one without a `name` is none. Raises ValueError when there are some and none is good."""
    decoder = msgspec.json.Decoder(form)
    found = Entries([], [])
    for place, raw in enumerate(raws):
        try:
            entry = decoder.decode(raw)
            if not name(entry).strip():
                raise ValueError("it has no name")
            found.good.append(entry)
        except (ValueError, RecursionError) as error:
            found.notes.append(f"entry {place} cannot be read: {str(error)[:100]}")
    if raws and not found.good:
        raise ValueError(found.notes[0])
    return found


class WholeListHub(HubClient):
    """`limit_bytes`: how large the document may be."""

    limit_bytes = 16 << 20

    @abstractmethod
    def address(self) -> str:
        """Where the document is."""

    @abstractmethod
    def read(self, body: bytes) -> Entries:
        """The document's entries. Raises ValueError when it is none."""

    @abstractmethod
    def head(self, entry: Any) -> ModelRecord:
        """What can be said of an entry without looking at its files: what is searched, and shown where it has none."""

    def reason(self, entry: Any) -> str:
        """Why an entry is left out altogether; "" when it is not."""
        return ""

    def record(self, entry: Any, head: ModelRecord, notes: list[str]) -> ModelRecord | None:
        """The whole of an entry; None, with a note, when it is of no use."""
        return head

    async def answer(self, query: SourceQuery) -> SourcePage:
        answer = await self.http.get(
            self.address(), hub=self.id, decode=self.read, token=self.token(), limit=self.limit_bytes
        )
        if answer.value is None:
            raise HubInvalid(f"{self.title}: there is no list at its address", source=self.id)
        page = await anyio.to_thread.run_sync(self._page, answer.value, query)
        return replace(page, age=answer.age, stale=answer.from_cache == "stale")

    def _page(self, found: Entries, query: SourceQuery) -> SourcePage:
        notes = list(found.notes)
        heads: dict[str, ModelRecord] = {}
        usable: dict[str, Any] = {}
        reasons: Counter[str] = Counter()
        for entry in found.good:
            head = self.head(entry)
            if why := self.reason(entry):
                reasons[why] += not query.id or query.id.casefold() == head.id
            elif heads.setdefault(head.id, head) is head:
                usable[head.id] = entry
            else:
                notes.append(f"{head.id}: another entry has the same id, and came first")
        notes += [f"left out, {count} of them: {why}" for why, count in reasons.items() if count]
        page = page_of(list(heads.values()), query, self.limit(query))
        whole = (self.record(usable[head.id], head, notes) for head in page.models)
        return replace(page, models=[record for record in whole if record], notes=few(notes))
