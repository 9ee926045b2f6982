"""From what other hubs say to records of the operator's folder. Nothing they say is believed further than it is shown:
the operator looks at what came in, as at any change in git.

Conversion is pure; asking hubs is theirs.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlsplit

import anyio.to_thread
import msgspec

from jan_core import InvalidParams, StorageError
from jan_core.types import DownloadFile, ModelRecord, ModelVariant, SourceQuery

from ..collections import File, FileSource, Record, Stats, Variant, canonical
from ..collections.check import check
from ..settings import SourceSetting
from .reading import contents

if TYPE_CHECKING:
    from ..hubs.base import HubClient
    from ..hubs.http import Answer, Http

__all__ = ["catalogue_copy", "collect", "source_of", "to_record", "to_stats"]

_HUGGING_FACE, _MODELSCOPE = "huggingface.co", "modelscope.cn"
_RESOLVE = re.compile(r"(?P<repo>[^/]+/[^/]+)/resolve/(?P<rev>[^/]+)/(?P<path>.+)")
_MAX_CATALOGUE = 64 << 20
_PAGE = 100


def to_record(model: ModelRecord, *, endpoint: str = "") -> Record:
    """A record that `check` accepts; raises ValueError with what is wrong with it. `endpoint`: an address that stands
    for Hugging Face, whose files are written down as Hugging Face's own."""
    files: dict[str, File] = {}
    variants = []
    given: list[tuple[ModelVariant | None, list[DownloadFile]]]
    given = [(variant, variant.files) for variant in model.variants] or [(None, model.files)]
    for variant, needed in given:
        if not needed:
            continue
        for one in needed:
            file = _file(one, endpoint)
            if files.setdefault(one.name, file) != file:
                raise ValueError(f"files: two are called {one.name}")
        if variant:
            places = [list(files).index(one.name) for one in needed]
            memory = 0 if variant.memory == sum(one.size for one in needed) else variant.memory
            variants.append(
                Variant(
                    id=variant.id, format=variant.format, quant=variant.quantization, files=places, ram_bytes=memory
                )
            )
    extra = model.extra
    record = Record(
        id=model.id,
        name=model.name,
        description=model.description,
        publisher=model.publisher,
        license=model.license,
        gated=_word(extra, "gated"),
        arch=_word(extra, "arch"),
        params=model.parameters,
        ctx=model.context_length,
        tags=model.tags,
        files=list(files.values()),
        variants=variants,
    )
    return check("models", canonical(msgspec.to_builtins(record)))


def to_stats(model: ModelRecord) -> Stats | None:
    """Downloads and likes, where the hub says any."""
    downloads, likes = _count(model.extra, "downloads"), _count(model.extra, "likes")
    return Stats(id=model.id, downloads=downloads, likes=likes) if downloads or likes else None


async def collect(
    hub: HubClient,
    *,
    ids: list[str],
    text: str,
    limit: int,
    pin: bool = True,
    each: Callable[[int, int], None] = lambda done, total: None,
) -> AsyncIterator[tuple[str, ModelRecord | None, list[str]]]:
    """Models of a hub: those with these ids, else all with the words of `text`, at most `limit`; with its notes.

    `pin`: what a hub only lists is asked for once more by itself, so that its files are pinned as far as the hub can.
    A model that it does not have comes as None.
    """
    for place, id in enumerate(ids):
        page = await hub.page(SourceQuery(id=id, limit=_PAGE))
        yield id, page.models[0] if page.models else None, page.notes
        each(place + 1, len(ids))
    seen, cursor = 0, ""
    while seen < limit and not ids:
        page = await hub.page(SourceQuery(text=text, cursor=cursor, limit=min(_PAGE, limit - seen)))
        for model in page.models[: limit - seen]:
            yield model.id, *(await _whole(hub, model) if pin else (model, []))
            seen += 1
            each(seen, limit)
        if page.notes:
            yield "", None, page.notes
        cursor = page.cursor
        if cursor and seen >= limit:
            yield "", None, [f"these are the first {limit}; there are more"]
        if not cursor or not page.models:
            break


async def _whole(hub: HubClient, model: ModelRecord) -> tuple[ModelRecord, list[str]]:
    complete = model.extra.get("pinned") and not model.extra.get("partial")
    if complete or "get" not in hub.capabilities:
        return model, []
    # Its own spelling where the hub has one: ids here are in lower case.
    again = await hub.page(SourceQuery(id=_word(model.extra, "repo") or model.id, limit=1))
    return (again.models[0], again.notes) if again.models else (model, [])


def catalogue_copy(path: Path) -> HubClient:
    """Jan's catalogue as it lies in a file. Nobody is asked, so that its files stay without bytes and hashes.

    Asking it raises InvalidParams when it is none, StorageError.
    """
    from ..hubs.jan_catalogue import JanCatalogueHub

    setting = SourceSetting("jan-catalogue", "jan-catalogue", options={"huggingface": "none"})
    return JanCatalogueHub(setting, cast("Http", _Copy(path)))


class _Copy:
    """Stands where a hub asks the network, and answers with a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._answer: Answer[Any] | None = None

    async def get(self, url: str, *, decode: Callable[[bytes], Any], **options: Any) -> Answer[Any]:
        if self._answer is None:
            self._answer = await anyio.to_thread.run_sync(self._read, decode)
        return self._answer

    def _read(self, decode: Callable[[bytes], Any]) -> Answer[Any]:
        from ..hubs.http import Answer

        path = self._path
        try:
            body = contents(path, _MAX_CATALOGUE)
            return Answer(decode(body), 200, {}, body, path.stat().st_mtime, 0.0, "network")
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise InvalidParams(f"{path} is no catalogue of Jan's: {str(error)[:200]}", path="$.file") from error


def _file(file: DownloadFile, endpoint: str) -> File:
    sources = [source_of(file.url, endpoint)] if file.url else []
    return File(path=file.name, role=file.role, size=file.size, sha256=file.sha256, sources=sources)


def source_of(url: str, endpoint: str = "") -> FileSource:
    """Where a file is, in the words of its hub where that is known, so that a mirror of it will do as well."""
    parts = urlsplit(url)
    path = parts.path.lstrip("/")
    if parts.query or parts.fragment:
        return FileSource(kind="https", url=url)
    if endpoint and url.startswith(f"{endpoint.rstrip('/')}/"):
        path, host = url[len(endpoint.rstrip("/")) + 1 :], _HUGGING_FACE
    else:
        host = parts.netloc
    named = _RESOLVE.fullmatch(path.removeprefix("models/") if host == _MODELSCOPE else path)
    if named is None or host not in (_HUGGING_FACE, _MODELSCOPE):
        return FileSource(kind="https", url=url)
    kind = "hf" if host == _HUGGING_FACE else "modelscope"
    return FileSource(kind=kind, repo=named["repo"], rev=unquote(named["rev"]), path=unquote(named["path"]))


def _word(extra: dict[str, Any], name: str) -> str:
    value = extra.get(name)
    return value if isinstance(value, str) else ""


def _count(extra: dict[str, Any], name: str) -> int:
    value = extra.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**53 else 0
