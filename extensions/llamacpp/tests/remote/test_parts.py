"""The parts of remote engines on their own: event streams cut anywhere, answers of any shape, addresses, retries."""

from __future__ import annotations

import contextlib
import json
import time
from email.utils import formatdate
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_llamacpp.remote import retry
from jan_llamacpp.remote.address import address_of
from jan_llamacpp.remote.answer import RemoteAnswer
from jan_llamacpp.remote.connection import _retry_after
from jan_llamacpp.remote.errors import (
    RemoteAnswerInvalid,
    RemoteBusy,
    RemoteFailed,
    RemoteInterrupted,
    RemoteUnreachable,
)
from jan_llamacpp.remote.remote import Remote
from jan_llamacpp.remote.shapes import AddRemote
from jan_llamacpp.remote.sse import LARGEST_EVENT, EventParser, EventTooLarge
from jan_llamacpp.remote.wire import error_text

from jan_core import JanError
from jan_core.types import ChatCompletion

LINES = st.sampled_from(
    [b"data: a", b"data:b", b"data", b"data:  c", b": hm", b"event: x", b"datax: y", b"", b"\xc3\xa9"]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


def parsed(*chunks: bytes) -> list[bytes]:
    parser = EventParser()
    return [event for piece in chunks for event in parser.feed(piece)]


@given(st.lists(st.tuples(LINES, ENDS), max_size=20), st.data())
def test_where_a_stream_is_cut_makes_no_difference(lines: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    whole = b"".join(line + end for line, end in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=10)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert parsed(*pieces) == parsed(*(bytes([byte]) for byte in whole)) == parsed(whole)


@given(st.lists(st.tuples(LINES, st.just(b"\n")), max_size=20))
def test_events_are_what_the_standard_says(lines: list[tuple[bytes, bytes]]) -> None:
    expected: list[bytes] = []
    data: list[bytes] = []
    for line, _ in lines:
        name, _, value = line.partition(b":")
        if not line and data:
            expected.append(b"\n".join(data))
        if not line:
            data = []
        elif name == b"data":
            data.append(value.removeprefix(b" "))
    assert parsed(b"".join(line + end for line, end in lines)) == expected


def test_a_stream_without_line_ends_or_blank_lines_is_ended_at_a_limit() -> None:
    for endless in (b"x" * 1000, b"data: x\n", b": x"):
        with pytest.raises(EventTooLarge):
            parsed(*(endless for _ in range(LARGEST_EVENT)))
    parser = EventParser()
    for _ in range(LARGEST_EVENT // 100):
        parser.feed(b": comments may go on for ever\n")


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 300)
    | st.text(max_size=5)
    | st.sampled_from(["stop", "error", "length"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "delta",
                    "message",
                    "content",
                    "tool_calls",
                    "index",
                    "function",
                    "arguments",
                    "name",
                    "id",
                ],
            )
            | st.sampled_from(
                ["finish_reason", "usage", "prompt_tokens", "error", "logprobs", "type", "text", "reasoning", "role"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)


@given(st.lists(VALUES | st.fixed_dictionaries({"choices": st.lists(VALUES, max_size=3)}), max_size=4))
def test_any_json_is_a_part_of_an_answer_or_a_typed_error(events: list[Any]) -> None:
    answer = RemoteAnswer("there", "there/m", include_usage=True, key=None)
    with contextlib.suppress(RemoteAnswerInvalid, RemoteFailed, RemoteInterrupted):
        for event in events:
            answer.feed(json.dumps(event).encode())
        answer.last()
        made = msgspec.json.encode(answer.completion())
        assert msgspec.json.decode(made, type=ChatCompletion) == answer.completion()


@given(st.binary(max_size=200))
def test_any_bytes_are_a_part_of_an_answer_or_a_typed_error(data: bytes) -> None:
    answer = RemoteAnswer("there", "there/m", include_usage=False, key=None)
    with contextlib.suppress(RemoteAnswerInvalid, RemoteFailed):
        answer.feed(data)
    assert isinstance(error_text(data), str)


@given(VALUES)
def test_what_an_endpoint_says_is_one_short_line(value: Any) -> None:
    line = error_text(json.dumps(value).encode())
    assert len(line) <= 300
    assert line.isprintable()


def test_a_key_is_not_shown_even_where_the_text_is_cut() -> None:
    key = "sk-" + "k" * 100
    said = error_text(json.dumps({"error": {"message": "x" * 250 + key}}).encode(), key)
    assert "sk-" not in said
    assert "kkk" not in said
    assert key not in repr(
        msgspec.convert({"remote": {"id": "a", "base_url": "https://a.example"}, "key": key}, AddRemote)
    )


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_a_reason(text: str) -> None:
    for url in (text, f"https://{text}", f"http://{text}/v1", f"http://127.0.0.1{text}"):
        with contextlib.suppress(ValueError):
            address = address_of(url)
            assert address.scheme == "https" or address.loopback
            assert "@" not in url.partition("://")[2].partition("/")[0]


def test_one_origin_has_one_spelling() -> None:
    spellings = ["https://API.example.com", "https://api.example.com:443/v1", "https://api.example.com/other"]
    assert {address_of(url).origin for url in spellings} == {"https://api.example.com:443"}
    assert address_of("https://[2001:DB8::1]/v1").origin == "https://[2001:db8::1]:443"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("", None), ("7", 7.0), ("-1", None), ("soon", None), ("1e9", None), ("\u0663", None), ("9" * 50, 999999999.0)],
)
def test_retry_after_is_a_number_or_nothing(value: str, seconds: float | None) -> None:
    assert _retry_after(value) == seconds


def test_retry_after_may_be_a_date() -> None:
    assert _retry_after(formatdate(time.time() - 60, usegmt=True)) == 0
    assert 50 < (_retry_after(formatdate(time.time() + 60, usegmt=True)) or 0) <= 60


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("error", "attempts", "pauses"),
    [
        (RemoteUnreachable("no", reason="connect"), 4, [0.5, 1.0, 2.0]),
        (RemoteUnreachable("no", reason="lost"), 4, [0.5, 1.0, 2.0]),
        (RemoteUnreachable("no", reason="timeout"), 1, []),
        (RemoteUnreachable("no", reason="tls"), 1, []),
        (RemoteBusy("no", retry_after=3.0), 4, [3.0] * 3),
        (RemoteBusy("no", retry_after=21.0), 1, []),
        (RemoteBusy("no"), 4, [0.5, 1.0, 2.0]),
        (RemoteFailed("no", status=500), 1, []),
    ],
)
async def test_what_is_tried_again_and_after_which_pause(
    monkeypatch: pytest.MonkeyPatch, error: JanError, attempts: int, pauses: list[float]
) -> None:
    made, slept = [], []

    async def attempt() -> None:
        made.append(1)
        raise error

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(anyio, "sleep", sleep)
    monkeypatch.setattr(retry.random, "uniform", lambda low, high: high)
    with pytest.raises(type(error)):
        await retry.persist(attempt, 3)
    assert (len(made), slept) == (attempts, pauses)


@pytest.mark.parametrize("key", ["sk-secret\n", "sk secret", "", "é"])
def test_a_key_that_no_header_can_carry_is_no_key(key: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"remote": {"id": "a", "base_url": "https://a.example/v1"}, "key": key}, AddRemote)


def test_a_proxy_is_not_for_what_answers_on_this_machine() -> None:
    with pytest.raises(ValueError, match="own addresses"):
        Remote("a", "https://localhost/v1", on_this_machine=True, proxy="http://far.example:3128")
