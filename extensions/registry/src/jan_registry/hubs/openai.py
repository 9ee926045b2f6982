"""Any server with OpenAI's `GET /v1/models`: which models can be talked to there.

Ids and no files: these models run at the server, and there is nothing to download. `url` is with or without `/v1`.
"""

from __future__ import annotations

from typing import ClassVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from jan_core.types import ModelRecord

from .base import Capability
from .ids import model_id
from .records import model_record
from .whole import Entries, WholeListHub, entries

__all__ = ["OpenAIHub"]


class _Model(Struct):
    id: str
    owned_by: str | None = None


class _Models(Struct):
    data: list[msgspec.Raw]


class OpenAIHub(WholeListHub):
    kind: ClassVar[str] = "openai"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"list", "search", "get"})

    def address(self) -> str:
        return f"{self.url.removesuffix('/v1')}/v1/models"

    def read(self, body: bytes) -> Entries:
        return entries(msgspec.json.decode(body, type=_Models).data, _Model, lambda model: model.id)

    def head(self, entry: _Model) -> ModelRecord:
        return model_record(
            self.id,
            model_id(entry.id),
            entry.id,
            publisher=entry.owned_by or "",
            remote=True,
            served_as=entry.id,
            host=urlsplit(self.url).hostname,
        )
