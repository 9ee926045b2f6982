"""What a registry of OCI or Docker's kind answers, and what its layers mean for a model. Pure: no network.

Forms of the OCI image manifest 1.1 and Docker's schema 2; layers as Ollama (`server/images.go`) and Docker Model Runner
write them, and files by name as ORAS does (`org.opencontainers.image.title`).
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

import msgspec
from msgspec import Struct, field

__all__ = [
    "ACCEPT",
    "Challenge",
    "Config",
    "Layer",
    "Manifest",
    "Reference",
    "Tags",
    "challenge",
    "config_of",
    "files",
    "is_tag",
    "roles",
]

ACCEPT = (
    "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json;q=0.9,"
    " application/json;q=0.1"
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*", re.IGNORECASE)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_ROLES = {
    "application/vnd.ollama.image.model": "weights",
    "application/vnd.ollama.image.projector": "projector",
    "application/vnd.ollama.image.adapter": "adapter",
    "application/vnd.docker.ai.gguf.v3": "weights",
    "application/vnd.docker.ai.gguf.v3.lora": "adapter",
    "application/vnd.docker.ai.gguf.v3.mmproj": "projector",
    "application/vnd.docker.ai.mmproj": "projector",
}
_PREFIX = {"weights": "", "projector": "mmproj-", "adapter": "adapter-"}
_PARAMETERS = re.compile(r"(\d{1,4}(?:\.\d{1,3})?) ?([BM])")
_TITLES = ("org.cncf.model.filepath", "org.opencontainers.image.title")
_PARAMETER = re.compile(r'([a-z_]+)="([^"]*)"')


class Layer(Struct):
    """`digest`: `sha256:` and 64 hex digits; `size` in bytes. Raises ValueError where it is decoded otherwise."""

    digest: str
    size: int = 0
    media_type: str = field(default="", name="mediaType")
    annotations: dict[str, str] | None = None

    def __post_init__(self) -> None:
        if not _DIGEST.fullmatch(self.digest) or not 0 <= self.size < 2**53:
            raise ValueError("a layer's digest must be sha256: and 64 hex digits, and its size no less than 0")

    @property
    def sha256(self) -> str:
        return self.digest.removeprefix("sha256:")

    @property
    def title(self) -> str:
        """The name of the file that it is, "" when nothing says."""
        notes = self.annotations or {}
        return next((notes[key] for key in _TITLES if notes.get(key)), "")


class Manifest(Struct):
    """An index of several platforms has `manifests` and no layers: no model."""

    layers: list[Layer]
    config: Layer | None = None


class Config(Struct):
    """What a configuration blob says of a model. `model_format` "" where it does not say; `requires`: of Ollama."""

    model_format: str = ""
    model_family: str = ""
    model_type: str = ""
    file_type: str = ""
    requires: str = ""

    @property
    def parameters(self) -> int:
        """How many, as coarse as it is written (`8.0B`, `361.82 M`)."""
        found = _PARAMETERS.fullmatch(self.model_type)
        return int(float(found[1]) * (10**9 if found[2] == "B" else 10**6)) if found else 0


class _DockerConfig(Struct):
    format: str = ""
    architecture: str = ""
    parameters: str = ""
    quantization: str = ""


class _Blob(Config):
    """Ollama's form, or Docker Model Runner's, which has all of it in `config`."""

    config: _DockerConfig | None = None


class Tags(Struct):
    tags: list[str] | None = None


class Challenge(NamedTuple):
    """Where a registry sends whoever wants to read (the Docker token specification)."""

    realm: str
    service: str


class Reference(NamedTuple):
    """`space/name:tag`; `tag` "" when none is named."""

    repository: str
    tag: str

    @classmethod
    def of(cls, id: str, namespace: str) -> Reference:
        """From what a person writes: a name by itself lies in `namespace`. Raises ValueError."""
        name, _, tag = id.strip().partition(":")
        repository = name if "/" in name or not namespace else f"{namespace}/{name}"
        if not _NAME.fullmatch(repository) or len(repository) > 255 or (tag and not is_tag(tag)):
            raise ValueError("a model of a registry is named space/name:tag")
        return cls(repository, tag)


def is_tag(text: str) -> bool:
    return _TAG.fullmatch(text) is not None


def roles(manifest: Manifest) -> list[tuple[str, Layer]]:
    """What each layer is for: `weights`, `projector`, `adapter`; the rest by the end of its kind (`license`, …)."""
    found = []
    for layer in manifest.layers:
        role = _ROLES.get(layer.media_type, "")
        if not role and layer.title.lower().endswith(".gguf"):
            role = "weights"
        found.append((role or re.split(r"[./+]", layer.media_type)[-1], layer))
    return found


def files(layers: list[tuple[str, Layer]], base: str) -> list[tuple[str, str, Layer]]:
    """The role, a path and the layer of each file that a model runs with: the path that the registry says, else `base`.

    Weights in several layers without names are parts in that order (Docker's model specification).
    """
    parts = [layer for role, layer in layers if role == "weights" and not _path(layer)]
    named = []
    for role, layer in layers:
        if role not in _PREFIX:
            continue
        part = f"-{parts.index(layer) + 1:05}-of-{len(parts):05}" if layer in parts and len(parts) > 1 else ""
        named.append((role, _path(layer) or f"{_PREFIX[role]}{base}{part}.gguf", layer))
    return named


def _path(layer: Layer) -> str:
    return layer.title if layer.title.lower().endswith(".gguf") else ""


def config_of(body: bytes, layer: Layer) -> Config:
    """A configuration blob. Raises ValueError when it is not the one whose hash was stated."""
    if hashlib.sha256(body).hexdigest() != layer.sha256:
        raise ValueError("the configuration does not have the hash that was stated")
    blob = msgspec.json.decode(body, type=_Blob)
    if blob.config is None:
        return blob
    said = blob.config
    return Config(
        said.format, said.architecture, said.parameters, said.quantization.rpartition("/")[2].removeprefix("MOSTLY_")
    )


def challenge(header: str) -> Challenge | None:
    """What `WWW-Authenticate` asks for; None for anything but a bearer token."""
    scheme, _, rest = header.strip().partition(" ")
    if scheme.lower() != "bearer":
        return None
    named = dict(_PARAMETER.findall(rest))
    return Challenge(named["realm"], named.get("service", "")) if named.get("realm") else None
