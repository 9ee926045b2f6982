"""LM Studio's catalogue: one JSON array of models, each with its files, their bytes and SHA-256.

It was last changed in 2024. Its files are named by `main` of their repositories and so are not pinned, but their hashes
are stated.
"""

from __future__ import annotations

import re
from typing import ClassVar

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from jan_core.types import ModelRecord

from .base import Capability
from .grouping import RepoFile, group
from .ids import model_id
from .links import link, repo_path
from .records import model_record
from .whole import Entries, WholeListHub, entries

__all__ = ["LMStudioHub"]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PARAMETERS = re.compile(r"(\d{1,4}(?:\.\d{1,3})?)\s*([bm])", re.IGNORECASE)


class _File(Struct, rename="camel"):
    name: str
    url: str = ""
    size_bytes: int | float = 0
    sha256checksum: str = ""
    format: str = "gguf"
    repository: str = field(default="", name="respository")  # as the catalogue's schema spells it


class _Named(Struct):
    name: str = ""


class _Highlighted(Struct):
    economical: _Named | None = None
    most_capable: _Named | None = None


class _Files(Struct):
    all: list[_File]
    highlighted: _Highlighted | None = None


class _Model(Struct, rename="camel"):
    name: str
    files: _Files
    description: str = ""
    author: _Named | None = None
    num_parameters: str = ""
    trained_for: str = ""
    arch: str = ""


class LMStudioHub(WholeListHub):
    """`url`: of the catalogue itself. The file that it highlights as economical is the default."""

    kind: ClassVar[str] = "lmstudio"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"list", "search", "get"})
    default_url: ClassVar[str] = "https://raw.githubusercontent.com/lmstudio-ai/model-catalog/main/catalog.json"

    def address(self) -> str:
        return self.url

    def read(self, body: bytes) -> Entries:
        return entries(msgspec.json.decode(body, type=list[msgspec.Raw]), _Model, lambda model: model.name)

    def head(self, entry: _Model) -> ModelRecord:
        return model_record(
            self.id,
            model_id(next((file.repository for file in entry.files.all if file.repository), entry.name)),
            entry.name,
            description=entry.description,
            publisher=entry.author.name if entry.author else "",
            parameters=_parameters(entry.num_parameters),
            words=[entry.trained_for],
            arch=entry.arch,
        )

    def record(self, entry: _Model, head: ModelRecord, notes: list[str]) -> ModelRecord | None:
        files = [file for file in entry.files.all if file.format.lower() == "gguf"]
        grouped = group(map(_file, files))
        notes += [f"{head.id}: {left.path}: {left.reason}" for left in grouped.left]
        if not grouped.variants:
            notes.append(f"{head.id}: it has no GGUF file that can be used by itself")
            return None
        marked = entry.files.highlighted or _Highlighted()
        wanted = next((named.name for named in (marked.economical, marked.most_capable) if named), "")
        first = {link(file.url) for file in files if file.name == wanted}
        grouped.variants.sort(key=lambda variant: variant.files[0].url not in first)  # the others stay in their order
        return replace(head, files=grouped.variants[0].files, variants=grouped.variants)


def _file(file: _File) -> RepoFile:
    place, sha256 = repo_path(file.url), file.sha256checksum.lower()
    return RepoFile(
        place.path if place else file.name,
        int(file.size_bytes) if 0 < file.size_bytes < 2**53 else 0,
        sha256 if _SHA256.fullmatch(sha256) else "",
        link(file.url),
    )


def _parameters(text: str) -> int:
    """`7B` -> 7,000,000,000: as coarse as it is written."""
    found = _PARAMETERS.fullmatch(text.strip())
    return int(float(found[1]) * (10**9 if found[2].lower() == "b" else 10**6)) if found else 0
