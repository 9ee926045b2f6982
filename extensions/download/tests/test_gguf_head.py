"""The look at a model file's first bytes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_download.integrity.gguf import HEAD, head_problem


def head(version: int = 3, tensors: int = 291, entries: int = 24, order: str = "<") -> bytes:
    return (b"GGUF" + struct.pack(f"{order}IQQ", version, tensors, entries)).ljust(HEAD, b"\x07")


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("counts", [(291, 24), (0, 3), (60_000, 100)])
def test_a_model_is_one(version: int, counts: tuple[int, int]) -> None:
    assert head_problem("model.gguf", head(version, *counts)) == ""


@pytest.mark.parametrize(
    ("bytes_", "words"),
    [
        (b"", "is empty"),
        (b"GGUF\3\0", "ends after 6 bytes"),
        (b"\0" * HEAD, "nothing but zeroes"),
        (head(1), "version 1"),
        (head(order=">"), "big-endian"),
        (head(tensors=1 << 40), "cannot be"),
        (head(entries=1 << 63), "cannot be"),
        (head(tensors=0, entries=0), "neither tensors nor metadata"),
        (b"<!DOCTYPE html><title>Sign in</title>", "web page"),
        (b"\xef\xbb\xbf\r\n  <HTML lang=en>", "web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML"),
        (b'{"error": "Access to model is restricted"}', "JSON"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n", "Git LFS pointer"),
        (b"# xet version 0\nfilesize = 1\n", "Xet pointer"),
        (b"PK\3\4rest", "zip"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"tjgg\1\0\0\0", "before GGUF"),
        (b"Not found", "does not begin with GGUF"),
    ],
)
def test_what_is_no_model_is_named(bytes_: bytes, words: str) -> None:
    problem = head_problem("Model.GGUF", bytes_)
    assert problem.startswith("Model.GGUF is no model in the GGUF format: ")
    assert words in problem


@pytest.mark.parametrize("name", ["tokenizer.json", "index.html", "model.safetensors", "gguf", "model.gguf.txt"])
def test_other_names_promise_nothing(name: str) -> None:
    assert head_problem(name, b'{"version": 1}') == ""


@given(st.binary(max_size=HEAD), st.sampled_from([b"", b"GGUF", b"GGUF\3\0\0\0", b"<", b" \n{"]))
def test_any_bytes_get_an_answer_in_one_line_without_a_byte_of_theirs(tail: bytes, start: bytes) -> None:
    problem = head_problem("m.gguf", start + tail)
    assert problem.isprintable()
    assert len(problem) < 200


@given(st.sampled_from([2, 3]), st.integers(1, 1 << 24), st.integers(0, 1 << 24), st.binary(max_size=64))
def test_every_plausible_header_is_let_through(version: int, tensors: int, entries: int, tail: bytes) -> None:
    assert head_problem("m.gguf", b"GGUF" + struct.pack("<IQQ", version, tensors, entries) + tail) == ""
