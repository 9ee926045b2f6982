"""Other hubs through the method table, as everybody reaches them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio.to_thread
import httpx
import pytest
from jan_registry.hubs.methods import HubMethods
from jan_registry.local import open_local
from jan_registry.settings import RegistrySettings

from jan_core import Context, RpcError, hookimpl, method, methods_of
from jan_core.testing import InlineSource
from jan_core.types import ModelRecord, ModelSource, SourcePage, SourceQuery

from .hubcase import SECRET, Shape, hub_server
from .hubcase_huggingface import HUGGING_FACE

pytestmark = pytest.mark.anyio

OpenHubs = Callable[..., AbstractAsyncContextManager[Any]]


class Registry:
    """As much of the extension as its hubs need."""

    def __init__(self) -> None:
        self.hubs = HubMethods()

    @hookimpl
    async def jan_activate(self, ctx: Context) -> None:
        self.database = open_local(ctx.data_dir)

        async def admit(url: str) -> str:
            return "offline mode" if ctx.settings.region == "XX" else ""

        self.hubs.start(ctx, self.database, admit)

    @hookimpl
    async def jan_deactivate(self, ctx: Context) -> None:
        await anyio.to_thread.run_sync(self.database.close)

    @hookimpl
    def jan_settings(self) -> type[RegistrySettings]:
        return RegistrySettings

    @hookimpl
    def jan_methods(self) -> list[Any]:
        return methods_of(self.hubs)

    @hookimpl
    async def jan_model_sources(self) -> list[ModelSource]:
        return self.hubs.named()


class Neighbour:
    """An extension with a hub of its own."""

    @hookimpl
    def jan_methods(self) -> list[Any]:
        return methods_of(self)

    @hookimpl
    async def jan_model_sources(self) -> list[ModelSource]:
        return [ModelSource("next-door", "Next door", "neighbour.models"), ModelSource("huggingface", "Mine", "x")]

    @method("neighbour.models")
    async def models(self, params: SourceQuery) -> SourcePage:
        """Answer."""
        return SourcePage([ModelRecord(params.text, "Theirs")])


@pytest.fixture
def open_hubs(open_host: Any, tmp_path: Path) -> OpenHubs:
    @asynccontextmanager
    async def opener(**settings: Any) -> AsyncIterator[Any]:
        (tmp_path / "settings.json").write_text(json.dumps({"registry": settings}))
        async with httpx.AsyncClient(trust_env=False, verify=False) as client:
            others = [
                InlineSource("registry", Registry, ["registry."]),
                InlineSource("neighbour", Neighbour, ["neighbour."]),
            ]
            async with open_host(sources=others, data_dir=tmp_path, http=lambda: client) as host:
                yield host.client()

    return opener


async def test_the_hubs_there_are_are_named_without_asking_anybody(open_hubs: OpenHubs) -> None:
    kinto = {"id": "team", "kind": "kinto", "url": "https://k.example/c", "options": {"root_hash": "ab" * 32}}
    async with open_hubs(sources=[kinto, kinto | {"title": "second"}]) as client:
        answer = await client.call("registry.sources", {})
    assert {one["id"]: one["title"] for one in answer["sources"]} == {
        "huggingface": "Hugging Face", "ollama": "Ollama", "modelscope": "ModelScope", "cortexso": "Cortex",
        "jan-catalogue": "Jan's model catalogue", "lmstudio": "LM Studio's catalogue", "team": "team",
        "next-door": "Next door",
    }  # fmt: skip
    assert [one["id"] for one in answer["sources"] if one["verified"]] == ["team"]


async def test_a_hub_is_browsed_and_a_mirror_may_take_its_place(open_hubs: OpenHubs, tmp_path: Path) -> None:
    with hub_server(HUGGING_FACE.routes) as server:
        mirror = {"id": "huggingface", "kind": "huggingface", "url": server.url, "token": SECRET}
        async with open_hubs(sources=[mirror]) as client:
            page = await client.call("registry.browse", {"source": "huggingface"})
            assert [model["id"] for model in page["models"]] == ["acme/rocket-8b-gguf", "acme/gated-rocket-gguf"]
            more = await client.call("registry.browse", {"source": "huggingface", "cursor": page["cursor"]})
            assert len(more["models"]) == 1
            assert len(more["notes"]) == 4
            one = await client.call("registry.browse", {"source": "huggingface", "id": "acme/Rocket-8B-GGUF"})
            assert one["models"][0]["files"][0]["size"] == 4920734272
        server.stop()
        async with open_hubs(sources=[mirror]) as client:  # another process: what is kept is still there
            again = await client.call("registry.browse", {"source": "huggingface"})
            assert again["models"] == page["models"]


async def test_another_extensions_hub_is_reached_the_same_way(open_hubs: OpenHubs) -> None:
    async with open_hubs() as client:
        page = await client.call("registry.browse", {"source": "next-door", "text": "hello"})
    assert [model["id"] for model in page["models"]] == ["hello"]


async def test_what_cannot_be_asked_is_said(open_hubs: OpenHubs) -> None:
    empty = {"id": "empty", "kind": "openai"}
    with_password = {"id": "pw", "kind": "openai", "url": "https://u:p@x.example/"}
    async with open_hubs(sources=[empty, with_password]) as client:
        for params, type, words in (
            ({"source": "nobody"}, "invalid_params", "no source 'nobody' is known, only"),
            ({"source": "huggingface", "text": "x" * 1001}, "invalid_params", "text is longer"),
            ({"source": "huggingface", "cursor": "\n"}, "invalid_params", "not one of this source"),
            ({"source": "empty"}, "invalid_params", "needs a url"),
            ({"source": "pw"}, "invalid_params", "must not hold credentials"),
            ({"source": "ollama", "text": "x"}, "hub_refused", "cannot search models"),
        ):
            with pytest.raises(RpcError) as refused:
                await client.call("registry.browse", params)
            assert (refused.value.type, words in refused.value.message) == (type, True), refused.value.message


async def test_refusals_reach_the_caller_as_data(open_hubs: OpenHubs) -> None:
    with hub_server() as server:
        server.reply = lambda asked: Shape(b"", 429, {"Retry-After": "9"})
        mirror = {"id": "huggingface", "kind": "huggingface", "url": server.url}
        async with open_hubs(sources=[mirror], region="XX") as client:
            with pytest.raises(RpcError) as offline:
                await client.call("registry.browse", {"source": "huggingface"})
            assert (offline.value.data["reason"], server.connections) == ("offline", 0)
        async with open_hubs(sources=[mirror]) as client:
            with pytest.raises(RpcError) as limited:
                await client.call("registry.browse", {"source": "huggingface"})
            assert (limited.value.data["reason"], limited.value.data["retry_after"]) == ("rate_limited", 9)
            assert limited.value.retryable
