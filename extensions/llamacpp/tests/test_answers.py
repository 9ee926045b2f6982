"""Answers through the whole house, with a real engine: formats, tools, thoughts, several at once, seeds, log-probs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import pytest
from jan_llamacpp.plugin import LlamaCppExtension

from jan_core import RpcError
from jan_core.testing import InlineSource
from jan_core.types import ChatChunk, ChatCompletion, TextCompletion

from .conftest import CHATML, MakeModel

PREFIXES = ["engines.", "models.", "chat.", "completions.", "embeddings.", "remotes.", "tokens."]
OpenHost = Callable[..., AbstractAsyncContextManager[Any]]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "maxLength": 12}, "days": {"enum": [1, 2, 3]}},
                "required": ["city", "days"],
            },
        },
    },
    {"type": "function", "function": {"name": "beep"}},
]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 0}}, "required": ["a"]}
KNOWING = CHATML + "{% if tools %}{% endif %}"
"""It is told of tools, and writes nothing of them."""
TEMPLATES = {
    "hermes": KNOWING + "{# <tool_call> #}",
    "mistral": KNOWING + "{# [TOOL_CALLS] #}",
    "llama": KNOWING + "{# <|python_tag|> #}",
    "qwen-coder": KNOWING + "{# <tool_call> <function= <parameter= #}",
    "glm": KNOWING + "{# <arg_key> #}",
    "harmony": KNOWING + "{# <|channel|>analysis<|message|> #}",
    "deepseek": KNOWING + "{# <｜tool▁calls▁begin｜> #}",
    "thinker": CHATML.replace("'<|im_start|>assistant\\n'", "'<|im_start|>assistant\\n<think>\\n'"),
}


@pytest.fixture(scope="module")
def models(make_model: MakeModel) -> dict[str, Path]:
    return {name: make_model(template=template) for name, template in TEMPLATES.items()}


@pytest.fixture
async def client(open_host: OpenHost, data_dir: Path, models: dict[str, Path]) -> AsyncIterator[Any]:
    async with open_host(sources=[InlineSource("llamacpp", LlamaCppExtension, PREFIXES)], data_dir=data_dir) as host:
        client = host.client()
        for id, path in models.items():
            await client.call("models.import", {"path": str(path), "id": id})
        with anyio.fail_after(120):
            yield client


def ask(model: str = "hermes", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 300, "seed": 1, **more}


async def both(client: Any, request: dict[str, Any]) -> tuple[Any, list[Any]]:
    """The answer and its chunks; what the chunks make together is the answer."""
    async with client.stream("chat.complete", {**request, "stream": True}, item=ChatChunk, result=ChatCompletion) as s:
        chunks = [chunk async for chunk in s]
        answer = await s.result()
    for choice in answer.choices:
        parts = [c for chunk in chunks for c in chunk.choices if c.index == choice.index]
        message = choice.message
        assert "".join(part.delta.content or "" for part in parts) == (message.content or "")
        assert "".join(part.delta.reasoning_content or "" for part in parts) == (message.reasoning_content or "")
        deltas = [delta for part in parts for delta in part.delta.tool_calls or []]
        for call in message.tool_calls or []:
            own = [delta for delta in deltas if delta.index == call.index]
            assert [delta.function.name for delta in own if delta.function.name] == [call.function.name]
            assert own[0].id == call.id
            assert "".join(delta.function.arguments or "" for delta in own) == call.function.arguments
        assert [part.finish_reason for part in parts if part.finish_reason] == [choice.finish_reason]
    return answer, chunks


@pytest.mark.parametrize("temperature", [0, 1.0, 2.0])
async def test_a_response_format_is_kept_at_every_temperature(client: Any, temperature: float) -> None:
    strict = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
    answer, _ = await both(client, ask(response_format=strict, temperature=temperature, n=3))
    for choice in answer.choices:
        assert choice.finish_reason == "stop"
        found = json.loads(choice.message.content)
        assert list(found) == ["a"]
        assert found["a"] >= 0


@pytest.mark.parametrize("model", ["hermes", "mistral", "llama", "deepseek", "harmony"])
async def test_a_tool_is_called_where_it_must_be_and_streamed(client: Any, model: str) -> None:
    named = {"type": "function", "function": {"name": "get_weather"}}
    for request in (ask(model, tools=TOOLS, tool_choice=named), ask(model, tools=TOOLS[:1], tool_choice="required")):
        answer, chunks = await both(client, request | {"parallel_tool_calls": False, "max_tokens": 2000})
        [choice] = answer.choices
        [call] = choice.message.tool_calls
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content is None
        arguments = json.loads(call.function.arguments)
        assert set(arguments) == {"city", "days"}
        assert arguments["days"] in (1, 2, 3)
        assert len([c for c in chunks if c.choices and c.choices[0].delta.tool_calls]) > 3, "as they come"


@pytest.mark.parametrize("model", ["qwen-coder", "glm"])
async def test_arguments_that_are_written_as_texts_have_their_schemas_types(client: Any, model: str) -> None:
    properties = {"city": {"enum": ["Oslo", "Zürich"]}, "days": {"enum": [1, 2]}, "brief": {"type": "boolean"}}
    function = {"name": "f", "parameters": {"properties": properties, "required": list(properties)}}
    tools = [{"type": "function", "function": function}]
    for parallel in (False, True):
        request = ask(model, tools=tools, tool_choice="required", parallel_tool_calls=parallel)
        answer, chunks = await both(client, request | {"max_tokens": 2000 if parallel is False else 400})
        call = answer.choices[0].message.tool_calls[0]
        arguments = json.loads(call.function.arguments)
        assert arguments["city"] in ("Oslo", "Zürich")
        assert arguments["days"] in (1, 2)
        assert isinstance(arguments["brief"], bool)
        assert answer.choices[0].message.content is None
        assert len([c for c in chunks if c.choices and c.choices[0].delta.tool_calls]) > 2, "as they come"


@pytest.mark.parametrize("model", ["hermes", "qwen-coder", "harmony"])
async def test_with_tools_and_a_format_an_answer_is_calls_or_json(client: Any, model: str) -> None:
    strict = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
    answer, _ = await both(client, ask(model, tools=TOOLS[:1], response_format=strict, n=6, temperature=2.0))
    for choice in answer.choices:
        if choice.finish_reason == "tool_calls":
            assert choice.message.content is None
            assert all(call.function.name == "get_weather" for call in choice.message.tool_calls)
        elif choice.finish_reason == "stop":
            assert list(json.loads(choice.message.content)) == ["a"]


async def test_a_free_choice_lets_the_model_write_what_it_likes(client: Any) -> None:
    plain, _ = await both(client, ask(temperature=0, max_tokens=20))
    free, _ = await both(client, ask(temperature=0, max_tokens=20, tools=TOOLS))
    assert free.choices[0].message.content == plain.choices[0].message.content
    assert free.choices[0].message.tool_calls is None


async def test_thoughts_that_the_prompt_opens_come_apart(client: Any) -> None:
    answer, _ = await both(client, ask("thinker", max_tokens=10, temperature=0))
    message = answer.choices[0].message
    assert message.reasoning_content
    assert message.content == ""
    plain, _ = await both(client, ask("thinker", max_tokens=10, temperature=0, reasoning_format="none"))
    text = plain.choices[0].message.content
    assert text.startswith("<think>\n")
    assert text.removeprefix("<think>\n").strip() == message.reasoning_content


async def test_several_answers_differ_and_come_again_with_their_seed(client: Any) -> None:
    request = ask(n=4, temperature=2.0, top_k=200, top_p=1.0, min_p=0.0, max_tokens=24)
    first, chunks = await both(client, request)
    again, _ = await both(client, request)
    texts = [choice.message.content for choice in first.choices]
    assert [choice.index for choice in first.choices] == [0, 1, 2, 3]
    assert len(set(texts)) == 4
    assert texts == [choice.message.content for choice in again.choices]
    assert {c.index for chunk in chunks for c in chunk.choices} == {0, 1, 2, 3}
    assert first.usage.completion_tokens == 4 * 24
    assert (
        first.usage.prompt_tokens == (await client.call("chat.complete", ask(max_tokens=1)))["usage"]["prompt_tokens"]
    )


async def test_a_seed_draws_the_same_beside_others(client: Any) -> None:
    def request(seed: int) -> dict[str, Any]:
        return ask(seed=seed, temperature=1.0, max_tokens=32)

    alone = (await client.call("chat.complete", request(7), result=ChatCompletion)).choices[0].message.content
    found: list[str] = []

    async def one(seed: int) -> None:
        answer = await client.call("chat.complete", request(seed), result=ChatCompletion)
        if seed == 7:
            found.append(answer.choices[0].message.content)

    async with anyio.create_task_group() as group:
        for seed in (1, 2, 7, 3):
            group.start_soon(one, seed)
    assert found == [alone]


async def test_log_probabilities_come_with_every_token(client: Any) -> None:
    answer, chunks = await both(client, ask(temperature=0, max_tokens=12, logprobs=True, top_logprobs=3))
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert len(logprobs.content) == 12 == answer.usage.completion_tokens
    streamed = [each for c in chunks if c.choices and c.choices[0].logprobs for each in c.choices[0].logprobs.content]
    assert streamed == logprobs.content
    for each in logprobs.content:
        assert each.logprob == each.top_logprobs[0].logprob >= each.top_logprobs[2].logprob
        assert each.logprob <= 0
    text = b"".join(bytes(each.bytes) for each in logprobs.content).decode(errors="ignore")
    assert text == answer.choices[0].message.content
    without, _ = await both(client, ask(temperature=0, max_tokens=12))
    assert without.choices[0].logprobs is None
    assert without.choices[0].message.content == text


async def test_a_text_is_completed_several_times_with_log_probabilities(client: Any) -> None:
    request = {"model": "hermes", "prompt": "abc", "max_tokens": 6, "seed": 3, "n": 2, "logprobs": 2, "echo": True}
    answer = await client.call("completions.create", request, result=TextCompletion)
    async with client.stream("completions.create", {**request, "stream": True}, item=TextCompletion) as stream:
        parts = [part async for part in stream]
    for choice in answer.choices:
        assert len(choice.logprobs.tokens) == 6
        assert choice.logprobs.text_offset[0] == 3
        assert choice.text == "".join(c.text for part in parts for c in part.choices if c.index == choice.index)
    assert len({choice.text for choice in answer.choices}) == 2


async def test_a_grammar_is_followed_in_chats_and_texts(client: Any) -> None:
    grammar = 'root ::= "yes" | "no"'
    answer = await client.call("chat.complete", ask(grammar=grammar), result=ChatCompletion)
    assert answer.choices[0].message.content in ("yes", "no")
    text = await client.call("completions.create", {"model": "hermes", "prompt": "x", "grammar": grammar})
    assert text["choices"][0]["text"] in ("yes", "no")


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"grammar": "root ::= root"}, "left recursion"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": 7}}}},
            "unknown type",
        ),
        ({"tools": [{"function": {"name": "f", "parameters": {"$ref": "#/x"}}}], "tool_choice": "required"}, "nowhere"),
    ],
)
async def test_a_form_that_cannot_be_followed_is_refused_with_its_reason(
    client: Any, more: dict[str, Any], why: str
) -> None:
    with pytest.raises(RpcError, match=why) as caught:
        await client.call("chat.complete", ask(**more))
    assert caught.value.type == "invalid_generation"
    answer = await client.call("chat.complete", ask(max_tokens=2))
    assert answer["usage"]["completion_tokens"] == 2, "and the worker is none the worse"
