"""What llama.cpp makes of each layer of a model, as far as it takes memory: from the header alone.

The names of keys and the patterns are llama.cpp's (`llama-model.cpp`, `llama-hparams.cpp`, `models/*.cpp`). Which
parts a layer has is told by its tensors, so that an architecture nobody has heard of is still counted by what is in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from ..gguf import GGUFInfo, TensorInfo

__all__ = ["Layer", "ModelShape", "model_shape"]

_LAYER = re.compile(r"(?:enc\.)?blk\.(\d+)\.([a-z0-9_]+)")
_RECURRENT = ("ssm_", "shortconv", "time_mix", "attn_conv")

_PATTERNS: dict[str, tuple[int, bool]] = {
    "gemma2": (2, False), "gemma3": (6, False), "gemma3n": (5, False), "cohere2": (4, False),
    "cohere2moe": (4, True), "llama4": (4, False), "gpt-oss": (2, False), "exaone4": (4, False),
    "exaone-moe": (4, False), "olmo2": (4, False), "smallthinker": (4, True), "afmoe": (4, False),
    "mellum": (4, False), "laguna": (4, True), "muse-glimmer": (4, False), "plamo3": (8, False), "step35": (4, True),
    "gemma-embedding": (6, False), "modern-bert": (3, True),
}  # fmt: skip
"""Every how many layers one sees everything, and whether it is the first of them, where the file does not say."""
_WINDOWS = {"gemma2": 4096, "exaone4": 4096}
"""Windows of architectures whose file need not name one."""
_CHUNK = 8192  # llama4, in models/llama4.cpp
_DIFFUSERS = frozenset(("dream", "llada", "llada-moe", "rnd1"))
"""Without a KV cache (`llama_model::create_memory`), but with logits."""
_ENCODERS = frozenset((
    "bert", "jina-bert-v2", "jina-bert-v3", "nomic-bert", "nomic-bert-moe", "neo-bert", "eurobert", "modern-bert",
    "gemma-embedding",
))  # fmt: skip
"""Without a KV cache, and without logits."""
_T5 = "t5encoder"  # no logits either, and a KV cache that it does not use


class Layer(Struct, frozen=True):
    """One layer; all counts are of elements for one token, but `state`: F32 numbers for each sequence.

    `k`, `v`: what it keeps in the KV cache. `window`: it sees only so many tokens back (0: all). `q`: of the queries
    of all `heads`. `out`: of what attention gives. `ff`: of the widest feed-forward part, `down`: of what goes into its
    last matrix; `gated`: it has two of the wide ones. `experts` and `used`: of a mixture. `shared`: of the expert all
    tokens go through. `fused`: queries, keys and values come from one matrix. `normed_after`: norms follow the parts
    instead of going before them.
    """

    k: int
    v: int
    window: int
    state: int
    heads: int
    q: int
    out: int
    ff: int
    down: int
    gated: bool
    experts: int
    used: int
    shared: int
    fused: bool
    normed_after: bool


class ModelShape(Struct, frozen=True):
    """A model as far as its memory goes. `context`: tokens it was trained for. `vocab`: of its tokens. `out`: numbers
    in an embedding it makes.

    `cached`: tokens look at a KV cache, otherwise at their own batch. `whole`: they look at those after them, too, so
    that a text must be in one batch. `logits`: it computes them. `tied`: its table of tokens is also its output.
    `rotates`: a quantised cache is rotated, which takes one more buffer. `known`: whether the computation is one that
    the estimate of the compute buffer was made for.
    """

    architecture: str
    context: int
    embd: int
    vocab: int
    layers: list[Layer]
    n_params: int
    heads: int
    out: int
    cached: bool
    whole: bool
    logits: bool
    tied: bool
    rotates: bool
    known: bool

    @property
    def recurrent(self) -> bool:
        """Whether any layer keeps a state that is no cache of tokens."""
        return any(layer.state for layer in self.layers)


def model_shape(info: GGUFInfo, tensors: Mapping[str, TensorInfo]) -> ModelShape:
    """What `info` (of the first file) and the tensors of all files say. Wrong types count as absent."""
    keys = _Keys(info)
    parts: dict[int, dict[str, TensorInfo]] = {}
    for name, tensor in tensors.items():
        if found := _LAYER.match(name):
            parts.setdefault(int(found[1]), {})[found[2]] = tensor
    trunk = max(1, info.block_count - keys.number("nextn_predict_layers"))
    layers = [_layer(keys, number, parts.get(number, {}), info) for number in range(trunk)]
    heads = keys.number("attention.head_count", default=1)
    head = keys.number("attention.key_length", default=info.embedding_length // max(1, heads))
    arch = info.architecture
    cached = arch not in _ENCODERS | _DIFFUSERS
    logits = arch not in _ENCODERS and arch != _T5
    return ModelShape(
        architecture=info.architecture,
        context=info.context_length,
        embd=info.embedding_length,
        vocab=info.n_vocab or keys.number("vocab_size"),
        layers=layers,
        n_params=sum(_elements(tensor) for tensor in tensors.values()),
        heads=heads,
        out=keys.number("embedding_length_out", default=info.embedding_length),
        cached=cached,
        whole=not cached or arch == _T5 or info.metadata.get(f"{arch}.attention.causal") is False,
        logits=logits,
        tied="output.weight" not in tensors and (logits or arch in ("gemma-embedding", _T5)),
        rotates=head % 64 == 0,
        known=not any(layer.state for layer in layers) and not keys.number("attention.key_length_mla") and arch != _T5,
    )


def _layer(keys: _Keys, number: int, parts: Mapping[str, TensorInfo], info: GGUFInfo) -> Layer:
    arch = info.architecture
    window = keys.window(number)
    suffix = "_swa" if window else ""
    heads = keys.number("attention.head_count", number, 1)
    kv_heads = keys.number("attention.head_count_kv", number, heads)
    head = info.embedding_length // max(1, keys.number("attention.head_count", 0, 1))
    key = keys.number(f"attention.key_length{suffix}", number) or keys.number("attention.key_length", number, head)
    value = keys.number(f"attention.value_length{suffix}", number) or keys.number(
        "attention.value_length", number, head
    )
    attends = any(name.startswith(("attn_k", "attn_qkv", "attn_kv")) for name in parts)
    shared_from = _cache_ends(keys, arch, info.block_count)
    caches = attends and number < shared_from
    latent = keys.number("attention.key_length_mla")
    experts = _rows(parts, "ffn_gate_inp")
    wide = _rows(parts, "ffn_up_exps", "ffn_gate_up_exps") if experts else 0
    q = _rows(parts, "attn_q", "attn_q_b") or heads * key
    return Layer(
        k=key * kv_heads if caches else 0,
        v=value * kv_heads if caches and not latent else 0,
        window=window,
        state=_state(keys, number, info) if any(name.startswith(_RECURRENT) for name in parts) else 0,
        heads=heads,
        q=max(q, heads * key) if attends else 0,
        out=value * heads if attends else 0,
        ff=(wide // 2 if "ffn_gate_up_exps" in parts else wide) or _rows(parts, "ffn_up", "ffn_gate"),
        down=_columns(parts, "ffn_down"),
        gated="ffn_gate" in parts,
        experts=experts if wide else 0,
        used=max(1, keys.number("expert_used_count", number, 1)) if wide else 0,
        shared=_rows(parts, "ffn_up_shexp"),
        fused="attn_qkv" in parts,
        normed_after="layer_output_norm" in parts,
    )


def _cache_ends(keys: _Keys, arch: str, blocks: int) -> int:
    """The layer from which on no layer has a cache of its own."""
    if arch == "gemma3n":
        return 20
    return blocks - keys.number("attention.shared_kv_layers") if arch == "gemma4" else blocks


def _state(keys: _Keys, number: int, info: GGUFInfo) -> int:
    """The numbers a recurrent layer keeps for a sequence (`llama_hparams::n_embd_r` and `n_embd_s`)."""
    embd = info.embedding_length
    if wkv := keys.number("wkv.head_size"):
        return keys.number("token_shift_count", default=2) * embd + embd * wkv
    if conv := keys.number("shortconv.l_cache"):
        return embd * (conv - 1)
    inner, state = keys.number("ssm.inner_size"), keys.number("ssm.state_size")
    kernel, groups = keys.number("ssm.conv_kernel"), keys.number("ssm.group_count")
    if kda := keys.number("kda.head_dim"):
        heads = keys.number("attention.head_count", number, 1)
        return 3 * max(kernel - 1, 3) * heads * kda + kda * kda * heads
    return max(0, kernel - 1) * (inner + 2 * groups * state) + state * inner


class _Keys:
    """The numbers of a model's architecture, by their name without it."""

    def __init__(self, info: GGUFInfo) -> None:
        self._info = info

    def number(self, name: str, layer: int = 0, default: int = 0) -> int:
        """A number, or `layer`'s where there is one for each."""
        value: Any = self._info.metadata.get(f"{self._info.architecture}.{name}")
        if isinstance(value, list):
            value = value[layer] if layer < len(value) else None
        return int(value) if isinstance(value, int) and 0 <= value < 1 << 31 else default

    def window(self, layer: int) -> int:
        """How many tokens back a layer sees; 0: all."""
        arch = self._info.architecture
        size = self.number("attention.sliding_window", default=_WINDOWS.get(arch, 0))
        if arch == "llama4":
            size = _CHUNK
        pattern: Any = self._info.metadata.get(f"{arch}.attention.sliding_window_pattern")
        if not size or (pattern is None and arch not in _PATTERNS):
            return 0
        if isinstance(pattern, list):
            return size if layer < len(pattern) and pattern[layer] else 0
        every, first = _PATTERNS.get(arch, (1, False))
        if isinstance(pattern, int) and not isinstance(pattern, bool):
            every = pattern
        if every <= 0:
            return size
        full = layer % every == 0 if first else layer % every == every - 1
        return 0 if full else size


def _rows(parts: Mapping[str, TensorInfo], *names: str) -> int:
    """The rows of the first of these tensors that is there; 0: none is."""
    for name in names:
        if (tensor := parts.get(name)) and len(tensor.dims) > 1:
            return tensor.dims[1]
    return 0


def _columns(parts: Mapping[str, TensorInfo], name: str) -> int:
    """The numbers each row of a tensor has; 0: it is not there."""
    return parts[name].dims[0] if name in parts and parts[name].dims else 0


def _elements(tensor: TensorInfo) -> int:
    count = 1
    for dim in tensor.dims:
        count *= dim
    return count
