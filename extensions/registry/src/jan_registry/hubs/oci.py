"""A registry of OCI's or Docker's kind that holds models: Ollama's, Docker Hub's, or one's own.

Files are named by their SHA-256, so they cannot change under their addresses. Registries have no list of models:
Ollama's recommends a few (`partial` records), others may tell their repositories (`/v2/_catalog`). What a registry
lets everybody read is read with the anonymous token it hands out; Ollama's own way to sign in (keys) is not spoken.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import ClassVar, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from jan_core import InvalidParams
from jan_core.types import DownloadFile, ModelRecord, ModelVariant, SourcePage, SourceQuery

from .base import Capability, HubClient
from .errors import HubInvalid, HubRefused, HubUnreachable
from .grouping import RepoFile, group
from .http import Answer, Kind, Token
from .ids import file_name, model_id, slug
from .links import link
from .oci_forms import ACCEPT, Config, Layer, Manifest, Reference, Tags, challenge, config_of, is_tag, roles
from .paging import few, page_of
from .records import model_record
from .whole import Entries, entries

__all__ = ["OciHub"]

_OLLAMA = "registry.ollama.ai"
_RECOMMENDED = "https://ollama.com/api/experimental/model-recommendations"
_SMALL = 1 << 20
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{1,16384}")
T = TypeVar("T")
_PARAMETERS = re.compile(r"(\d{1,4}(?:\.\d{1,3})?)([BM])")


class _Recommendation(Struct):
    model: str
    description: str | None = None
    context_length: int | None = None
    vram_bytes: int | None = None


class _Recommendations(Struct):
    recommendations: list[msgspec.Raw]


class _Catalogue(Struct):
    repositories: list[str] | None = None


class _Granted(Struct):
    token: str = ""
    access_token: str = ""


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
        reading = _Reading(self, reference.repository)
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
        page = SourcePage([record] if record else [], "", few(notes), answer.age, answer.from_cache == "stale")
        if record and reading.granted:
            page.notes.append("its files are to be asked for with a token that the registry hands out to everybody")
        return page

    def _record(
        self, repository: str, name: str, tag: str, manifest: Manifest, config: Config
    ) -> tuple[ModelRecord | None, list[str]]:
        """The one variant that a tag is, with notes."""
        layers = roles(manifest)
        base = f"{repository.rpartition('/')[2]}-{tag}"
        files = [self._file(repository, base, role, layer) for role, layer in layers if role in _PREFIX]
        grouped = group(files)
        notes = [f"{left.path}: {left.reason}" for left in grouped.left]
        if config.model_format not in ("", "gguf") or not grouped.variants:
            return None, [*notes, f"{name}:{tag}: its weights are no GGUF file, and engines here run no others"]
        adapters = [
            DownloadFile(file_name(f"{base}-adapter{place}", ".gguf"), self._blob(repository, layer), layer.sha256,
                         layer.size, "adapter")
            for place, layer in enumerate(layer for role, layer in layers if role == "adapter")
        ]  # fmt: skip
        variants = [
            self._variant(variant, adapters, tag, config, len(grouped.variants)) for variant in grouped.variants
        ]
        found = _PARAMETERS.fullmatch(config.model_type)
        record = model_record(
            self.id,
            model_id(f"{name}:{tag}"),
            f"{name}:{tag}",
            variants,
            publisher=repository.rpartition("/")[0],
            parameters=int(float(found[1]) * (10**9 if found[2] == "B" else 10**6)) if found else 0,
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

    def _file(self, repository: str, base: str, role: str, layer: Layer) -> RepoFile:
        path = layer.title if layer.title.lower().endswith(".gguf") else f"{_PREFIX[role]}{base}.gguf"
        return RepoFile(path, layer.size, layer.sha256, self._blob(repository, layer))

    def _blob(self, repository: str, layer: Layer) -> str:
        return link(f"{self.url}/v2/{quote(repository)}/blobs/{layer.digest}")


_PREFIX = {"weights": "", "projector": "mmproj-"}
_TEXTS = ("template", "license", "params", "system", "messages")


class _Reading:
    """Reads one repository: as it is, and when that is refused with the token that everybody may have."""

    def __init__(self, hub: OciHub, repository: str) -> None:
        self._hub, self._repository = hub, repository
        self._token = hub.token()
        self.granted = False

    async def manifest(self, tag: str) -> Answer[Manifest]:
        return await self._get(f"manifests/{tag}", msgspec.json.Decoder(Manifest).decode, accept=ACCEPT)

    async def tags(self) -> list[str]:
        """The repository's tags; none where the registry does not tell."""
        try:
            answer = await self._get("tags/list", msgspec.json.Decoder(Tags).decode)
        except (HubInvalid, HubRefused):
            return []
        return (answer.value.tags if answer.value else None) or []

    async def config(self, layer: Layer) -> Config | None:
        """The description of a model; None when it cannot be had: it tells nothing that must be known."""
        try:
            return (await self._get(f"blobs/{layer.digest}", lambda body: config_of(body, layer), "immutable")).value
        except (HubUnreachable, HubInvalid, HubRefused):
            return None

    async def _get(
        self, path: str, decode: Callable[[bytes], T], kind: Kind = "detail", accept: str = "*/*"
    ) -> Answer[T]:
        answer = await self._ask(path, decode, kind, accept)
        if answer.status == 401 and self._token is None:
            self._token = await self._grant(answer.headers.get("www-authenticate", ""))
            self.granted = True
            answer = await self._ask(path, decode, kind, accept)
        if answer.status == 401:
            raise self._refused()
        if answer.status == 412:
            message = f"{self._hub.title} gives {self._repository} to newer versions of its own program only"
            raise HubRefused(message, reason="unsupported", source=self._hub.id)
        return answer

    async def _ask(self, path: str, decode: Callable[[bytes], T], kind: Kind, accept: str) -> Answer[T]:
        url = f"{self._hub.url}/v2/{quote(self._repository)}/{path}"
        return await self._hub.http.get(
            url, hub=self._hub.id, decode=decode, kind=kind, token=self._token, accept=accept, limit=_SMALL,
            answers=(401, 412),
        )  # fmt: skip

    async def _grant(self, header: str) -> Token:
        """The token that everybody may have. Nothing of ours is sent for it, wherever the registry sends us.

        Raises HubRefused when there is none.
        """
        asked = challenge(header)
        realm = link(asked.realm) if asked else ""
        near = urlsplit(realm).hostname == urlsplit(self._hub.url).hostname
        if asked is None or not realm or not (realm.startswith("https:") or near):
            raise self._refused()
        wanted = {"service": asked.service, "scope": f"repository:{self._repository}:pull"}
        url = f"{realm}{'&' if '?' in realm else '?'}{urlencode({k: v for k, v in wanted.items() if v})}"
        decode = msgspec.json.Decoder(_Granted).decode
        answer = await self._hub.http.get(url, hub=self._hub.id, decode=decode, kind="none", limit=_SMALL)
        value = (answer.value.token or answer.value.access_token) if answer.value else ""
        if not _TOKEN.fullmatch(value):
            raise self._refused()
        return Token(value, self._hub.url)

    def _refused(self) -> HubRefused:
        said = "does not take this token" if self._hub.setting.token else "wants a token"
        message = f"{self._hub.title} {said} for {self._repository}"
        return HubRefused(message, reason="auth_required", source=self._hub.id, model=self._repository)


def _tag_like(tags: list[str], wanted: str) -> str:
    """The tag that differs from the wanted one only in case; without a wanted one the first in the alphabet."""
    if not wanted:
        return min((tag for tag in tags if is_tag(tag)), default="")
    return next((tag for tag in tags if tag.casefold() == wanted.casefold() and is_tag(tag)), "")


def _read_recommendations(body: bytes) -> Entries:
    raws = msgspec.json.decode(body, type=_Recommendations).recommendations
    return entries(raws, _Recommendation, lambda one: one.model)
