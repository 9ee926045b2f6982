"""What the tests of this extension share: an installed engine, and small model files made on the spot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from jan_llamacpp.embedded import EMBEDDED_MODEL
from jan_llamacpp.engines.installed import list_installed
from jan_llamacpp.worker import outbox
from jan_llamacpp.worker.options import LoadOptions

from .scheduler_bench import Bench, MakeBench

CHATML = (
    "{%- for m in messages %}"
    "{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%- endif %}"
)

MakeModel = Callable[..., Path]
PATIENCE = 120.0
"""Seconds until a test gives up waiting for an event; a busy machine needs more than it seems."""
NEWLINE, BOS, EOS = 10, 257, 259
"""Tokens of the models made here: a byte's token is the byte, as an integer."""


@pytest.fixture(scope="session")
def engine_dir(engines: Path) -> Path:
    """The installed CPU build: a directory with llama-cpp-python in it."""
    (found,) = list_installed(engines)
    return found.path


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> MakeModel:
    """Makes a llama GGUF with random weights and a byte-level vocabulary: real, but it babbles."""
    return lambda **changes: _write_model(tmp_path_factory.mktemp("model") / "babble.gguf", **changes)


@pytest.fixture(scope="session")
def make_parrot(tmp_path_factory: pytest.TempPathFactory) -> MakeModel:
    """Makes a llama GGUF that always answers `text`, byte by byte, with a probability of nearly 1.

    Every byte of `text` leads to the next one (so each may be in it only once), a line feed to the first,
    the last to the end of the answer, or with `loop` to the first again. All other weights are 0.
    """

    def make(text: str, *, loop: bool = False, **changes: Any) -> Path:
        data = text.encode()
        assert len(set(data)) == len(data), "a byte is in the text twice"
        assert NEWLINE not in data
        chain = {NEWLINE: data[0], **dict(pairwise(data)), data[-1]: data[0] if loop else EOS}
        path = tmp_path_factory.mktemp("model") / "parrot.gguf"
        return _write_model(path, n_embd=288, n_layer=1, chain=chain, **changes)

    return make


@pytest.fixture(scope="session")
def babble(make_model: MakeModel) -> Path:
    return make_model()


@pytest.fixture(scope="session")
def embedded() -> Path:
    """The model that comes with the package."""
    return EMBEDDED_MODEL


@pytest.fixture(scope="session")
def endless(make_parrot: MakeModel) -> Path:
    """It never ends: abc…zabc…z, for 32,768 tokens."""
    return make_parrot("abcdefghijklmnopqrstuvwxyz", loop=True, n_ctx=32_768)


@pytest.fixture
def bench(engine_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeBench]:
    """Makes a scheduler on a model, to be stepped by hand: small, and of one thread."""
    monkeypatch.setattr(outbox, "HOLD_SECONDS", 0)  # every step is seen at once
    made: list[Bench] = []

    def make(model: Path, **options: Any) -> Bench:
        made.append(Bench(engine_dir, model, LoadOptions(**{"threads": 1, "n_seq": 4, "n_ctx": 512, **options})))
        return made[-1]

    yield make
    for each in made:
        each.scheduler._context.close()
        each.scheduler._model.close()


@pytest.fixture(scope="session")
def parrot(make_parrot: MakeModel) -> Path:
    """It always says the same, and ends: with characters of several tokens."""
    return make_parrot("Hi,you🙂 wér!")


def byte_symbols() -> list[str]:
    """GPT-2's printable stand-in for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    symbols = {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(rest)}
    return [symbols[b] for b in range(256)]


def _write_model(
    path: Path,
    *,
    n_embd: int = 64,
    n_layer: int = 2,
    n_ctx: int = 4096,
    template: str | None = CHATML,
    chain: dict[int, int] | None = None,
    seed: int = 0,
    pre: str = "gpt-2",
    arch: str = "llama",
    sections: list[int] | None = None,
) -> Path:
    import gguf
    import numpy as np

    tokens = [*byte_symbols(), "he", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    n_vocab, n_head, n_ff = len(tokens), 4, n_embd * 2
    writer = gguf.GGUFWriter(path, arch)
    if sections is not None:
        writer.add_rope_dimension_sections(sections)
    writer.add_name(path.stem)
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
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * 257 + [gguf.TokenType.CONTROL] * 3)
    writer.add_token_merges(["h e"])
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_add_bos_token(False)
    if template is not None:
        writer.add_chat_template(template)
    random = np.random.default_rng(seed)

    def weight(name: str, *shape: int) -> None:
        values = random.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(shape[-1]))
        writer.add_tensor(name, values if chain is None else np.zeros_like(values))

    def ones(name: str) -> None:
        writer.add_tensor(name, np.ones(n_embd, np.float32))

    if chain is None:
        embedding = random.standard_normal((n_vocab, n_embd), dtype=np.float32)
        output = random.standard_normal((n_vocab, n_embd), dtype=np.float32) / 2
        output[[*range(32), *range(127, n_vocab)]] = 0  # what is no printable letter is never the likeliest
    else:
        embedding = np.eye(n_vocab, n_embd, dtype=np.float32)
        output = np.zeros((n_vocab, n_embd), np.float32)
        for token, following in chain.items():
            output[following, token] = 1
    writer.add_tensor("output.weight", output)
    writer.add_tensor("token_embd.weight", embedding)
    ones("output_norm.weight")
    for layer in range(n_layer):
        block = f"blk.{layer}."
        ones(block + "attn_norm.weight")
        ones(block + "ffn_norm.weight")
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            weight(f"{block}{name}.weight", n_embd, n_embd)
        weight(block + "ffn_gate.weight", n_ff, n_embd)
        weight(block + "ffn_up.weight", n_ff, n_embd)
        weight(block + "ffn_down.weight", n_embd, n_ff)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
