"""Cutting a byte stream into messages: whatever the reads are, the messages are the same."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jan_core.rpc.framing import FramingError, Splitter, depth_exceeds

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
documents = st.dictionaries(st.text(), json_values, max_size=4).map(lambda v: json.dumps(v).encode())


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(p % (len(data) + 1) for p in places)})
    return [data[a:b] for a, b in pairwise(edges)]


@given(st.lists(documents, min_size=1, max_size=8), st.lists(st.integers(min_value=0), max_size=20), st.booleans())
def test_any_cutting_of_the_stream_gives_the_same_messages(
    messages: list[bytes], places: list[int], content_length: bool
) -> None:
    got: list[bytes] = []
    splitter = Splitter(got.append, lambda: pytest.fail("nothing is too large"))
    sender = Splitter(got.append, lambda: None)
    sender.content_length = content_length
    for part in cut(b"".join(sender.frame(m) for m in messages), places):
        splitter.feed(part)
    assert got == messages
    assert splitter.content_length == content_length


@given(st.lists(st.integers(min_value=0), max_size=20), st.integers(min_value=101, max_value=5_000))
def test_an_oversized_line_is_reported_once_and_skipped(places: list[int], size: int) -> None:
    got: list[bytes] = []
    refused: list[int] = []
    splitter = Splitter(got.append, lambda: refused.append(1), limit=100)
    for part in cut(b'{"a":1}\n' + b"x" * size + b'\n{"b":2}\n', places):
        splitter.feed(part)
    assert got == [b'{"a":1}', b'{"b":2}']
    assert refused == [1]


def test_an_oversized_framed_message_is_skipped_too() -> None:
    got: list[bytes] = []
    refused: list[int] = []
    splitter = Splitter(got.append, lambda: refused.append(1), limit=100)
    splitter.feed(b"Content-Length: 200\r\n\r\n" + b"x" * 200 + b"Content-Length: 2\r\n\r\n{}")
    assert (got, refused) == ([b"{}"], [1])


@pytest.mark.parametrize("header", [b"Content-Length: x\r\n\r\n", b"Content-Type: y\r\n\r\n", b"C" * 9000])
def test_a_header_that_says_no_length_cannot_be_followed(header: bytes) -> None:
    with pytest.raises(FramingError):
        Splitter(lambda m: None, lambda: None).feed(header)


@given(json_values)
def test_ordinary_documents_are_not_too_deep(value: object) -> None:
    assert not depth_exceeds(json.dumps(value).encode())


@pytest.mark.parametrize(
    ("text", "too_deep"),
    [
        (b"[" * 128 + b"]" * 128, False),
        (b"[" * 129 + b"]" * 129, True),
        (b'"' + b"[" * 500 + b'"', False),
        (b'["' + b'\\"' * 3 + b"{" * 500 + b'"]', False),
        (b"[[]," * 127 + b"1" + b"]" * 127, False),
        (b'"' + b'\\"' * 200_000 + b"[" * 500, False),  # an unclosed string, in linear time
    ],
)
def test_depth_counts_brackets_outside_of_strings(text: bytes, too_deep: bool) -> None:
    assert depth_exceeds(text) is too_deep
