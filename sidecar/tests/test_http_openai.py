"""The official OpenAI client against the local API, with nothing changed but the base URL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import openai
import pytest

from .conftest import Api
from .scripted import MODEL, RemoteList


@pytest.fixture
def client(api: Api) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=api.base_url, api_key="unused", max_retries=0, timeout=20) as made:
        yield made


def ask(text: str) -> list[Any]:
    """Messages, typed loosely: the client's own types know only OpenAI's models."""
    return [{"role": "user", "content": text}]


def test_a_chat_is_answered(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=ask("say hello there"))
    assert answer.choices[0].message.content == "hello there "
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.object == "chat.completion"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 5


def test_a_streamed_chat_brings_the_same_text_in_pieces(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model=MODEL, messages=ask("count 50"), stream=True))
    pieces = [c.choices[0].delta.content for c in chunks if c.choices[0].delta.content]
    assert pieces == [f"{n} " for n in range(1, 51)]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(c.object == "chat.completion.chunk" for c in chunks)
    assert all(c.usage is None for c in chunks)


def test_usage_comes_in_a_last_chunk_when_it_is_asked_for(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=ask("count 3"),
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3
    assert all(c.usage is None for c in chunks[:-1])


def test_tool_calls_arrive(client: openai.OpenAI, api: Api) -> None:
    tool: Any = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
    answer: Any = client.chat.completions.create(model=MODEL, messages=ask("tool"), tools=[tool])
    assert answer.choices[0].finish_reason == "tool_calls"
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].function.name == "get_weather"
    request: Any = api.engine.requests[0]
    assert request.tools[0].function.name == "get_weather"


def test_a_text_completion_is_answered_whole_and_streamed(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt="say one two")
    assert answer.choices[0].text == "one two "
    assert answer.object == "text_completion"
    chunks = list(client.completions.create(model=MODEL, prompt="say one two", stream=True))
    assert "".join(c.choices[0].text for c in chunks) == "one two "
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_models_elsewhere_are_listed_as_far_as_requests_may_go_to_them(client: openai.OpenAI, api: Api) -> None:
    here = {"id": "here", "models": ["a"], "on_this_machine": True}
    remotes: list[dict[str, Any]] = [
        {"id": "there", "models": ["b", "c/d"]},
        {"id": "any", "base_url": "https://example.com/v1"},
        here,
    ]
    api.engine.remotes = RemoteList(remotes)
    assert [model.id for model in client.models.list()] == [MODEL, "there/b", "there/c/d", "here/a"]
    found = client.models.retrieve("there/c/d")
    assert (found.id, found.owned_by) == ("there/c/d", "there")
    api.engine.remotes = RemoteList(remotes, kept_here="offline mode is on")
    assert [model.id for model in client.models.list()] == [MODEL, "here/a"]
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("there/b")


def test_texts_are_embedded_as_numbers_and_in_base64(client: openai.OpenAI, api: Api) -> None:
    for form in ({}, {"encoding_format": "float"}):  # without one, the client asks for base64 and decodes it
        answer = client.embeddings.create(model=MODEL, input=["one", "three"], **cast(Any, form))
        assert [item.embedding for item in answer.data] == [[3.0, 0.0], [5.0, 1.0]]
        assert [item.index for item in answer.data] == [0, 1]
        assert (answer.object, answer.data[0].object, answer.model) == ("list", "embedding", MODEL)
        assert answer.usage.total_tokens == 2
    asked: list[Any] = api.engine.requests
    assert [request.encoding_format for request in asked] == ["base64", "float"]


def test_tokens_may_be_embedded_too_and_nothing_else(client: openai.OpenAI, api: Api) -> None:
    client.embeddings.create(model=MODEL, input=[[1, 2], [3]])
    client.embeddings.create(model=MODEL, input=[1, 2, 3], extra_body={"stream": True})
    asked: list[Any] = api.engine.requests
    assert [request.input for request in asked] == [[[1, 2], [3]], [1, 2, 3]]
    assert not asked[1].stream, "over HTTP there is one answer"
    for wrong in ([], [1.5], [None], {"text": "x"}):
        with pytest.raises(openai.BadRequestError) as caught:
            client.embeddings.create(model=MODEL, input=cast(Any, wrong))
        assert (caught.value.param or "").startswith("input")
    assert len(api.engine.requests) == 2


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    models = client.models.list()
    assert [m.id for m in models] == [MODEL]
    found = client.models.retrieve(MODEL)
    assert found.object == "model"
    assert found.created == 1767323045
    assert found.owned_by == "jan"


def test_a_model_that_is_not_there_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-9", messages=ask("say x"))
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"
    with pytest.raises(openai.NotFoundError):
        list(client.chat.completions.create(model="gpt-9", messages=ask("say x"), stream=True))
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("../../etc/passwd")


def test_bad_values_are_refused_with_the_field_they_are_in(client: openai.OpenAI, api: Api) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=ask("say x"), temperature=9)
    assert caught.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=cast(Any, [{"content": "no role"}]))
    assert caught.value.param == "messages[0].role"
    assert api.engine.requests == []


def test_typed_errors_keep_their_meaning(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as overflow:
        client.chat.completions.create(model=MODEL, messages=ask("overflow"))
    assert overflow.value.code == "context_length_exceeded"
    with pytest.raises(openai.InternalServerError) as busy:
        client.chat.completions.create(model=MODEL, messages=ask("busy"))
    assert busy.value.status_code == 503
    assert busy.value.code == "overloaded"
    assert busy.value.response.headers["retry-after"] == "1"


def test_a_defect_is_a_500_that_tells_nothing_but_an_id(client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model=MODEL, messages=ask("defect"))
    assert caught.value.status_code == 500
    assert "error id" in caught.value.message
    assert "secret" not in caught.value.message


def test_an_error_in_mid_stream_is_raised_by_the_client(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(model=MODEL, messages=ask("fail after 3"), stream=True)
    assert [next(stream).choices[0].delta.content for _ in range(4)] == [None, "1 ", "2 ", "3 "]
    with pytest.raises(openai.APIError, match="the worker ended"):
        next(stream)
    # The server serves on.
    assert client.models.list().data[0].id == MODEL


def test_a_client_that_leaves_a_stream_cancels_its_generation(client: openai.OpenAI, api: Api) -> None:
    stream = client.chat.completions.create(model=MODEL, messages=ask("hang after 2"), stream=True)
    assert next(iter(stream)).choices[0].delta.role == "assistant"
    assert api.engine.hanging.wait(10)
    assert api.engine.running == 1
    stream.close()
    assert api.engine.cancelled.wait(10)


def test_a_client_that_leaves_before_a_whole_answer_cancels_its_generation(api: Api) -> None:
    with openai.OpenAI(base_url=api.base_url, api_key="unused", max_retries=0, timeout=0.3) as hasty:
        with pytest.raises(openai.APITimeoutError):
            hasty.chat.completions.create(model=MODEL, messages=ask("hang after 0"))
    assert api.engine.cancelled.wait(10)


def test_sixteen_clients_stream_at_once(api: Api) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def one(number: int) -> str:
        with openai.OpenAI(base_url=api.base_url, api_key="unused", max_retries=0, timeout=20) as client:
            order = ask(f"count {100 + number}")
            stream = client.chat.completions.create(model=MODEL, messages=order, stream=True)
            return "".join(c.choices[0].delta.content or "" for c in stream)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(one, range(16)))
    assert answers == ["".join(f"{n} " for n in range(1, 101 + number)) for number in range(16)]
