"""What the tests of this extension share: an installed engine, and small model files made on the spot."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CHATML = (
    "{%- for m in messages %}"
    "{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%- endif %}"
)

MakeModel = Callable[..., Path]


@pytest.fixture(scope="session")
def engine_dir() -> Path:
    """A directory with llama-cpp-python in it, as `pip install --target` makes it."""
    named = os.environ.get("JAN_TEST_ENGINE_DIR")
    if not named:
        pytest.fail("set JAN_TEST_ENGINE_DIR to a directory with llama-cpp-python (pip install --target)")
    return Path(named)


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> MakeModel:
    """Makes a llama GGUF with random weights and a byte-level vocabulary: real, but it babbles."""
    return lambda **changes: _make_model(tmp_path_factory.mktemp("model") / "babble.gguf", **changes)


@pytest.fixture(scope="session")
def babble(make_model: MakeModel) -> Path:
    return make_model()


def byte_symbols() -> list[str]:
    """GPT-2's printable stand-in for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    symbols = {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(rest)}
    return [symbols[b] for b in range(256)]


def _make_model(
    path: Path, *, n_embd: int = 64, n_layer: int = 2, n_ctx: int = 4096, template: str | None = CHATML,
    seed: int = 0, spoil: Callable[[Any], None] | None = None,
) -> Path:  # fmt: skip
    import gguf
    import numpy as np

    tokens = [*byte_symbols(), "he", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    n_vocab, n_head, n_ff = len(tokens), 4, n_embd * 2
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("babble")
    writer.add_context_length(n_ctx)
    writer.add_embedding_length(n_embd)
    writer.add_block_count(n_layer)
    writer.add_feed_forward_length(n_ff)
    writer.add_head_count(n_head)
    writer.add_head_count_kv(n_head)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(n_embd // n_head)
    writer.add_vocab_size(n_vocab)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * 257 + [gguf.TokenType.CONTROL] * 3)
    writer.add_token_merges(["h e"])
    writer.add_bos_token_id(257)
    writer.add_eos_token_id(259)
    writer.add_add_bos_token(False)
    if template is not None:
        writer.add_chat_template(template)
    if spoil is not None:
        spoil(writer)
    random = np.random.default_rng(seed)

    def tensor(name: str, *shape: int) -> None:
        values = random.standard_normal(shape, dtype=np.float32) / np.sqrt(shape[-1])
        writer.add_tensor(name, values.astype(np.float32))

    embedding = random.standard_normal((n_vocab, n_embd), dtype=np.float32)
    embedding[257:] = 0  # control tokens are never the likeliest
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output_norm.weight", np.ones(n_embd, np.float32))
    for layer in range(n_layer):
        block = f"blk.{layer}."
        writer.add_tensor(block + "attn_norm.weight", np.ones(n_embd, np.float32))
        writer.add_tensor(block + "ffn_norm.weight", np.ones(n_embd, np.float32))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensor(f"{block}{name}.weight", n_embd, n_embd)
        tensor(block + "ffn_gate.weight", n_ff, n_embd)
        tensor(block + "ffn_up.weight", n_ff, n_embd)
        tensor(block + "ffn_down.weight", n_embd, n_ff)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
