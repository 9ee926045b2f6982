"""What Hugging Face's API answers, and what it means here. Pure: no network.

Forms as in the hub's OpenAPI description and in `huggingface_hub` (`ModelInfo`, `RepoFile`, `GitRefs`). Only what is
used is named; everything but the id may be missing or null, because which fields come depends on what was asked for,
and on the mirror.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qs, quote, urljoin, urlsplit

from msgspec import Struct

from jan_core.types import ModelRecord, ModelVariant

from ..convert import HUGGING_FACE
from .grouping import RepoFile
from .ids import model_id
from .records import model_record
from .text import line

__all__ = [
    "COMMIT",
    "Branch",
    "Model",
    "Refs",
    "TreeEntry",
    "files_of",
    "next_cursor",
    "record_of",
    "resolved",
    "tree_files",
    "unusable",
]

COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LINK = re.compile(r'<([^<>]*)>\s*;[^,<]*\brel="?next"?')
_EXACT = 2**53
_QUIET_TAGS = re.compile(r"[a-z_]+:\S*|endpoints_compatible|autotrain_compatible|conversational")


class Lfs(Struct):
    """How a large file is kept. In `siblings` its hash is `sha256`, in a tree `oid`."""

    sha256: str | None = None
    oid: str | None = None
    size: int | None = None


class Sibling(Struct):
    rfilename: str
    size: int | None = None
    lfs: Lfs | None = None


class TreeEntry(Struct):
    """An entry of `/tree/{revision}`; `type` is `file` or `directory`."""

    path: str
    type: str = "file"
    size: int | None = None
    lfs: Lfs | None = None


class Gguf(Struct):
    """What the hub read in the first GGUF file. `total`: how many parameters."""

    total: int | None = None
    architecture: str | None = None
    context_length: int | None = None


class Model(Struct, rename={"last_modified": "lastModified"}):
    """A repository. `gated`: false, `auto` or `manual`; `sha`: the commit that is described."""

    id: str
    author: str | None = None
    sha: str | None = None
    gated: bool | str | None = None
    private: bool | None = None
    disabled: bool | None = None
    downloads: int | None = None
    likes: int | None = None
    last_modified: str | None = None
    pipeline_tag: str | None = None
    tags: list[str] | None = None
    gguf: Gguf | None = None
    siblings: list[Sibling] | None = None


class Branch(Struct, rename={"commit": "targetCommit"}):
    name: str
    commit: str


class Refs(Struct):
    branches: list[Branch]


def files_of(model: Model) -> list[RepoFile]:
    """The files as `siblings` name them: sizes and hashes only where the blobs were asked for. Without addresses."""
    return [
        _file(sibling.rfilename, sibling.size, sibling.lfs, sibling.lfs.sha256 if sibling.lfs else None)
        for sibling in model.siblings or []
    ]


def tree_files(entries: list[TreeEntry]) -> list[RepoFile]:
    return [
        _file(entry.path, entry.size, entry.lfs, entry.lfs.oid if entry.lfs else None)
        for entry in entries
        if entry.type == "file"
    ]


def resolved(files: list[RepoFile], endpoint: str, repo: str, commit: str) -> list[RepoFile]:
    """The files with their addresses, which name the commit; without those whose path leads elsewhere."""
    base = f"{endpoint}/{quote(repo)}/resolve/{commit}/"
    return [
        RepoFile(file.path, file.size, file.sha256, base + quote(file.path))
        for file in files
        if file.path.isprintable() and not any(part in ("", ".", "..") for part in file.path.split("/"))
    ]


def record_of(model: Model, variants: list[ModelVariant], source: str, *, partial: bool = False) -> ModelRecord:
    """A repository and what it holds as a record. `partial`: not all is known of its files."""
    tags = model.tags or []
    labels = {name: value for name, _, value in (tag.partition(":") for tag in reversed(tags))}
    gguf = model.gguf or Gguf()
    return model_record(
        source,
        model_id(model.id),
        model.id.rpartition("/")[2],
        variants,
        publisher=model.author or model.id.rpartition("/")[0],
        license=labels.get("license", ""),
        parameters=gguf.total or 0,
        context_length=gguf.context_length or 0,
        words=[tag for tag in [model.pipeline_tag or "", *tags] if not _QUIET_TAGS.fullmatch(tag)],
        repo=model.id,
        revision=model.sha,
        pinned=bool(variants),
        partial=partial,
        arch=line(gguf.architecture or ""),
        gated=model.gated if model.gated in ("auto", "manual") else "manual" if model.gated else "",
        private=model.private,
        downloads=model.downloads,
        likes=model.likes,
        updated=line(model.last_modified or ""),
    )


def next_cursor(link: str, asked: str, endpoint: str) -> str:
    """The cursor of the next page from the `Link` header (RFC 8288) of an answer to `asked`; "" on the last page.

    `endpoint`: what was asked, without a slash at its end. A mirror may hand on the hub's own link: only the cursor of
    it is used. Raises ValueError when the next page is said to be anywhere else.
    """
    found = _LINK.search(link)
    if found is None:
        return ""
    target = urljoin(asked, found[1])
    path = urlsplit(asked.removeprefix(endpoint)).path
    for base in (endpoint, HUGGING_FACE):
        if target.startswith(f"{base}/") and urlsplit(target.removeprefix(base)).path == path:
            cursors = parse_qs(urlsplit(target).query, max_num_fields=100).get("cursor", [""])
            return cursors[0] if len(cursors[0]) <= 2000 else ""
    raise ValueError("the next page is said to be somewhere else")


def _file(path: str, size: int | None, lfs: Lfs | None, sha256: str | None) -> RepoFile:
    length = _whole(size) or _whole(lfs.size if lfs else None)
    return RepoFile(path, length, sha256 if sha256 and _SHA256.fullmatch(sha256) else "")


def _whole(value: int | None) -> int:
    return value if value is not None and 0 <= value < _EXACT else 0


def unusable(model: Model) -> str:
    """Why a repository cannot be a record; "" when it can."""
    if model.disabled:
        return "the hub has disabled it"
    if not COMMIT.fullmatch(model.sha or ""):
        return "the hub names no commit, so its files could change under their addresses"
    parts = model.id.split("/")
    if len(parts) > 2 or any(part in ("", ".", "..") for part in parts) or not model.id.isprintable():
        return "that is no name of a repository"
    return ""
