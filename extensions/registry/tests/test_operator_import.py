"""Models of other hubs become records: pinned, with their own hub's words, and nothing that a record must not hold."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_registry.collections import Record, canonical
from jan_registry.collections.check import check
from jan_registry.convert import to_model
from jan_registry.publish.importing import catalogue_copy, collect, source_of, to_record, to_stats
from msgspec import to_builtins

from jan_core import InvalidParams
from jan_core.types import DownloadFile, ModelRecord, ModelVariant

from .hubcase import Desk, HubServer, desk, hub_server
from .hubcase_huggingface import COMMIT, HUGGING_FACE


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)


@pytest.fixture
def server() -> Any:
    with hub_server(HUGGING_FACE.routes) as server:
        yield server


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(tmp_path / "desk") as one:
        yield one


async def test_a_repository_comes_with_commit_sizes_and_hashes(one: Desk, server: HubServer) -> None:
    hub = one.hub(HUGGING_FACE.setting(server.url))
    found = [it async for it in collect(hub, ids=["acme/Rocket-8B-GGUF", "acme/unknown"], text="", limit=10)]
    (_, model, _), (unknown, nothing, _) = found
    assert (unknown, nothing) == ("acme/unknown", None)
    assert model is not None
    record = to_record(model, endpoint=hub.url)
    assert (record.id, record.license, record.arch, record.ctx) == (
        "acme/rocket-8b-gguf",
        "apache-2.0",
        "llama",
        131072,
    )
    assert [(file.path, file.size, file.sha256[:8], file.role) for file in record.files][:2] == HUGGING_FACE.variants[
        "q4_k_m"
    ]
    assert {(source.kind, source.repo, source.rev) for file in record.files for source in file.sources} == {
        ("hf", "acme/Rocket-8B-GGUF", COMMIT)
    }, "written down as the hub's own, wherever it was asked"
    assert [(variant.id, len(variant.files)) for variant in record.variants] == [("q4_k_m", 2), ("q8_0", 3)]
    stats = to_stats(model)
    assert stats is not None
    assert (stats.downloads, stats.likes) == (1234, 12)


async def test_what_a_list_leaves_open_is_asked_for_model_by_model(one: Desk, server: HubServer) -> None:
    hub = one.hub(HUGGING_FACE.setting(server.url))
    steps: list[tuple[int, int]] = []
    asking = collect(hub, ids=[], text="rocket", limit=1, each=lambda *step: steps.append(step))
    found = [it async for it in asking]
    [model] = [model for id, model, _ in found if id and model]
    assert all(file.sha256 for file in model.files)
    assert steps == [(1, 1)]


async def test_a_copy_that_is_none_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"{}", b"[1]", b"[" * 100_000, b"\xff"):
        (tmp_path / "copy.json").write_bytes(content)
        with pytest.raises(InvalidParams, match="no catalogue of Jan's"):
            [it async for it in collect(catalogue_copy(tmp_path / "copy.json"), ids=[], text="", limit=1, pin=False)]


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        (
            "https://huggingface.co/acme/Rocket/resolve/main/q4/Rocket%20Q4.gguf",
            "hf acme/Rocket main q4/Rocket Q4.gguf",
        ),
        ("https://mirror.example/hf/acme/Rocket/resolve/v1%2Fx/a.gguf", "hf acme/Rocket v1/x a.gguf"),
        ("https://modelscope.cn/models/acme/Rocket/resolve/master/a.gguf", "modelscope acme/Rocket master a.gguf"),
        ("https://huggingface.co/acme/Rocket/blob/main/a.gguf", "https"),
        ("https://files.example/acme/Rocket/resolve/main/a.gguf", "https"),
        ("https://huggingface.co/acme/Rocket/resolve/main/a.gguf?download=true", "https"),
    ],
)
def test_an_address_is_written_in_its_hub_s_words(url: str, kind: str) -> None:
    source = source_of(url, "https://mirror.example/hf/")
    assert " ".join(filter(None, (source.kind, source.repo, source.rev, source.path))) == kind
    assert source.url == (url if kind == "https" else "")


NAMES = st.sampled_from(["a.gguf", "b.gguf", "b/../c.gguf", "", "con.gguf", "d" * 300])
FILES = st.builds(
    DownloadFile,
    name=NAMES,
    url=st.sampled_from(["", "https://huggingface.co/a/b/resolve/main/a.gguf", "http://x/a", "file:///a"]),
    sha256=st.sampled_from(["", "ab" * 32, "AB"]),
    size=st.integers(-1, 2**60),
)
VARIANTS = st.builds(ModelVariant, id=st.text(max_size=8), files=st.lists(FILES, max_size=3), memory=st.integers())
MODELS = st.builds(
    ModelRecord,
    id=st.sampled_from(["a", "A", "a/b:c", ""]) | st.text(max_size=9),
    name=st.text(max_size=300),
    tags=st.lists(st.text(max_size=70), max_size=3),
    parameters=st.integers(),
    files=st.lists(FILES, max_size=3),
    variants=st.lists(VARIANTS, max_size=3),
    extra=st.dictionaries(st.sampled_from(["gated", "arch", "downloads", "likes"]), st.integers() | st.text()),
)


@given(MODELS)
def test_whatever_a_hub_says_becomes_a_record_or_a_reason(model: ModelRecord) -> None:
    try:
        record = to_record(model)
    except ValueError:
        return  # and nothing else
    assert check("models", canonical(to_builtins(record))) == record
    stats = to_stats(model)
    assert stats is None or check("stats", canonical(to_builtins(stats))) == stats


def test_a_record_survives_being_shown_and_taken_over_again() -> None:
    sources = [{"kind": "hf", "repo": "acme/Rocket", "rev": COMMIT, "path": "sub/a b.gguf"}]
    files = [{"path": "a.gguf", "size": 7, "sha256": "ab" * 32, "sources": sources}]
    variants = [{"id": "q4", "quant": "Q4_0", "files": [0]}]
    plain = {"id": "acme/rocket", "name": "Rocket", "params": 5, "files": files, "variants": variants}
    record = check("models", canonical(plain))
    assert isinstance(record, Record)
    assert to_record(to_model(record, hub_url="https://hub.example/", source="hub")) == record
