"""From a signed record to what others are given."""

from __future__ import annotations

import time

import msgspec
import pytest
from jan_registry.collections import canonical
from jan_registry.collections.check import check
from jan_registry.collections.record import File, FileSource, Record, Variant
from jan_registry.convert import download_sources, to_model

from jan_core.types import DownloadSource, PieceList

_A, _B, _COMMIT = "a" * 64, "b" * 64, "c" * 40
_RECORD = {
    "id": "cortexso/llama3.2:3b",
    "name": "Llama 3.2 3B",
    "publisher": "meta-llama",
    "license": "llama3.2",
    "gated": "manual",
    "arch": "llama",
    "params": 3_210_000_000,
    "ctx": 131_072,
    "modalities": ["text"],
    "caps": ["tools"],
    "tags": ["small"],
    "requires": {"app": ">=0.3", "engine": {"llamacpp": ">=5000"}},
    "deprecated": {"since": "2026-01-01", "replaced_by": "x/y", "reason": "older"},
    "variants": [
        {"id": "q4_k_m", "quant": "Q4_K_M", "ram_bytes": 3_500_000_000, "files": [0, 2]},
        {"id": "q8_0", "quant": "Q8_0", "files": [1]},
    ],
    "files": [
        {
            "path": "m-Q4_K_M.gguf",
            "size": 16 << 20,
            "sha256": _A,
            "pieces": {"len": 8 << 20, "n": 2, "sha256": _B, "target": f"pieces/{_B}.bin"},
            "sources": [
                {"kind": "carrier-pigeon", "url": "https://example.org/bird"},
                {"kind": "hf", "repo": "cortexso/llama3.2", "rev": _COMMIT, "path": "sub dir/m.gguf"},
                {"kind": "modelscope", "repo": "cortexso/llama3.2", "rev": "v1/x", "path": "m.gguf"},
                {"kind": "oci", "ref": f"registry.example/library/llama3.2@sha256:{_A}"},
                {"kind": "https", "url": "https://example.org/m.gguf"},
            ],
        },
        {"path": "m-Q8_0.gguf", "size": 32 << 20, "sources": [{"kind": "carrier-pigeon"}]},
        {"path": "mmproj.gguf", "role": "projector", "sources": [{"kind": "https", "url": "https://example.org/p"}]},
    ],
}


def _record() -> Record:
    return check("models", canonical(_RECORD))


def test_a_record_becomes_a_model_with_everything_it_says() -> None:
    model = to_model(_record(), hub_url="https://hub.example/models/", source="jan", verification="verified")
    assert (model.id, model.name, model.publisher, model.license) == (
        "cortexso/llama3.2:3b",
        "Llama 3.2 3B",
        "meta-llama",
        "llama3.2",
    )
    assert (model.parameters, model.context_length, model.tags) == (3_210_000_000, 131_072, ["small"])
    assert (model.source, model.verification) == ("jan", "verified")
    assert model.extra == {
        "arch": "llama",
        "caps": ["tools"],
        "gated": "manual",
        "modalities": ["text"],
        "requires": {"app": ">=0.3", "engine": {"llamacpp": ">=5000"}},
        "deprecated": {"since": "2026-01-01", "replaced_by": "x/y", "reason": "older"},
    }
    first, second = model.variants
    assert model.files == first.files
    assert [file.role for file in first.files] == ["weights", "projector"]
    assert (first.memory, second.memory) == (3_500_000_000, 32 << 20)


def test_the_first_source_that_is_understood_is_a_files_address() -> None:
    model = to_model(_record(), hub_url="https://hub.example", source="jan")
    url = f"https://huggingface.co/cortexso/llama3.2/resolve/{_COMMIT}/sub%20dir/m.gguf"
    assert model.files[0].url == url
    assert model.variants[1].files[0].url == ""
    assert model.verification == "unverified"


def test_a_mirror_stands_in_for_hugging_face() -> None:
    model = to_model(_record(), hub_url="https://hub.example", source="jan", hf_endpoint="https://mirror.example/")
    assert model.files[0].url.startswith("https://mirror.example/cortexso/llama3.2/resolve/")


@pytest.mark.parametrize("hub", ["https://hub.example/a", "file:///srv/hub/", "http://127.0.0.1:80"])
def test_a_piece_list_lies_below_the_hubs_targets(hub: str) -> None:
    model = to_model(_record(), hub_url=hub, source="jan")
    assert model.files[0].pieces == PieceList(8 << 20, 2, _B, f"{hub.rstrip('/')}/targets/pieces/{_B}.bin")


def test_all_sources_are_told_in_the_records_order() -> None:
    assert download_sources(_record().files[0]) == [
        DownloadSource(f"https://huggingface.co/cortexso/llama3.2/resolve/{_COMMIT}/sub%20dir/m.gguf", 0),
        DownloadSource("https://modelscope.cn/models/cortexso/llama3.2/resolve/v1%2Fx/m.gguf", 1),
        DownloadSource(f"https://registry.example/v2/library/llama3.2/blobs/sha256:{_A}", 2),
        DownloadSource("https://example.org/m.gguf", 3),
    ]


@pytest.mark.parametrize(
    "ref", ["", "registry.example", "registry.example/m:tag", "r/m@md5:00", f"u@r/m@sha256:{_A}", f"r/m?x@sha256:{_A}"]
)
def test_a_reference_without_a_digest_is_no_source(ref: str) -> None:
    assert download_sources(File(path="m.gguf", sources=[FileSource(kind="oci", ref=ref)])) == []


def test_a_registry_on_this_machine_is_asked_without_tls() -> None:
    source = FileSource(kind="oci", ref=f"127.0.0.1:5000/a/b@sha256:{_A}")
    (only,) = download_sources(File(path="m.gguf", sources=[source]))
    assert only.url == f"http://127.0.0.1:5000/v2/a/b/blobs/sha256:{_A}"


def test_a_variant_with_a_file_that_the_record_lacks_is_refused() -> None:
    for place in (-1, 1):
        record = Record(id="a", name="A", files=[File(path="m.gguf")], variants=[Variant(id="v", files=[place])])
        with pytest.raises(ValueError, match="the variant v has a file that the record lacks"):
            to_model(record, hub_url="https://h", source="s")


def test_a_record_without_variants_keeps_its_files() -> None:
    record = Record(id="a", name="A", files=[File(path="m.gguf")])
    assert [file.name for file in to_model(record, hub_url="https://h", source="s").files] == ["m.gguf"]


def test_a_whole_catalogue_is_converted_in_no_time() -> None:
    records = [msgspec.convert({**_RECORD, "id": f"m{number}"}, Record) for number in range(2000)]
    began = time.perf_counter()
    for record in records:
        to_model(record, hub_url="https://hub.example", source="jan")
    assert time.perf_counter() - began < 2.0  # ten times what it takes
