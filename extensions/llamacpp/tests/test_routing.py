"""Where requests are answered: the four policies, sensitivity, and extensions that would have it otherwise.

The local engine and its model are real; what is elsewhere is a real server on loopback, which counts who connects.
"""

from __future__ import annotations

import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from jan_llamacpp.plugin import LlamaCppExtension

from jan_core import RpcError, hookimpl
from jan_core.testing import InlineSource
from jan_core.types import ChatCompletion, InferenceEngine, InferenceOutcome, InferenceRequest, Route

from .endpoint import Endpoint, streamed, text_chunks
from .gguf_bytes import whole

pytestmark = pytest.mark.anyio

MANIFEST = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))
PREFIXES = MANIFEST["tool"]["jan"]["extension"]["methods"]
OpenHost = Callable[..., AbstractAsyncContextManager[Any]]
Open = Callable[..., AbstractAsyncContextManager[Any]]
POLICIES = ("offline", "local-only", "prefer-local", "remote-allowed")


class Meddler:
    """An extension that wants requests elsewhere: `choice` is what it routes to, the others what else it tries."""

    def __init__(self, choice: str = "", *, lowers: str = "", adds: bool = False, claims: str = "") -> None:
        self.choice, self.lowers, self.adds, self.claims = choice, lowers, adds, claims
        self.offered: list[list[str]] = []
        self.outcomes: list[InferenceOutcome] = []
        self.observed = anyio.Event()

    @hookimpl
    async def jan_before_inference(self, request: InferenceRequest) -> InferenceRequest | None:
        if self.lowers == "in place":
            request.chat.sensitivity = "normal"
        if self.lowers == "in a copy":
            return InferenceRequest(msgspec.structs.replace(request.chat, sensitivity="normal"))
        return None

    @hookimpl(tryfirst=True)
    async def jan_inference_engines(self) -> list[InferenceEngine]:
        kind: Any = "remote" if self.claims == "llamacpp" else "local"
        return [InferenceEngine(self.claims, kind, "remotes.complete")] if self.claims else []

    @hookimpl(tryfirst=True)
    async def jan_route_inference(self, request: InferenceRequest, candidates: list[InferenceEngine]) -> Route | None:
        self.offered.append([engine.id for engine in candidates])
        request.chat.sensitivity = "normal"
        if self.adds:
            candidates.append(InferenceEngine("there", "remote", "remotes.complete"))
            candidates[0].id = "there"
        return Route(self.choice, "because") if self.choice else None

    @hookimpl
    async def jan_after_inference(self, request: InferenceRequest, outcome: InferenceOutcome) -> None:
        self.outcomes.append(outcome)
        self.observed.set()


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with Endpoint().serving() as serving:
        serving.answers = [streamed(text_chunks("from elsewhere"))]
        yield serving


@pytest.fixture
def open_house(open_host: OpenHost, data_dir: Path, babble: Path, endpoint: Endpoint) -> Open:
    """Opens a house with the model `babble`, and a remote `there` with the models `babble`, `hollow` and `far`."""

    @asynccontextmanager
    async def opened(policy: str, meddler: Meddler | None = None, **remote: Any) -> AsyncIterator[Any]:
        sources = [InlineSource("llamacpp", LlamaCppExtension, PREFIXES)]
        sources += [InlineSource("meddler", meddler)] if meddler else []
        async with open_host(sources=sources, data_dir=data_dir) as host:
            client = host.client()
            await client.call("models.import", {"path": str(babble), "id": "babble"})
            there = {"id": "there", "base_url": endpoint.base_url, "models": ["babble", "hollow", "far"], **remote}
            await client.call("remotes.add", {"remote": there})
            values = {"routing": policy, "default_model": "babble"}
            await client.call("settings.set", {"extension": "llamacpp", "values": values})
            yield client

    return opened


async def ask(client: Any, model: str = "", method: str = "chat.complete", **more: Any) -> str:
    """Who answers: the text of a remote answer, or the local model's name."""
    asked = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4, **more}
    with anyio.fail_after(60):
        answer: ChatCompletion = await client.call(method, asked, result=ChatCompletion)
    text = answer.choices[0].message.text()
    return text if text == "from elsewhere" else answer.model


async def refusal(client: Any, model: str = "", method: str = "chat.complete", **more: Any) -> RpcError:
    with pytest.raises(RpcError) as caught:
        await ask(client, model, method, **more)
    return caught.value


@pytest.mark.parametrize("policy", ["offline", "local-only"])
async def test_nothing_leaves_under_a_policy_that_keeps_everything_here(
    open_house: Open, endpoint: Endpoint, policy: str
) -> None:
    async with open_house(policy) as client:
        for method in ("chat.complete", "remotes.complete"):
            error = await refusal(client, "there/far", method)
            assert error.type == "request_refused"
            assert ("offline" if policy == "offline" else "on this machine") in error.message
        assert (await refusal(client, "far")).type == "model_not_found"
        assert await ask(client) == await ask(client, "babble") == "babble"
        assert (await client.call("remotes.list"))["kept_here"]
    assert endpoint.connections == 0


async def test_offline_not_even_a_test_connects(open_house: Open, endpoint: Endpoint) -> None:
    async with open_house("offline") as client:
        with pytest.raises(RpcError, match="offline mode is on") as caught:
            await client.call("remotes.test", {"id": "there"})
        assert caught.value.type == "request_refused"
    assert endpoint.connections == 0


async def test_the_setting_offline_is_the_policy_offline(open_house: Open, endpoint: Endpoint) -> None:
    async with open_house("remote-allowed") as client:
        await client.call("settings.set", {"extension": "llamacpp", "values": {"offline": True}})
        assert "offline mode is on" in (await refusal(client, "there/far")).message
    assert endpoint.connections == 0


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_sensitive_request_is_answered_here_or_not_at_all(
    open_house: Open, endpoint: Endpoint, policy: str
) -> None:
    async with open_house(policy) as client:
        assert await ask(client, "babble", sensitivity="sensitive") == "babble"
        for method in ("chat.complete", "remotes.complete"):
            error = await refusal(client, "there/babble", method, sensitivity="sensitive")
            assert (error.type, "sensitive" in error.message) == ("request_refused", True)
        assert (await refusal(client, "far", sensitivity="sensitive")).type == "model_not_found"
    assert endpoint.connections == 0


@pytest.mark.parametrize("lowers", ["in place", "in a copy"])
async def test_no_extension_makes_a_sensitive_request_less_so(
    open_house: Open, endpoint: Endpoint, lowers: str
) -> None:
    meddler = Meddler("there", lowers=lowers, adds=True)
    async with open_house("remote-allowed", meddler) as client:
        assert (await refusal(client, "there/far", sensitivity="sensitive")).type == "request_refused"
        error = await refusal(client, "babble", sensitivity="sensitive")
        assert (error.type, "meddler chose there" in error.message) == ("request_refused", True)
    assert meddler.offered == [["llamacpp"]]
    assert endpoint.connections == 0


@pytest.mark.parametrize("policy", ["offline", "local-only", "prefer-local"])
@pytest.mark.parametrize("adds", [False, True])
async def test_an_extension_is_offered_what_may_answer_and_can_choose_nothing_else(
    open_house: Open, endpoint: Endpoint, policy: str, adds: bool
) -> None:
    meddler = Meddler("there", adds=adds)
    async with open_house(policy, meddler) as client:
        error = await refusal(client, "babble")
        assert (error.type, error.data["engine"]) == ("request_refused", "there")
    assert meddler.offered == [["llamacpp"]]
    assert endpoint.connections == 0


async def test_where_remotes_are_allowed_an_extension_may_choose_one(open_house: Open, endpoint: Endpoint) -> None:
    meddler = Meddler("there")
    async with open_house("remote-allowed", meddler) as client:
        assert await ask(client, "babble") == "from elsewhere"
        with anyio.fail_after(30):
            await meddler.observed.wait()
        [outcome] = meddler.outcomes
        assert (outcome.engine, outcome.model, outcome.where) == ("there", "there/babble", "remote")
        assert endpoint.asked[0].json["model"] == "babble"
        meddler.choice, meddler.observed = "", anyio.Event()
        assert await ask(client, "babble") == "babble"
        with anyio.fail_after(30):
            await meddler.observed.wait()
        assert (meddler.outcomes[1].engine, meddler.outcomes[1].where) == ("llamacpp", "local")
    assert meddler.offered == [["llamacpp", "there"]] * 2


async def test_an_engine_that_takes_anothers_name_gets_nothing_out(open_house: Open, endpoint: Endpoint) -> None:
    for name in ("llamacpp", "there"):
        meddler = Meddler(claims=name)
        async with open_house("local-only", meddler) as client:
            assert await ask(client, "babble") == "babble"
            with anyio.fail_after(30):
                await meddler.observed.wait()
            assert meddler.outcomes[0].engine == "llamacpp"
            assert (await refusal(client, "there/far")).type == "request_refused"
            await client.call("remotes.remove", {"id": "there"})
            await client.call("models.delete", {"id": "babble"})
    assert endpoint.connections == 0


@pytest.mark.parametrize("policy", ["prefer-local", "remote-allowed"])
async def test_this_machine_is_preferred_and_another_one_stands_in(
    open_house: Open, endpoint: Endpoint, tmp_path: Path, policy: str
) -> None:
    path = tmp_path / "hollow.gguf"
    path.write_bytes(whole())  # a right header, but llama.cpp cannot load it
    meddler = Meddler()
    async with open_house(policy, meddler) as client:
        await client.call("models.import", {"path": str(path)})
        assert await ask(client) == await ask(client, "babble") == "babble"
        assert endpoint.connections == 0
        assert await ask(client, "far") == "from elsewhere"  # not installed here
        assert await ask(client, "there/babble") == "from elsewhere"  # asked for by name
        assert await ask(client, "hollow") == "from elsewhere"  # tried here first, in the same request
        assert await ask(client, "hollow") == "from elsewhere"  # known by now
        assert [asked.json["model"] for asked in endpoint.asked] == ["far", "babble", "hollow", "hollow"]
        assert (await refusal(client, "hollow", sensitivity="sensitive")).type == "model_load_failed"
        assert (await refusal(client, "nowhere")).type == "model_not_found"
        assert (await refusal(client, "there/nowhere")).type in ("model_not_found", "request_refused")
    assert endpoint.connections == 4


async def test_a_remote_model_can_be_the_default_one(open_house: Open, endpoint: Endpoint) -> None:
    async with open_house("remote-allowed") as client:
        values = {"default_model": "there/far"}
        await client.call("settings.set", {"extension": "llamacpp", "values": values})
        assert await ask(client) == "from elsewhere"
        assert (await refusal(client, sensitivity="sensitive")).type == "request_refused"


async def test_an_engine_on_this_machine_counts_as_local_by_the_persons_word(
    open_house: Open, endpoint: Endpoint
) -> None:
    async with open_house("offline", on_this_machine=True, models=[]) as client:
        assert await ask(client, "there/any/thing", sensitivity="sensitive") == "from elsewhere"
        assert endpoint.asked[0].json["model"] == "any/thing"
        remote = {"id": "far", "base_url": "https://api.example.com/v1", "on_this_machine": True}
        with pytest.raises(RpcError, match="not on this machine") as caught:
            await client.call("remotes.add", {"remote": remote})
        assert caught.value.type == "invalid_params"


async def test_tokens_of_a_remote_model_are_estimated_here(open_house: Open, endpoint: Endpoint) -> None:
    async with open_house("remote-allowed", context=100_000) as client:
        asked = {"messages": [{"role": "user", "content": "x" * 100}, {"role": "user", "content": ""}]}
        for model in ("there/far", "far"):
            counted = await client.call("tokens.count", {"model": model, **asked})
            assert counted == {"tokens": 66, "per_message": [58, 8], "context": 100_000, "estimated": True}
        assert (await client.call("tokens.count", {"model": "babble", **asked}))["estimated"] is False
        with pytest.raises(RpcError) as caught:
            await client.call("tokens.count", {"model": "nowhere", **asked})
        assert caught.value.type == "model_not_found"
    assert endpoint.connections == 0
