"""Supervision as the host's clients see it: reloads in mid-answer, models that die, pins, idleness."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import pytest
from jan_llamacpp import history
from jan_llamacpp.failures import ModelLoadFailed
from jan_llamacpp.plugin import LlamaCppExtension
from jan_llamacpp.supervise import Child

from jan_core import RpcError, generations
from jan_core.testing import InlineSource
from jan_core.types import ChatChunk

from .conftest import PATIENCE

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")]

PREFIXES = ["engines.", "models.", "chat.", "completions.", "tokens.", "embeddings.", "remotes."]
OpenHost = Callable[..., AbstractAsyncContextManager[Any]]


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[Child]:
    """Every worker process that was started."""
    found: list[Child] = []
    made = Child.connection_made

    def connection_made(child: Child, transport: Any) -> None:
        made(child, transport)
        found.append(child)

    monkeypatch.setattr(Child, "connection_made", connection_made)
    return found


@pytest.fixture
async def host(open_host: OpenHost, data_dir: Path, endless: Path) -> AsyncIterator[Any]:
    """A host with this extension and the model `endless`, which is the default one."""
    async with open_host(sources=[InlineSource("llamacpp", LlamaCppExtension, PREFIXES)], data_dir=data_dir) as host:
        client = host.client()
        await client.call("models.import", {"path": str(endless), "id": "endless"})
        values = {"default_model": "endless", "n_ctx": 32_768}
        await client.call("settings.set", {"extension": "llamacpp", "values": values})
        yield host


@pytest.fixture
def client(host: Any) -> Any:
    return host.client()


def ask(**more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Hi"}], "temperature": 0, "stream": True, **more}


async def test_a_reload_in_mid_answer_lets_it_end_and_leaves_no_worker(
    host: Any, client: Any, children: list[Child]
) -> None:
    with anyio.fail_after(PATIENCE):
        async with client.stream("chat.complete", ask(max_tokens=500), item=ChatChunk) as stream:
            await anext(aiter(stream))
            assert (await client.call("extensions.reload", {"id": "llamacpp", "force": True}))["generation"] == 2
            async for _ in stream:
                pass
            assert (await stream.result())["usage"]["completion_tokens"] == 500
        await host.lifecycle.generations.settled()
        assert [child.exited.done() for child in children] == [True]
        answer = await client.call("chat.complete", ask(max_tokens=4))
        assert answer["usage"]["completion_tokens"] == 4
        assert [child.exited.done() for child in children] == [True, False]


async def test_a_reload_ends_an_answer_that_is_too_long_with_a_typed_error_and_its_worker_too(
    host: Any, client: Any, children: list[Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generations, "DRAIN_LIMIT", 0.2)
    with anyio.fail_after(PATIENCE):
        async with client.stream("chat.complete", ask(), item=ChatChunk) as stream:
            await anext(aiter(stream))
            await client.call("extensions.reload", {"id": "llamacpp", "force": True})
            with pytest.raises(RpcError) as caught:
                await stream.result()
        assert caught.value.type == "extension_reloaded"
        assert caught.value.retryable
        await host.lifecycle.generations.settled()
        assert [child.exited.done() for child in children] == [True]


async def test_a_model_that_keeps_dying_is_shown_as_failed_until_it_is_loaded_by_hand(
    client: Any, children: list[Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "FIRST_PAUSE", 0.001)
    with anyio.fail_after(PATIENCE):
        for _ in range(history.MOST_DEATHS):
            async with client.stream("chat.complete", ask(), item=ChatChunk) as stream:
                await anext(aiter(stream))
                os.kill(children[-1].pid, signal.SIGABRT)
                with pytest.raises(RpcError, match="SIGABRT"):
                    await stream.result()
        with pytest.raises(RpcError, match="ended 5 times") as caught:
            await client.call("chat.complete", ask(max_tokens=1))
        assert caught.value.type == "worker_died"
        assert caught.value.data["retry_after"] > 0
        shown = await model(client, "endless")
        assert shown["state"] == "failed"
        assert "ended 5 times" in shown["error"]
        await client.call("models.load", {"id": "endless"})
        assert (await model(client, "endless"))["state"] == "loaded"


async def test_a_chat_just_after_the_idle_worker_was_killed_is_answered(client: Any, children: list[Child]) -> None:
    with anyio.fail_after(PATIENCE):
        await client.call("chat.complete", ask(max_tokens=1))
        os.kill(children[-1].pid, signal.SIGKILL)
        assert (await client.call("chat.complete", ask(max_tokens=1)))["usage"]["completion_tokens"] == 1
    assert len(children) == 2


async def test_other_settings_let_a_model_that_failed_try_again(
    host: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def start(*_arguments: Any, **_more: Any) -> None:
        raise ModelLoadFailed("no room", reason="a test", log="")

    with monkeypatch.context() as patched:
        patched.setattr("jan_llamacpp.client.WorkerProcess.start", start)
        monkeypatch.setattr(history, "FIRST_PAUSE", 3600.0)
        monkeypatch.setattr(history, "LONGEST_PAUSE", 3600.0)
        with pytest.raises(RpcError, match="no room"):
            await client.call("chat.complete", ask(max_tokens=1))
    with pytest.raises(RpcError, match="no room"):  # remembered
        await client.call("chat.complete", ask(max_tokens=1))
    await client.call("settings.set", {"extension": "llamacpp", "values": {"n_ctx": 512}})
    with anyio.fail_after(PATIENCE):
        while (await model(client, "endless")).get("state") == "failed":
            await anyio.lowlevel.checkpoint()  # the event is on its way
        assert (await client.call("chat.complete", ask(max_tokens=1)))["usage"]["completion_tokens"] == 1


async def test_a_pinned_model_says_so_and_an_idle_one_goes(client: Any) -> None:
    with anyio.fail_after(PATIENCE):
        assert (await client.call("models.load", {"id": "endless", "pin": True}))["pinned"]
        await client.call("models.unload", {"id": "endless"})
        loaded = await client.call("models.load", {"id": "endless"})
        assert not loaded.get("pinned", False)
        await client.call("settings.set", {"extension": "llamacpp", "values": {"idle_minutes": 0.001}})
        while (await model(client, "endless")).get("state", "available") != "available":
            await anyio.lowlevel.checkpoint()


async def model(client: Any, id: str) -> dict[str, Any]:
    models = (await client.call("models.list"))["models"]
    return next(model for model in models if model["id"] == id)
