"""Small encoder files with random weights: real bert models, which know a few words."""

from __future__ import annotations

from pathlib import Path

__all__ = ["WORDS", "write_bert"]

WORDS = ["the", "cat", "sat", "on", "a", "mat", "dog", "ran", "sun", "moon", "river", "stone", "green", "old"]
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def write_bert(
    path: Path,
    *,
    n_embd: int = 32,
    n_layer: int = 2,
    n_ctx: int = 128,
    pooling: int | None = 1,
    labels: int = 0,
    seed: int = 0,
    poison: float | None = None,
) -> Path:
    """Write a bert. `pooling`: llama.cpp's number of it, None for none in the file; `labels`: outputs of a
    classification head; `poison`: what the last layer's norm is filled with instead.
    """
    import gguf
    import numpy as np

    # In a GGUF the words are marked, not their continuations: "cat" is "▁cat", "##s" is "s".
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = [*_SPECIAL, *("\u2581" + word for word in WORDS), *("\u2581" + c for c in letters if c != "a"), *letters]
    n_vocab, n_head, n_ff = len(tokens), 4, n_embd * 2
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name(path.stem)
    writer.add_context_length(n_ctx)
    writer.add_embedding_length(n_embd)
    writer.add_block_count(n_layer)
    writer.add_feed_forward_length(n_ff)
    writer.add_head_count(n_head)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    if pooling is not None:
        writer.add_pooling_type(gguf.PoolingType(pooling))
    if labels:
        writer.add_classifier_output_labels([f"label {number}" for number in range(labels)])
    writer.add_token_type_count(2)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(tokens)
    kinds = [gguf.TokenType.CONTROL] * len(_SPECIAL) + [gguf.TokenType.NORMAL] * (n_vocab - len(_SPECIAL))
    writer.add_token_types(kinds)
    for number, add in enumerate(("pad", "unk", "bos", "sep", "mask")):
        getattr(writer, f"add_{add}_token_id")(number)
    random = np.random.default_rng(seed)

    def weight(name: str, *shape: int) -> None:
        values = random.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(shape[-1]))
        writer.add_tensor(name, values)

    def norm(name: str, fill: float | None = None) -> None:
        scale = 1 + random.standard_normal(n_embd, dtype=np.float32) / 10
        shift = random.standard_normal(n_embd, dtype=np.float32) / 10
        writer.add_tensor(f"{name}.weight", scale if fill is None else np.full(n_embd, fill, np.float32))
        writer.add_tensor(f"{name}.bias", shift if fill is None else np.full(n_embd, fill, np.float32))

    writer.add_tensor("token_embd.weight", random.standard_normal((n_vocab, n_embd), dtype=np.float32))
    weight("token_types.weight", 2, n_embd)
    weight("position_embd.weight", n_ctx, n_embd)
    norm("token_embd_norm")
    if labels:
        weight("cls.weight", n_embd, n_embd)
        weight("cls.output.weight", labels, n_embd)
    for layer in range(n_layer):
        block = f"blk.{layer}."
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            weight(f"{block}{name}.weight", n_embd, n_embd)
        norm(block + "attn_output_norm")
        weight(block + "ffn_up.weight", n_ff, n_embd)
        weight(block + "ffn_down.weight", n_embd, n_ff)
        norm(block + "layer_output_norm", poison if layer == n_layer - 1 else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
