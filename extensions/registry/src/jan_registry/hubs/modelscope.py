"""ModelScope: search and list by its open API, files with SHA-256 by the one its own client uses.

A file is named by the commit that last changed it, so that it cannot change under its address. Listed models are
`partial`: their files are asked for one model at a time. At most 3,000 results of a search can be paged through
(the server's rule).
"""

from __future__ import annotations

import re
from typing import ClassVar
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Struct, field

from jan_core import InvalidParams
from jan_core.types import ModelRecord, ModelVariant, SourcePage, SourceQuery

from .base import Capability, HubClient, escaped
from .errors import HubInvalid, HubRefused, HubUnreachable
from .grouping import RepoFile, group
from .ids import model_id
from .links import link
from .paging import few
from .records import model_record
from .whole import Entries, entries

__all__ = ["ModelScopeHub"]

_PAGE, _WINDOW = 50, 3000
_SHA256, _COMMIT = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")
_REVISION = "master"
_MAX_TREE = 16 << 20


class _Model(Struct, rename={"parameters": "params"}):
    id: str
    display_name: str | None = None
    description: str | None = None
    license: str | None = None
    parameters: int | None = None
    downloads: int | None = None
    likes: int | None = None
    tags: list[str] | None = None
    tasks: list[str] | None = None


class _Models(Struct):
    models: list[msgspec.Raw] = field(default_factory=list)
    total_count: int = 0


class _Listed(Struct):
    data: _Models
    success: bool = True


class _One(Struct):
    data: _Model
    success: bool = True


class _File(Struct, rename="pascal"):
    path: str
    size: int = 0
    sha256: str | None = None
    revision: str | None = None
    type: str = "blob"


class _Files(Struct, rename="pascal"):
    files: list[_File] | None = None


class _Tree(Struct, rename="pascal"):
    data: _Files | None = None
    code: int = 200
    success: bool = True


class ModelScopeHub(HubClient):
    """`options`: `owner` (only that organization's models), `library` (as tagged there; `gguf` when absent)."""

    kind: ClassVar[str] = "modelscope"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"list", "search", "get", "pinned"})
    default_url: ClassVar[str] = "https://modelscope.cn"

    async def answer(self, query: SourceQuery) -> SourcePage:
        return await (self._one(query.id) if query.id else self._list(query))

    async def _list(self, query: SourceQuery) -> SourcePage:
        size, number = min(self.limit(query), _PAGE), _number(query.cursor)
        wanted = {
            "search": query.text.strip(),
            "owner": self.setting.options.get("owner", ""),
            "filter.library": self.setting.options.get("library", "gguf"),
        }
        asked = {key: value for key, value in wanted.items() if value}
        asked |= {"sort": "downloads", "page_number": str(number), "page_size": str(size)}
        url = f"{self.url}/openapi/v1/models?{urlencode(asked)}"
        answer = await self.http.get(url, hub=self.id, decode=_read_list, kind="search", token=self.token())
        if answer.value is None:
            raise HubInvalid(f"{self.title} has no list of models", source=self.id)
        listed = answer.value
        more = bool(listed.found.good) and number * size < listed.total and (number + 1) * size <= _WINDOW
        return SourcePage(
            [self._record(one) for one in listed.found.good],
            str(number + 1) if more else "",
            few(listed.found.notes),
            answer.age,
            answer.from_cache == "stale",
        )

    async def _one(self, id: str) -> SourcePage:
        path = escaped(id)
        if path.count("/") != 1:
            raise InvalidParams(f"{id[:100]!r}: models of {self.title} are named owner/name", path="$.id")
        tree = await self.http.get(
            f"{self.url}/api/v1/models/{path}/repo/files?Revision={_REVISION}&Recursive=true",
            hub=self.id,
            decode=_read_tree,
            token=self.token(),
            limit=_MAX_TREE,
        )
        if tree.value is None:
            return SourcePage([], notes=[f"{self.title} has no model {id[:100]!r}"])
        about = await self._about(path)
        grouped = group(self._file(path, file) for file in tree.value if file.type == "blob")
        notes = [f"{left.path}: {left.reason}" for left in grouped.left]
        if not grouped.variants:
            return SourcePage([], notes=few([*notes, f"{id}: it has no GGUF file"]), age=tree.age)
        record = self._record(about or _Model(id), grouped.variants)
        return SourcePage([record], "", few(notes), tree.age, tree.from_cache == "stale")

    async def _about(self, path: str) -> _Model | None:
        """What the hub says of a model beyond its files; None when it does not: the files are what counts."""
        try:
            url = f"{self.url}/openapi/v1/models/{path}"
            return (await self.http.get(url, hub=self.id, decode=_read_one, token=self.token())).value
        except (HubUnreachable, HubRefused, HubInvalid):
            return None

    def _file(self, path: str, file: _File) -> RepoFile:
        revision = file.revision if file.revision and _COMMIT.fullmatch(file.revision) else _REVISION
        sha256 = (file.sha256 or "").lower()
        return RepoFile(
            file.path,
            max(0, file.size),
            sha256 if _SHA256.fullmatch(sha256) else "",
            link(f"{self.url}/models/{path}/resolve/{revision}/{quote(file.path)}"),
        )

    def _record(self, one: _Model, variants: list[ModelVariant] | None = None) -> ModelRecord:
        owner, _, name = one.id.partition("/")
        urls = [file.url for variant in variants or [] for file in variant.files]
        return model_record(
            self.id,
            model_id(one.id),
            one.display_name or name,
            variants,
            description=one.description or "",
            publisher=owner,
            license=one.license or "",
            parameters=one.parameters or 0,
            words=[*(one.tasks or []), *(one.tags or [])],
            repo=one.id,
            downloads=one.downloads,
            likes=one.likes,
            partial=variants is None,
            pinned=bool(urls) and not any(f"/resolve/{_REVISION}/" in url for url in urls),
        )


class _Page(Struct):
    found: Entries
    total: int


def _read_list(body: bytes) -> _Page:
    listed = msgspec.json.decode(body, type=_Listed)
    if not listed.success:
        raise ValueError("it says that it did not succeed")
    return _Page(entries(listed.data.models, _Model, lambda model: model.id.strip("/")), listed.data.total_count)


def _read_one(body: bytes) -> _Model:
    one = msgspec.json.decode(body, type=_One)
    if not one.success:
        raise ValueError("it says that it did not succeed")
    return one.data


def _read_tree(body: bytes) -> list[_File]:
    tree = msgspec.json.decode(body, type=_Tree)
    if not tree.success or tree.code != 200 or tree.data is None:
        raise ValueError(f"it says that it did not succeed (code {tree.code})")
    return tree.data.files or []


def _number(cursor: str) -> int:
    if not cursor:
        return 1
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 4 and int(cursor) >= 1):
        raise InvalidParams("the cursor is not one of this source", path="$.cursor")
    return int(cursor)
