"""Frames and messages: any cut of the bytes, and any bytes at all."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_llamacpp.worker.frames import FrameDecoder, FrameError, frame
from jan_llamacpp.worker.protocol import Cancel, Failed, Generate, Pieces, decode_from_worker, decode_to_worker, encode
from jan_llamacpp.worker.reply import StepPiece, Usage
from jan_llamacpp.worker.request import GenerateParams, Prompt, Sampling


@given(st.lists(st.binary(max_size=40), max_size=8), st.data())
def test_frames_come_out_as_they_went_in_however_the_pipe_cut_them(bodies: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(frame(body) for body in bodies)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    edges = [0, *cuts, len(stream)]
    decoder, out = FrameDecoder(), []
    for a, b in pairwise(edges):
        out += decoder.feed(stream[a:b])
    assert out == bodies
    assert not decoder.incomplete


@given(st.binary(max_size=64))
def test_any_bytes_are_frames_or_a_frame_error_and_never_more_than_was_fed(data: bytes) -> None:
    decoder = FrameDecoder(limit=1000)
    try:
        frames = decoder.feed(data)
    except FrameError:
        return
    assert sum(4 + len(body) for body in frames) <= len(data)


def test_a_length_over_the_limit_is_refused_before_its_bytes_are_waited_for() -> None:
    with pytest.raises(FrameError, match="limit is 100"):
        FrameDecoder(limit=100).feed((101).to_bytes(4, "little"))
    with pytest.raises(FrameError, match="limit of 100"):
        frame(bytes(101), limit=100)


@given(st.binary(max_size=64))
def test_any_bytes_are_a_message_or_a_decoding_error(data: bytes) -> None:
    for decode in (decode_to_worker, decode_from_worker):
        try:
            decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue


def test_messages_survive_the_journey() -> None:
    params = GenerateParams(
        Prompt(messages=[{"role": "user", "content": "🙂"}]),
        Sampling(seed=7, logit_bias={3: -1.5}),
        stop=["\n"],
    )
    for down in (Generate(4, params), Cancel(4)):
        assert decode_to_worker(encode(down)) == down
    pieces = [StepPiece(4, "é", 1, 12), StepPiece(5, "", 2, 13, "stop", Usage(9, 2, 1))]
    for up in (Pieces(pieces), Failed(4, "context_overflow", "too long", {"n_ctx": 8})):
        assert decode_from_worker(encode(up)) == up
