"""Model files of any architecture and size, with zeros for weights: sparse, so that even 8 B parameters take no disk.

For what depends on a model's shape alone (memory, splitting, loading). Models that answer are in `conftest.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Shape", "write"]


@dataclass(frozen=True)
class Shape:
    """Dimensions of a decoder. `type`: of the matrices (norms are F32). `window`: of sliding-window layers; `pattern`
    is for the architectures that say in the file which layers those are. `experts`: how many, and how many are used.
    `added`: further tensors, as numpy has their dimensions.
    """

    arch: str = "llama"
    n_embd: int = 256
    n_layer: int = 4
    n_head: int = 4
    n_head_kv: int | list[int] = 4
    n_ff: int = 512
    head: int = 64
    n_vocab: int = 1000
    n_ctx: int = 131_072
    type: str = "Q4_0"
    window: int = 0
    pattern: list[bool] | None = None
    experts: tuple[int, int] = (0, 0)
    tied: bool = False
    more: dict[str, Any] = field(default_factory=dict)
    added: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def kv_heads(self, layer: int) -> int:
        return self.n_head_kv if isinstance(self.n_head_kv, int) else self.n_head_kv[layer]


def write(path: Path, shape: Shape = Shape(), **writer_options: Any) -> Path:
    """Write `shape` to `path`, or with `split_max_tensors=…` to several files; the first one's path."""
    import gguf

    writer = gguf.GGUFWriter(path, shape.arch, **writer_options)
    _metadata(writer, shape)
    _vocabulary(writer, shape.n_vocab)
    quantised = gguf.GGMLQuantizationType[shape.type]
    for name, dims in _tensors(shape):
        kind = quantised if len(dims) > 1 and "ffn_gate_inp" not in name else gguf.GGMLQuantizationType.F32
        _add(writer, name, dims, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    files = writer.format_shard_names(path)
    ends = [sum(-(-info.nbytes // 32) * 32 for info in table.values()) for table in writer.tensors]
    writer.close()
    for each, end in zip(files, ends, strict=True):
        with each.open("r+b") as file:
            file.truncate(-(-each.stat().st_size // 32) * 32 + end)
    return Path(files[0])


def _metadata(writer: Any, shape: Shape) -> None:
    writer.add_name(f"zeros {shape.arch}")
    writer.add_context_length(shape.n_ctx)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layer)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv(shape.n_head_kv)
    writer.add_key_length(shape.head)
    writer.add_value_length(shape.head)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.head)
    writer.add_vocab_size(shape.n_vocab)
    if shape.window:
        writer.add_sliding_window(shape.window)
    if shape.pattern is not None:
        writer.add_sliding_window_pattern(shape.pattern)
    if shape.experts[0]:
        writer.add_expert_count(shape.experts[0])
        writer.add_expert_used_count(shape.experts[1])
        writer.add_expert_feed_forward_length(shape.n_ff)
    for key, value in shape.more.items():
        kinds = {bool: writer.add_bool, float: writer.add_float32, int: writer.add_uint32}
        kinds[type(value)](f"{shape.arch}.{key}", value)


def _vocabulary(writer: Any, size: int) -> None:
    import gguf

    tokens = [f"token{number}" for number in range(size - 1)] + ["<end>"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * (size - 1) + [gguf.TokenType.CONTROL])
    writer.add_token_merges([f"t o{number}" for number in range(size)])
    writer.add_eos_token_id(size - 1)
    writer.add_bos_token_id(size - 1)


def _tensors(shape: Shape) -> list[tuple[str, tuple[int, ...]]]:
    """Names and dimensions, in numpy's order."""
    gemma = shape.arch.startswith("gemma")
    e, f = shape.n_embd, shape.n_ff
    norm = "token_embd_norm.weight" if shape.arch == "lfm2" else "output_norm.weight"
    found: list[tuple[str, tuple[int, ...]]] = [("token_embd.weight", (shape.n_vocab, e)), (norm, (e,))]
    if not shape.tied and not gemma:
        found.append(("output.weight", (shape.n_vocab, e)))
    for layer in range(shape.n_layer):
        q, kv = shape.n_head * shape.head, shape.kv_heads(layer) * shape.head
        block: dict[str, tuple[int, ...]] = {
            "attn_norm": (e,), "ffn_norm": (e,), "attn_q": (q, e), "attn_k": (kv, e), "attn_v": (kv, e),
            "attn_output": (e, q),
        }  # fmt: skip
        if gemma:
            block |= {"post_attention_norm": (e,), "post_ffw_norm": (e,)}
        if shape.arch in ("gemma3", "gemma-embedding", "lfm2", "qwen3", "qwen3moe"):
            block |= {"attn_q_norm": (shape.head,), "attn_k_norm": (shape.head,)}
        if shape.arch == "lfm2" and not kv:  # a convolution in place of attention
            block = {"attn_norm": (e,), "ffn_norm": (e,), "shortconv.conv": (e, 3)}
            block |= {"shortconv.in_proj": (3 * e, e), "shortconv.out_proj": (e, e)}
        if experts := shape.experts[0]:
            block |= {
                "ffn_gate_inp": (experts, e), "ffn_gate_exps": (experts, f, e), "ffn_up_exps": (experts, f, e),
                "ffn_down_exps": (experts, e, f),
            }  # fmt: skip
        else:
            block |= {"ffn_gate": (f, e), "ffn_up": (f, e), "ffn_down": (e, f)}
        found += [(f"blk.{layer}.{name}.weight", dims) for name, dims in block.items()]
        if shape.arch == "qwen2":
            found += [(f"blk.{layer}.attn_{n}.bias", (size,)) for n, size in (("q", q), ("k", kv), ("v", kv))]
    return [*found, *shape.added]


def _add(writer: Any, name: str, dims: tuple[int, ...], kind: Any) -> None:
    import numpy as np
    from gguf.constants import GGML_QUANT_SIZES

    per_block, block_bytes = GGML_QUANT_SIZES[kind]
    count = 1
    for dim in dims:
        count *= dim
    byte_dims = (*dims[:-1], dims[-1] // per_block * block_bytes)
    plain = kind.name in ("F32", "F16")
    dtype = {"F32": np.float32, "F16": np.float16}.get(kind.name, np.uint8)
    writer.add_tensor_info(
        name, dims if plain else byte_dims, np.dtype(dtype), count // per_block * block_bytes, None if plain else kind
    )
