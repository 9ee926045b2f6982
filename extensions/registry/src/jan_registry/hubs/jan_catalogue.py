"""Jan's own catalogue: `model_catalog.json` (v1), `model_catalog_v2.json` and `latest_jan_model.json`, one JSON array.

It names files by `main` of their repositories, states neither bytes nor hashes, and its sizes ("2.2 GB") are rounded:
they are given as `size_hint` and never as sizes. Asked for one model, its repository on Hugging Face is asked for the
commit, the bytes and the SHA-256 of the same files; where that fails, the model stays without them, and a note says so.
MLX models are left out: no engine here runs them.
"""

from __future__ import annotations

import re
from typing import ClassVar
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from jan_core.types import ModelRecord, ModelVariant, SourcePage, SourceQuery

from ..settings import SourceSetting
from .base import Capability
from .errors import HubInvalid, HubRefused, HubUnreachable
from .grouping import RepoFile, group
from .hf_forms import files_of, record_of, resolved, unusable
from .huggingface import HuggingFaceHub
from .ids import model_id
from .links import link, repo_path
from .paging import few
from .records import model_record
from .text import line
from .whole import Entries, WholeListHub, entries

__all__ = ["JanCatalogueHub"]

_FILES_HOST = "huggingface.co"
_HINT = re.compile(r"\d{1,6}(?:\.\d{1,3})? ?[KMGTP]?i?B")
_PINNED = {"pinned": True}


class _File(Struct):
    path: str
    file_size: str | None = None


class _Entry(Struct):
    """`library_name` is missing in v1, which has GGUF only; `display_name` stands in `latest_jan_model.json`."""

    model_name: str
    developer: str = ""
    display_name: str | None = None
    description: str | None = None
    downloads: int | None = None
    library_name: str = "gguf"
    tools: bool | None = None
    quants: list[_File] = field(default_factory=list)
    mmproj_models: list[_File] = field(default_factory=list)
    created_at: str | None = field(default=None, name="createdAt")


class JanCatalogueHub(WholeListHub):
    """`url`: of the document. The option `huggingface` names another endpoint to ask for hashes, `none` asks nobody."""

    kind: ClassVar[str] = "jan-catalogue"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"list", "search", "get"})
    default_url: ClassVar[str] = "https://raw.githubusercontent.com/janhq/model-catalog/main/model_catalog_v2.json"

    def address(self) -> str:
        return self.url

    def read(self, body: bytes) -> Entries:
        raws = msgspec.json.decode(body, type=list[msgspec.Raw])
        return entries(raws, _Entry, lambda entry: entry.model_name)

    def head(self, entry: _Entry) -> ModelRecord:
        return model_record(
            self.id,
            model_id(entry.developer, entry.model_name),
            entry.display_name or entry.model_name,
            description=entry.description or "",
            publisher=entry.developer,
            words=["tools"] if entry.tools else [],
            downloads=entry.downloads,
            created=entry.created_at,
        )

    def reason(self, entry: _Entry) -> str:
        kind = line(entry.library_name, 20)
        return "" if kind == "gguf" else f"their weights are {kind}, which no engine here runs"

    def record(self, entry: _Entry, head: ModelRecord, notes: list[str]) -> ModelRecord | None:
        listed = [*entry.quants, *entry.mmproj_models]
        grouped = group(map(_repo_file, listed))
        notes += [f"{head.id}: {left.path}: {left.reason}" for left in grouped.left]
        if not grouped.variants:
            notes.append(f"{head.id}: it has no GGUF file that can be used by itself")
            return None
        hints = {link(file.path): file.file_size for file in listed}
        files = [file for variant in grouped.variants for file in variant.files]
        sizes = {file.name: hint for file in files if (hint := hints.get(file.url)) and _HINT.fullmatch(hint)}
        extra = head.extra | ({"size_hint": sizes} if sizes else {})
        return replace(head, files=grouped.variants[0].files, variants=grouped.variants, extra=extra)

    async def answer(self, query: SourceQuery) -> SourcePage:
        page = await super().answer(query)
        endpoint = self.setting.options.get("huggingface", "")
        if not query.id or not page.models or endpoint == "none":
            return page
        try:
            model, why = await self._pinned(page.models[0], endpoint)
        except (HubUnreachable, HubRefused, HubInvalid) as error:
            model, why = page.models[0], [f"its files are not pinned, and their hashes not known: {error.message}"]
        return replace(page, models=[model] if model.variants else [], notes=few([*why, *page.notes]))

    async def _pinned(self, model: ModelRecord, endpoint: str) -> tuple[ModelRecord, list[str]]:
        """The model with commit, bytes and hashes as its repository has them; and notes. Raises what hubs raise."""
        places = {file.url: repo_path(file.url) for variant in model.variants for file in variant.files}
        repos = {place.repo if place and place.host == _FILES_HOST else "" for place in places.values()}
        repo = repos.pop()
        if repos or not repo:
            return model, ["its files are not pinned, and their hashes not known: they are not all of one repository"]
        token = self.token()
        own = self.setting.token if token and endpoint and token.fits(endpoint) else ""
        hub = HuggingFaceHub(SourceSetting(self.id, "huggingface", endpoint, self.title, own), self.http)
        about = (await hub.repository(repo)).value
        if about is None or (why := unusable(about)):
            return model, [f"its files are not pinned: {'there is no such repository' if about is None else why}"]
        files = files_of(about)
        if any(file.path.lower().endswith(".gguf") and not file.size for file in files):
            files = await hub.tree(about.id, about.sha or "")
        known = {file.path: file for file in resolved(files, hub.url, about.id, about.sha or "")}
        paths = {url: place.path for url, place in places.items() if place}
        variants = [one for variant in model.variants if (one := _known_variant(variant, paths, known))]
        gone = [variant.id for variant in model.variants if variant.id not in {one.id for one in variants}]
        said = record_of(about, variants, self.id)
        pinned = replace(
            model,
            variants=variants,
            files=said.files,
            license=said.license,
            parameters=said.parameters,
            context_length=said.context_length,
            extra={key: value for key, value in model.extra.items() if key != "size_hint"} | said.extra | _PINNED,
        )
        return pinned, [f"{model.id}: {id}: the repository does not have it any more" for id in gone]


def _repo_file(file: _File) -> RepoFile:
    url = link(file.path)
    place = repo_path(url)
    return RepoFile(place.path if place else unquote(urlsplit(url).path).rpartition("/")[2], url=url)


def _known_variant(variant: ModelVariant, paths: dict[str, str], known: dict[str, RepoFile]) -> ModelVariant | None:
    """The variant with what the repository knows of its files; None when one of them is not there."""
    found = [known.get(paths[file.url]) for file in variant.files]
    files = [
        replace(file, url=there.url, size=there.size, sha256=there.sha256)
        for file, there in zip(variant.files, found, strict=True)
        if there
    ]
    if len(files) < len(found):
        return None
    memory = sum(file.size for file in files) if all(file.size for file in files) else 0
    return replace(variant, files=files, memory=memory)
