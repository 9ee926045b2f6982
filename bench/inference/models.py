"""The models that are measured: made here, of the shapes of well-known ones, with random weights.

Speed does not depend on what the weights are, only on how many there are and how they are quantised. Two things are
arranged. The rows of bytes and specials are zero, so that answers consist of words alone: none ends early, splits a
character, or reads back as other tokens than it was. And the `copier` says what its last token makes it say, so that
what it repeats is known (see `Shape.chain`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from vocabulary import TEMPLATE, Vocabulary

__all__ = ["COPIER", "MODELS", "Shape"]

VERSION = 1
"""Part of the file's name: raised when what is made changes."""


@dataclass(frozen=True)
class Shape:
    """A model to make. `kind`: how its matrices are quantised; with Q4_0 the embeddings stay Q8_0, as usual.

    `chain`: no random babble. Attention and feed-forward are computed in full but add nothing (their output matrices
    are zero), and the output matrix leads each word to one other: the first `chain` words in a circle, all further
    words in another.
    """

    name: str
    kind: str
    arch: str
    n_embd: int
    n_layer: int
    n_ff: int
    n_head: int
    n_kv: int
    n_vocab: int
    n_ctx: int = 32_768
    chain: int = 0

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.n_vocab)

    def file(self, folder: Path) -> Path:
        """The model's file in this folder, made if it is not there."""
        path = folder / f"{self.name}-v{VERSION}.gguf"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part")
            _write(self, part)
            part.rename(path)
        return path


_TINY = Shape("tiny", "Q8_0", "llama", n_embd=192, n_layer=6, n_ff=512, n_head=6, n_kv=3, n_vocab=4096)  # 3 M
_SMOLLM = Shape("m135-q8", "Q8_0", "llama", n_embd=576, n_layer=30, n_ff=1536, n_head=9, n_kv=3, n_vocab=49_152)
_QWEN = Shape("q05b-q4", "Q4_0", "qwen2", n_embd=896, n_layer=24, n_ff=4864, n_head=14, n_kv=2, n_vocab=151_936)

MODELS = {shape.name: shape for shape in (_TINY, _SMOLLM, _QWEN, replace(_QWEN, name="q05b-q8", kind="Q8_0"))}
"""3 million parameters; SmolLM-135M's shape; Qwen2-0.5B's, twice."""
COPIER = replace(_SMOLLM, name="copier", chain=300)


def _write(shape: Shape, path: Path) -> None:
    import gguf
    import numpy as np
    from gguf.quants import quantize

    vocabulary, rng = shape.vocabulary, np.random.default_rng(0)
    out = gguf.GGUFWriter(path, shape.arch)
    head = shape.n_embd // shape.n_head
    out.add_name(shape.name)
    out.add_context_length(shape.n_ctx)
    out.add_embedding_length(shape.n_embd)
    out.add_block_count(shape.n_layer)
    out.add_feed_forward_length(shape.n_ff)
    out.add_head_count(shape.n_head)
    out.add_head_count_kv(shape.n_kv)
    out.add_layer_norm_rms_eps(1e-6)
    out.add_rope_freq_base(1e6)
    out.add_file_type(gguf.LlamaFileType[f"MOSTLY_{shape.kind}"])
    if shape.arch == "llama":
        out.add_rope_dimension_count(head)
        out.add_vocab_size(shape.n_vocab)
    _write_tokenizer(out, shape)

    def put(name: str, values: Any, kind: str = shape.kind) -> None:
        type = gguf.GGMLQuantizationType[kind]
        out.add_tensor(name, quantize(values, type), raw_dtype=type)

    def normal(*size: int, scale: float = 1.0) -> Any:
        return rng.standard_normal(size, dtype=np.float32) * np.float32(scale / np.sqrt(size[-1]))

    embeddings = normal(shape.n_vocab, shape.n_embd, scale=4)
    if shape.chain:
        put("output.weight", _chained(embeddings, shape), "Q8_0")
    else:
        embeddings[:256] = embeddings[vocabulary.first_special :] = 0
    put("token_embd.weight", embeddings, "Q8_0")
    kv = shape.n_kv * head
    added = 0.0 if shape.chain else 1.0  # to the residual stream
    out.add_tensor("output_norm.weight", np.ones(shape.n_embd, np.float32))
    for layer in range(shape.n_layer):
        at = f"blk.{layer}."
        out.add_tensor(f"{at}attn_norm.weight", np.ones(shape.n_embd, np.float32))
        out.add_tensor(f"{at}ffn_norm.weight", np.ones(shape.n_embd, np.float32))
        put(f"{at}attn_q.weight", normal(shape.n_embd, shape.n_embd))
        put(f"{at}attn_k.weight", normal(kv, shape.n_embd))
        put(f"{at}attn_v.weight", normal(kv, shape.n_embd))
        put(f"{at}attn_output.weight", normal(shape.n_embd, shape.n_embd, scale=added))
        put(f"{at}ffn_gate.weight", normal(shape.n_ff, shape.n_embd))
        put(f"{at}ffn_up.weight", normal(shape.n_ff, shape.n_embd))
        put(f"{at}ffn_down.weight", normal(shape.n_embd, shape.n_ff, scale=added))
        if shape.arch == "qwen2":
            for letter, size in (("q", shape.n_embd), ("k", kv), ("v", kv)):
                out.add_tensor(f"{at}attn_{letter}.bias", (rng.standard_normal(size) * 0.1).astype(np.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def _chained(embeddings: Any, shape: Shape) -> Any:
    """The output matrix that leads each word to the next of its circle: the next one's row is this one's embedding."""
    import numpy as np

    words = np.array(shape.vocabulary.words)
    output = np.zeros_like(embeddings)
    for circle in (words[: shape.chain], words[shape.chain :]):
        output[np.roll(circle, -1)] = embeddings[circle]
    return output


def _write_tokenizer(out: Any, shape: Shape) -> None:
    import gguf

    vocabulary = shape.vocabulary
    kinds = [gguf.TokenType.NORMAL] * vocabulary.first_special
    kinds += [gguf.TokenType.CONTROL] * (shape.n_vocab - vocabulary.first_special)
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("qwen2" if shape.arch == "qwen2" else "smollm")
    out.add_token_list(vocabulary.tokens)
    out.add_token_types(kinds)
    out.add_token_merges(vocabulary.merges)
    out.add_bos_token_id(vocabulary.first_special)
    out.add_eos_token_id(vocabulary.first_special + 2)
    out.add_add_bos_token(False)
    out.add_chat_template(TEMPLATE)
