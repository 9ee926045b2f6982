"""A registry of OCI's or Docker's kind that holds models: Ollama's, Docker Hub's, or one's own.

Files are named by their SHA-256, so they cannot change under their addresses. Registries have no list of models:
Ollama's recommends a few (`partial` records), others may tell their repositories (`/v2/_catalog`). What a registry
lets everybody read is read with the anonymous token it hands out (`oci_reading.py`); whoever downloads a file from such
a registry has to fetch one too. Ollama's own way to sign in (keys) is not spoken.
"""

from __future__ import annotations

from typing import ClassVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from jan_core import InvalidParams
from jan_core.types import DownloadFile, ModelRecord, ModelVariant, SourcePage, SourceQuery

from .base import Capability, HubClient
from .errors import HubInvalid, HubRefused
from .grouping import RepoFile, group
from .ids import file_name, model_id, slug
from .links import link
from .oci_forms import Config, Layer, Manifest, Reference, files, is_tag, roles
from .oci_reading import Reading
from .paging import few, page_of
from .records import model_record
from .whole import Entries, entries

__all__ = ["OciHub"]

_OLLAMA = "registry.ollama.ai"
_RECOMMENDED = "https://ollama.com/api/experimental/model-recommendations"
_SMALL = 1 << 20
_TEXTS = ("template", "license", "params", "system", "messages")


class _Recommendation(Struct):
    model: str
    description: str | None = None
    context_length: int | None = None
    vram_bytes: int | None = None


class _Recommendations(Struct):
    recommendations: list[msgspec.Raw]


class _Catalogue(Struct):
    repositories: list[str] | None = None


class OciHub(HubClient):
    """`options`: `namespace`, in which names without one lie (`library` at Ollama's), `recommendations`, the address of
    a list in Ollama's form."""

    kind: ClassVar[str] = "oci"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"list", "get", "pinned"})
    default_url: ClassVar[str] = f"https://{_OLLAMA}"

    async def answer(self, query: SourceQuery) -> SourcePage:
        if query.id:
            return await self._one(query.id)
        recommended = self.setting.options.get("recommendations", _RECOMMENDED if self._is_ollama() else "")
        return await (self._recommended(recommended, query) if recommended else self._catalogue(query))

    def _is_ollama(self) -> bool:
        return urlsplit(self.url).hostname == _OLLAMA

    async def _recommended(self, url: str, query: SourceQuery) -> SourcePage:
        answer = await self.http.get(url, hub=self.id, decode=_read_recommendations, limit=_SMALL)
        if answer.value is None:
            raise HubInvalid(f"{self.title}: there are no recommendations at their address", source=self.id)
        models = {record.id: record for record in map(self._recommendation, answer.value.good)}
        page = page_of(list(models.values()), query, self.limit(query))
        return replace(page, notes=few(answer.value.notes), age=answer.age, stale=answer.from_cache == "stale")

    def _recommendation(self, one: _Recommendation) -> ModelRecord:
        remote = one.model.endswith((":cloud", "-cloud"))
        return model_record(
            self.id,
            model_id(one.model),
            one.model,
            description=one.description or "",
            context_length=one.context_length or 0,
            remote=remote,
            partial=not remote,
            memory_hint=one.vram_bytes,
        )

    async def _catalogue(self, query: SourceQuery) -> SourcePage:
        asked = {"n": str(min(self.limit(query), 100))} | ({"last": query.cursor} if query.cursor else {})
        url = f"{self.url}/v2/_catalog?{urlencode(asked)}"
        decode = msgspec.json.Decoder(_Catalogue).decode
        answer = await self.http.get(url, hub=self.id, decode=decode, token=self.token(), answers=(401, 403, 405))
        if answer.value is None:
            message = f"{self.title} does not tell which models it has; ask for one by its name"
            raise HubRefused(message, reason="unsupported", source=self.id)
        # In the order of the alphabet (the distribution specification), so that a list that goes in circles ends.
        names = [name for name in answer.value.repositories or [] if name > query.cursor]
        more = names and 'rel="next"' in answer.headers.get("link", "")
        models = [model_record(self.id, model_id(name), name, repo=name, partial=True) for name in names]
        return SourcePage(models, names[-1] if more else "", [], answer.age, answer.from_cache == "stale")

    async def _one(self, id: str) -> SourcePage:
        namespace = self.setting.options.get("namespace", "library" if self._is_ollama() else "")
        try:
            reference = Reference.of(id, namespace)
        except ValueError as error:
            raise InvalidParams(f"{id[:100]!r}: {error}", path="$.id") from None
        reading = Reading(self, reference.repository)
        tag = reference.tag or "latest"
        answer = await reading.manifest(tag)
        if answer.value is None:
            tag = _tag_like(await reading.tags(), reference.tag)
            answer = await reading.manifest(tag) if tag else answer
        if answer.value is None:
            return SourcePage([], notes=[f"{self.title} has no model {id[:100]!r}"])
        config = await reading.config(answer.value.config) if answer.value.config else None
        short = reference.repository.removeprefix(f"{namespace}/") if namespace else reference.repository
        record, notes = self._record(reference.repository, short, tag, answer.value, config or Config())
        return SourcePage([record] if record else [], "", few(notes), answer.age, answer.from_cache == "stale")

    def _record(
        self, repository: str, name: str, tag: str, manifest: Manifest, config: Config
    ) -> tuple[ModelRecord | None, list[str]]:
        """The one variant that a tag is, with notes."""
        layers = roles(manifest)
        named = files(layers, f"{repository.rpartition('/')[2]}-{tag}")
        models = [one for one in named if one[0] != "adapter"]
        grouped = group(
            RepoFile(path, layer.size, layer.sha256, self._blob(repository, layer), role)
            for role, path, layer in models
        )
        notes = [f"{left.path}: {left.reason}" for left in grouped.left]
        if config.model_format not in ("", "gguf") or not grouped.variants:
            return None, [*notes, f"{name}:{tag}: its weights are no GGUF file, and engines here run no others"]
        adapters = [
            DownloadFile(
                file_name(path[: -len(".gguf")], ".gguf"), self._blob(repository, layer), layer.sha256, layer.size, role
            )
            for role, path, layer in named
            if role == "adapter"
        ]
        variants = [
            self._variant(variant, adapters, tag, config, len(grouped.variants)) for variant in grouped.variants
        ]
        record = model_record(
            self.id,
            model_id(f"{name}:{tag}"),
            f"{name}:{tag}",
            variants,
            publisher=repository.rpartition("/")[0],
            parameters=config.parameters,
            pinned=True,
            repo=repository,
            tag=tag,
            arch=config.model_family,
            needs=config.requires,
            layers={role: {"digest": layer.digest, "size": layer.size} for role, layer in layers if role in _TEXTS},
        )
        return record, notes

    def _variant(
        self, variant: ModelVariant, adapters: list[DownloadFile], tag: str, config: Config, count: int
    ) -> ModelVariant:
        quantization = variant.quantization or (config.file_type if count == 1 else "")
        files = [*variant.files, *adapters]
        memory = sum(file.size for file in files) if all(file.size for file in files) else 0
        id = slug(quantization or tag) if count == 1 else variant.id
        return replace(variant, id=id, quantization=quantization, files=files, memory=memory)

    def _blob(self, repository: str, layer: Layer) -> str:
        return link(f"{self.url}/v2/{quote(repository)}/blobs/{layer.digest}")


def _tag_like(tags: list[str], wanted: str) -> str:
    """The tag that differs from the wanted one only in case; without a wanted one the first in the alphabet."""
    if not wanted:
        return min((tag for tag in tags if is_tag(tag)), default="")
    return next((tag for tag in tags if tag.casefold() == wanted.casefold() and is_tag(tag)), "")


def _read_recommendations(body: bytes) -> Entries:
    raws = msgspec.json.decode(body, type=_Recommendations).recommendations
    return entries(raws, _Recommendation, lambda one: one.model)
