"""The GGUF file that ships is complete, small, and made with this folder's template."""

from __future__ import annotations

from pathlib import Path

import pytest

gguf = pytest.importorskip("gguf")

HERE = Path(__file__).parents[1]
SHIPPED = HERE.parents[1] / "extensions/llamacpp/src/jan_llamacpp/models/jan-tiny.gguf"


@pytest.fixture(scope="module")
def reader() -> object:
    return gguf.GGUFReader(SHIPPED)


def value(reader: object, key: str) -> object:
    return reader.fields[key].contents()  # type: ignore[attr-defined]


def test_it_is_at_most_eight_megabytes() -> None:
    assert SHIPPED.stat().st_size <= 8_000_000


def test_it_says_what_it_is_and_under_which_licence(reader: object) -> None:
    assert value(reader, "general.architecture") == "llama"
    assert value(reader, "general.name") == "jan-tiny"
    assert value(reader, "general.license") == "apache-2.0"
    assert value(reader, "general.author") == "the jan-core authors"
    assert value(reader, "general.description")


def test_it_carries_this_folders_chat_template(reader: object) -> None:
    written = (HERE / "chat_template.jinja").read_text(encoding="utf-8").rstrip("\n")
    assert value(reader, "tokenizer.chat_template") == written


def test_its_tokenizer_covers_every_byte_and_ends_answers_with_its_own_token(reader: object) -> None:
    tokens = value(reader, "tokenizer.ggml.tokens")
    assert isinstance(tokens, list)
    assert tokens[int(str(value(reader, "tokenizer.ggml.eos_token_id")))] == "<|im_end|>"
    assert value(reader, "tokenizer.ggml.add_bos_token") is False
    assert sum(len(token) == 1 for token in tokens) == 256
    assert value(reader, "tokenizer.ggml.pre") == "smollm"
    assert len(tokens) == value(reader, "llama.vocab_size")


def test_its_context_is_long_enough_for_a_conversation(reader: object) -> None:
    assert int(str(value(reader, "llama.context_length"))) >= 1024


def test_its_matrices_are_q8_0(reader: object) -> None:
    for tensor in reader.tensors:  # type: ignore[attr-defined]
        wanted = "F32" if len(tensor.shape) == 1 else "Q8_0"
        assert tensor.tensor_type.name == wanted, tensor.name
