"""Cutting a byte stream into messages: whatever the reads are, the messages are the same."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jan_core.rpc.depth import depth_exceeds
from jan_core.rpc.framing import FramingError, Message, Splitter, TooLarge

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
documents = st.dictionaries(st.text(), json_values, max_size=4).map(lambda v: json.dumps(v).encode())
places = st.lists(st.integers(min_value=0), max_size=20)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(p % (len(data) + 1) for p in places)})
    return [data[a:b] for a, b in pairwise(edges)]


def messages(splitter: Splitter, parts: list[bytes]) -> list[bytes | type[Exception]]:
    """What comes of some reads: messages without the blanks around them, and the kinds of what could not be had."""

    def plain(message: Message) -> bytes | type[Exception]:
        return message.strip() if isinstance(message, bytes) else type(message)

    return [plain(message) for part in parts for message in splitter.feed(part) if message != b""]


@given(st.lists(documents, min_size=1, max_size=8), places, st.booleans())
def test_any_cutting_of_the_stream_gives_the_same_messages(
    sent: list[bytes], places: list[int], content_length: bool
) -> None:
    sender, splitter = Splitter(), Splitter()
    sender.content_length = content_length
    assert messages(splitter, cut(sender.frames(sent), places)) == sent
    assert splitter.content_length == content_length


@given(places, st.integers(min_value=101, max_value=5_000))
def test_an_oversized_line_is_told_of_once_and_skipped(places: list[int], size: int) -> None:
    got = messages(Splitter(limit=100), cut(b'{"a":1}\n' + b"x" * size + b'\n{"b":2}\n', places))
    assert got == [b'{"a":1}', TooLarge, b'{"b":2}']


@given(places, st.booleans())
def test_a_line_of_exactly_the_limit_is_taken(places: list[int], framed: bool) -> None:
    line = b'"' + b"x" * 98 + b'"'
    sender = Splitter()
    sender.content_length = framed
    assert messages(Splitter(limit=100), cut(sender.frames([line, b"{}"]), places)) == [line, b"{}"]


@given(places, st.integers(min_value=101, max_value=5_000))
def test_an_oversized_framed_message_is_skipped_too(places: list[int], size: int) -> None:
    data = b"Content-Length: %d\r\n\r\n%bContent-Length: 2\r\n\r\n{}" % (size, b"x" * size)
    assert messages(Splitter(limit=100), cut(data, places)) == [TooLarge, b"{}"]


@given(places)
def test_headers_may_have_other_lines_in_any_case_and_bodies_may_be_empty(places: list[int]) -> None:
    data = b"content-length: 2\r\nContent-Type: x\r\n\r\n{}Content-Length: 0\r\n\r\n"
    data += b"Content-Type: y\r\nCONTENT-LENGTH:3\r\n\r\n[1]"
    assert messages(Splitter(), cut(data, places)) == [b"{}", b"[1]"]


@pytest.mark.parametrize("header", [b"Content-Length: x\r\n\r\n", b"Content-Type: y\r\n\r\n", b"C" * 9000])
def test_after_a_header_that_says_no_length_nothing_more_comes(header: bytes) -> None:
    splitter = Splitter()
    assert messages(splitter, [b"Content-Length: 2\r\n\r\n{}" + header]) == [b"{}", FramingError]
    assert messages(splitter, [b"Content-Length: 2\r\n\r\n{}"]) == []


@given(json_values)
def test_ordinary_documents_are_not_too_deep(value: object) -> None:
    assert not depth_exceeds(json.dumps(value).encode())


@pytest.mark.parametrize(
    ("text", "too_deep"),
    [
        (b"[" * 128 + b"]" * 128, False),
        (b"[" * 129 + b"]" * 129, True),
        (b'{"a":' * 129 + b"1" + b"}" * 129, True),
        (b'"' + b"[" * 500 + b'"', False),
        (b'["' + b'\\"' * 3 + b"{" * 500 + b'"]', False),
        (b'["\\\\",' + b"[" * 500 + b"]" * 500 + b"]", True),
        (b"[[]," * 127 + b"1" + b"]" * 127, False),
        (b"[" + b"[1]," * 100_000 + b"1]", False),
        (b'"' + b'\\"' * 200_000 + b"[" * 500, False),  # an unclosed string
        (b"[1," * 40_000 + b" " * 40_000, True),
    ],
)
def test_depth_counts_brackets_outside_of_strings(text: bytes, too_deep: bool) -> None:
    assert depth_exceeds(text) is too_deep


@given(
    st.integers(min_value=1, max_value=200), st.sampled_from(["[]", "{}"]), st.integers(min_value=0, max_value=20_000)
)
def test_depth_is_found_wherever_it_is(depth: int, kind: str, padding: int) -> None:
    nested = "[" * depth + "]" * depth if kind == "[]" else '{"k":' * depth + "1" + "}" * depth
    text = json.dumps({"pad": "[{" * (padding // 2), "flat": [[]] * 200}).encode()[:-1] + f',"x":{nested}}}'.encode()
    assert depth_exceeds(text) is (depth + 1 > 128)
