"""From a signed record to the record that everybody is given: files with addresses, and where else to get them.

Pure, and quick: a whole catalogue is converted when it is first listed. It takes a record that `collections.check`
accepts; whether that was signed is what the caller says in `verification`.
"""

from __future__ import annotations

import re
from typing import Any, Literal
from urllib.parse import quote

from msgspec import to_builtins
from msgspec.structs import asdict

from jan_core.types import DownloadFile, DownloadSource, ModelRecord, ModelVariant, PieceList

from .collections import File, FileSource, Record, Variant

__all__ = ["HUGGING_FACE", "MODELSCOPE", "download_sources", "to_model"]

HUGGING_FACE = "https://huggingface.co"
MODELSCOPE = "https://modelscope.cn"
_REFERENCE = re.compile(
    r"([A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]{1,5})?)/([a-z0-9][a-z0-9._/-]*)(?::[A-Za-z0-9._-]+)?@(sha256:[0-9a-f]{64})"
)
Vouched = Literal["verified", "unverified", "builtin"]


def to_model(
    record: Record, *, hub_url: str, source: str, verification: Vouched = "unverified", hf_endpoint: str = ""
) -> ModelRecord:
    """The record as others see it. `hub_url`: below its `targets/` lie the piece lists; `source`: the hub's id.

    A file's `url` is the first of its sources that this program understands, "" when there is none. `hf_endpoint`:
    a mirror of Hugging Face in place of the hub itself. Raises ValueError for a variant with a file that is not there.
    """
    targets = hub_url.rstrip("/") + "/targets/"
    files = [_file(file, targets, hf_endpoint) for file in record.files]
    variants = [_variant(one, files) for one in record.variants]
    return ModelRecord(
        id=record.id,
        name=record.name,
        description=record.description,
        publisher=record.publisher,
        license=record.license,
        parameters=record.params,
        context_length=record.ctx,
        tags=record.tags,
        files=variants[0].files if variants else files,
        variants=variants,
        source=source,
        verification=verification,
        extra=_extra(record),
    )


def download_sources(file: File, *, hf_endpoint: str = "") -> list[DownloadSource]:
    """Every place to get a file from that this program understands, in the record's order."""
    urls = (_url(source, hf_endpoint) for source in file.sources)
    return [DownloadSource(url, priority) for priority, url in enumerate(dict.fromkeys(filter(None, urls)))]


def _variant(one: Variant, files: list[DownloadFile]) -> ModelVariant:
    if not all(0 <= place < len(files) for place in one.files):
        raise ValueError(f"the variant {one.id} has a file that the record lacks")
    own = [files[place] for place in one.files]
    # Of what nobody says more, the weights alone take their bytes.
    memory = max(one.ram_bytes, one.vram_bytes) or (sum(f.size for f in own) if all(f.size for f in own) else 0)
    return ModelVariant(one.id, one.format, one.quant, memory, own)


def _file(file: File, targets: str, hf_endpoint: str) -> DownloadFile:
    pieces = file.pieces
    return DownloadFile(
        name=file.path,
        url=next((url for source in file.sources if (url := _url(source, hf_endpoint))), ""),
        sha256=file.sha256,
        size=file.size,
        role=file.role,
        pieces=PieceList(pieces.len, pieces.n, pieces.sha256, targets + pieces.target) if pieces else None,
    )


def _url(source: FileSource, hf_endpoint: str) -> str:
    """Where a source is; "" for a kind that this program does not know."""
    if source.kind == "hf":
        return f"{hf_endpoint.rstrip('/') or HUGGING_FACE}/{_resolve(source)}"
    if source.kind == "modelscope":
        return f"{MODELSCOPE}/models/{_resolve(source)}"
    if source.kind == "oci":
        return _blob(source.ref)
    return source.url if source.kind == "https" else ""


def _resolve(source: FileSource) -> str:
    return f"{source.repo}/resolve/{quote(source.rev, '')}/{quote(source.path)}"


def _blob(ref: str) -> str:
    """`registry.example/space/model@sha256:…` -> the address of that blob; "" when it is no such reference."""
    found = _REFERENCE.fullmatch(ref)
    if found is None:
        return ""
    registry, repository, digest = found.groups()
    near = registry.partition(":")[0] in ("localhost", "127.0.0.1")
    return f"{'http' if near else 'https'}://{registry}/v2/{repository}/blobs/{digest}"


def _extra(record: Record) -> dict[str, Any]:
    extra: dict[str, Any] = {
        key: value for key in ("arch", "caps", "gated", "modalities") if (value := getattr(record, key))
    }
    if record.target:
        extra["target"] = to_builtins(record.target)
    if record.requires:
        extra["requires"] = to_builtins(record.requires)
    if record.deprecated:
        extra["deprecated"] = asdict(record.deprecated)
    return extra
