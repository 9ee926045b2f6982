"""The network: a llama-architecture transformer in plain JAX, and its loss.

RMSNorm, rotary positions, grouped-query attention, SwiGLU, tied embeddings. Rotary pairs are the two halves
of a head here (cheap to compute); `export.py` reorders the rows into the interleaved pairs that llama.cpp
expects of the `llama` architecture. Not here: text, files, the optimiser, the training loop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Params = dict[str, Any]
Array = jax.Array
BLOCK = 128
"""Queries of one block of attention: a matter of speed only."""


@dataclass(frozen=True)
class Config:
    """Sizes of the network. Every matrix width is a multiple of 32, the block size of Q8_0."""

    vocab: int = 2048
    width: int = 256
    layers: int = 4
    heads: int = 8
    kv_heads: int = 4
    hidden: int = 768
    context: int = 1024
    rope_base: float = 10000.0
    eps: float = 1e-5

    @property
    def head(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads

    @property
    def kv_width(self) -> int:
        """Width of all key (or value) heads together."""
        return self.head * self.kv_heads


def parameter_count(params: Params) -> int:
    """Number of trained numbers."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))


def init(config: Config, seed: int) -> Params:
    """Fresh parameters. Matrices are stored (inputs, outputs); the layers are a list, not stacked."""
    rng = np.random.default_rng(seed)

    def normal(rows: int, columns: int, scale: float) -> Array:
        return jnp.asarray(rng.standard_normal((rows, columns), dtype=np.float32) * scale)

    width, out_scale = config.width, 1.0 / math.sqrt(2 * config.layers)
    layers = []
    for _ in range(config.layers):
        layers.append(
            {
                "attn_norm": jnp.ones(width),
                "qkv": normal(width, width + 2 * config.kv_width, width**-0.5),
                "out": normal(width, width, width**-0.5 * out_scale),
                "ffn_norm": jnp.ones(width),
                "gate_up": normal(width, 2 * config.hidden, width**-0.5),
                "down": normal(config.hidden, width, config.hidden**-0.5 * out_scale),
            }
        )
    return {"embed": normal(config.vocab, width, 0.02), "layers": layers, "norm": jnp.ones(width)}


def _rms(x: Array, gain: Array, eps: float) -> Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps) * gain


def _rope(x: Array, cos: Array, sin: Array) -> Array:
    """Rotates (batch, heads, time, head); cos and sin are (time, head / 2)."""
    left, right = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1)


def _attention(config: Config, qkv: Array, cos: Array, sin: Array, mask: Array) -> Array:
    batch, time, _ = qkv.shape
    groups = config.heads // config.kv_heads
    q, k, v = jnp.split(qkv, [config.width, config.width + config.kv_width], axis=-1)
    q = q.reshape(batch, time, config.heads, config.head).transpose(0, 2, 1, 3)
    k = k.reshape(batch, time, config.kv_heads, config.head).transpose(0, 2, 1, 3)
    v = v.reshape(batch, time, config.kv_heads, config.head).transpose(0, 2, 1, 3)
    q, k = _rope(q, cos, sin), _rope(k, cos, sin)
    # Query heads that share a key head are stacked along time: one larger product, not several small ones.
    q = q.reshape(batch, config.kv_heads, groups, time, config.head)
    parts = []
    # Queries go block by block, each against the keys up to its own end: the causally empty is not computed.
    for start in range(0, time, BLOCK):
        end = min(start + BLOCK, time)
        part = q[:, :, :, start:end].reshape(batch, config.kv_heads, groups * (end - start), config.head)
        scores = jnp.einsum("bhqd,bhkd->bhqk", part, k[:, :, :end]) * (config.head**-0.5)
        scores = scores.reshape(batch, config.kv_heads, groups, end - start, end) + mask[start:end, :end]
        weights = jax.nn.softmax(scores, axis=-1).reshape(batch, config.kv_heads, groups * (end - start), end)
        mixed = jnp.einsum("bhqk,bhkd->bhqd", weights, v[:, :, :end])
        parts.append(mixed.reshape(batch, config.kv_heads, groups, end - start, config.head))
    mixed = jnp.concatenate(parts, axis=3)
    mixed = mixed.reshape(batch, config.heads, time, config.head).transpose(0, 2, 1, 3)
    return mixed.reshape(batch, time, config.width)


def hidden_states(config: Config, params: Params, tokens: Array) -> Array:
    """The last layer's normalised output, (batch, time, width), for int32 tokens (batch, time)."""
    time = tokens.shape[1]
    rates = config.rope_base ** (-np.arange(0, config.head, 2, dtype=np.float64) / config.head)
    angles = np.outer(np.arange(time), rates)
    cos, sin = jnp.asarray(np.cos(angles), jnp.float32), jnp.asarray(np.sin(angles), jnp.float32)
    mask = jnp.asarray(np.triu(np.full((time, time), -1e9, np.float32), 1))
    x = params["embed"][tokens]
    for layer in params["layers"]:
        qkv = _rms(x, layer["attn_norm"], config.eps) @ layer["qkv"]
        x = x + _attention(config, qkv, cos, sin, mask) @ layer["out"]
        gate, up = jnp.split(_rms(x, layer["ffn_norm"], config.eps) @ layer["gate_up"], 2, axis=-1)
        x = x + (jax.nn.silu(gate) * up) @ layer["down"]
    return _rms(x, params["norm"], config.eps)


def learnt_loss(config: Config, params: Params, tokens: Array, learn: Array) -> Array:
    """Mean cross-entropy in nats over the learnt tokens of rows (batch, time + 1).

    Logits are computed for learnt tokens only; a batch of which more than 60 % are learnt loses the excess.
    """
    hidden = hidden_states(config, params, tokens[:, :-1]).reshape(-1, config.width)
    wanted = learn[:, 1:].reshape(-1)
    (places,) = jnp.nonzero(wanted, size=wanted.size * 6 // 10, fill_value=0)
    counts = (jnp.arange(places.size) < jnp.sum(wanted)).astype(jnp.float32)
    logits = hidden[places] @ params["embed"].T
    target = jnp.take_along_axis(logits, tokens[:, 1:].reshape(-1)[places][:, None], axis=-1)[:, 0]
    return jnp.sum((jax.nn.logsumexp(logits, axis=-1) - target) * counts) / jnp.maximum(jnp.sum(counts), 1.0)


def greedy_matches(config: Config, params: Params, tokens: Array, learn: Array) -> Array:
    """For each row, whether greedy decoding would give every learnt token: exact match without generating."""
    logits = hidden_states(config, params, tokens[:, :-1]) @ params["embed"].T
    right = jnp.argmax(logits, axis=-1) == tokens[:, 1:]
    return jnp.all(right | (learn[:, 1:] == 0.0), axis=-1)
