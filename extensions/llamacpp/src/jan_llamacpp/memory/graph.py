"""The size of llama.cpp's compute buffer, found by doing what its allocator does: place the results of a step one
after the other, free each when its last reader is done, and look how far the buffer grows.

The computation is that of a layer as `llama-graph.cpp` builds it (attention with or without flash attention, over a
cache or over the batch itself; a plain or a mixed feed-forward part); the allocator is ggml-alloc.c's: the best fitting
hole, else the end. Only sizes: nothing is computed, and of layers that are the same two are looked at.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from .layers import Layer, ModelShape

__all__ = ["Step", "compute_bytes", "scratch_bytes"]

_ALIGN = 64
F32 = 4


class _Arena:
    """Offsets as ggml-alloc gives them. `peak` is the size the buffer needs."""

    def __init__(self) -> None:
        self.peak = 0
        self._holes: list[tuple[int, int]] = []  # (offset, size), in order, without the endless last one
        self._end = 0
        self._sizes: dict[int, int] = {}

    def take(self, size: int) -> int:
        """Room for `size` bytes; its handle. Nothing takes none."""
        size = -(-size // _ALIGN) * _ALIGN
        if not size:
            return -1
        fitting = [hole for hole in self._holes if hole[1] >= size]
        if fitting:
            # The last of the smallest ones, as ggml-alloc's `<=` takes it.
            offset, room = min(reversed(fitting), key=lambda hole: hole[1])
            at = self._holes.index((offset, room))
            self._holes[at : at + 1] = [(offset + size, room - size)] if room > size else []
        else:
            offset, self._end = self._end, self._end + size
        self._sizes[offset] = size
        self.peak = max(self.peak, offset + size)
        return offset

    def free(self, *handles: int) -> None:
        for offset in handles:
            if offset < 0:
                continue
            self._holes.append((offset, self._sizes.pop(offset)))
            self._holes.sort()
            joined: list[tuple[int, int]] = []
            for start, size in self._holes:
                if joined and sum(joined[-1]) == start:
                    joined[-1] = (joined[-1][0], joined[-1][1] + size)
                else:
                    joined.append((start, size))
            if joined and sum(joined[-1]) == self._end:
                self._end = joined.pop()[0]
            self._holes = joined


class Step(Struct, frozen=True):
    """A step of `n_tokens` tokens, of which `n_outputs` get logits, or are embeddings. `cells`: that a token may look
    at, of the cache, or of the step itself where there is none. `quantised`: the cache is.
    """

    n_tokens: int
    n_outputs: int
    cells: int
    flash: bool
    quantised: bool


def compute_bytes(shape: ModelShape, step: Step) -> int:
    """The buffer for one step."""
    arena = _Arena()
    for_attention = _inputs(arena, shape, step)
    stream = arena.take(shape.embd * step.n_tokens * F32)
    kinds = dict.fromkeys(msgspec.structs.replace(layer, window=0) for layer in shape.layers[:-1])
    for layer in [kind for kind in kinds for _ in range(2)]:  # more of a kind only take the holes the second left
        attended = _attended(arena, layer, shape, step, stream)
        stream = _feed_forward(arena, layer, attended, shape.embd * F32, step.n_tokens)
    last, embd = shape.layers[-1], shape.embd * F32 * step.n_outputs
    attended = _attended(arena, last, shape, step, stream, last=for_attention)
    stream = _feed_forward(arena, last, attended, shape.embd * F32, step.n_outputs)
    normed = arena.take(embd)
    arena.free(stream)
    if shape.logits:
        arena.take(shape.vocab * step.n_outputs * F32)
    arena.free(normed)
    return arena.peak


def scratch_bytes(shape: ModelShape, step: Step) -> int:
    """What the CPU's matrix products take beside the buffer: the right side in the left one's format (ggml_graph_plan).

    That are a step's numbers in Q8_K, the widest of the quantised formats with 292 bytes for 256 numbers, or the scores
    of attention in F16, as the cache is; flash attention has none, and without a cache nothing is converted.
    """
    scores = 0 if step.flash or not shape.cached else step.cells * shape.heads * step.n_tokens * 2
    widest = max(max(layer.ff * max(1, layer.used), layer.out, shape.embd) for layer in shape.layers)
    return max(scores, widest * step.n_tokens * 292 // 256)


def _inputs(arena: _Arena, shape: ModelShape, step: Step) -> list[int]:
    """What is filled in before a step: embeddings in place of tokens, positions, masks, and where in the cache. Returns
    those that nobody needs after the last layer's attention.
    """
    arena.take(shape.embd * step.n_tokens * F32)
    arena.take(step.n_tokens * 4)
    arena.take(step.n_outputs * 4)
    widest = max(layer.v for layer in shape.layers)
    taken = []
    for _ in {bool(layer.window) for layer in shape.layers if layer.k}:  # a cache each, with and without a window
        if shape.cached:
            taken.append(arena.take(step.n_tokens * 8))
            # Without flash attention V is stored number by number.
            taken.append(arena.take(step.n_tokens * 8 * (1 if step.flash else widest)))
        taken.append(arena.take(step.cells * step.n_tokens * (2 if step.flash else F32)))
    if step.quantised and shape.rotates:
        taken.append(arena.take(2 * 128 * 128 * F32))
    return taken


def _attended(
    arena: _Arena, layer: Layer, shape: ModelShape, step: Step, stream: int, *, last: Sequence[int] | None = None
) -> int:
    """A layer up to its feed-forward part, `stream` included. After the last layer's attention `last` is freed, and the
    outputs are picked, also when they are all.
    """
    embd, rows = shape.embd * F32, step.n_tokens
    if layer.state:
        stream = _recurrent(arena, layer, stream, embd * rows)
    if not layer.q:
        attended = arena.take(embd * rows)
    elif shape.cached:
        attended = _attention(arena, layer, shape, step)
    else:
        attended = _attention_within(arena, layer, shape, step)
    if last is not None:
        arena.free(*last)
        rows = step.n_outputs
        fewer = arena.take(embd * rows), arena.take(embd * rows)
        arena.free(attended, stream)
        attended, stream = fewer
    arena.free(stream)  # added to what attention gave, in its place
    return _normed(arena, attended, embd * rows) if layer.normed_after else attended


def _attention(arena: _Arena, layer: Layer, shape: ModelShape, step: Step) -> int:
    n_tokens, embd = step.n_tokens, shape.embd * F32
    rotated = step.quantised and shape.rotates
    normed = arena.take(embd * n_tokens)
    q, v, k = (size * n_tokens * F32 for size in (layer.q, layer.v, layer.k))
    if layer.fused:
        all_three = arena.take(q + v + k)
        arena.free(normed)
        parts = [arena.take(size) for size in (q, k)]
        queries, keys = parts
        arena.free(all_three, keys)
    else:
        queries, values, keys = arena.take(q), arena.take(v), arena.take(k)
        arena.free(normed)
        if rotated:
            turned = arena.take(q), arena.take(k), arena.take(v)
            arena.free(queries, keys, values)
            queries, keys, values = turned
        arena.free(keys, values)  # they are in the cache now
    if step.flash:
        result = arena.take(layer.out * n_tokens * F32)
        arena.free(queries)
        if rotated:
            turned_back = arena.take(layer.out * n_tokens * F32)
            arena.free(result)
            result = turned_back
    else:
        scores = arena.take(step.cells * layer.heads * n_tokens * F32)
        arena.free(queries)
        weighted = arena.take(layer.out * n_tokens * F32)
        arena.free(scores)
        result = arena.take(layer.out * n_tokens * F32)
        arena.free(weighted)
    projected = arena.take(embd * n_tokens)
    arena.free(result)
    return projected


def _attention_within(arena: _Arena, layer: Layer, shape: ModelShape, step: Step) -> int:
    """The same without a cache: keys and values stay until they are read."""
    n_tokens, embd = step.n_tokens, shape.embd * F32
    normed = -1 if layer.normed_after else arena.take(embd * n_tokens)
    q, v, k = (size * n_tokens * F32 for size in (layer.q, layer.v, layer.k))
    if layer.fused:
        values = arena.take(q + v + k)  # a part of all three
        arena.free(normed)
        queries, keys = arena.take(q), arena.take(k)
    else:
        queries, keys, values = arena.take(q), arena.take(k), arena.take(v)
        arena.free(normed)
    out = layer.out * n_tokens * F32
    if step.flash:
        half_keys = arena.take(k // 2)
        arena.free(keys)
        half_values = arena.take(v // 2)
        arena.free(values)
        result = arena.take(out)
        arena.free(queries, half_keys, half_values)
    else:
        turned = arena.take(v)
        arena.free(values)
        scores = arena.take(step.cells * layer.heads * n_tokens * F32)
        arena.free(queries, keys)
        weighted = arena.take(out)
        arena.free(turned, scores)
        result = arena.take(out)
        arena.free(weighted)
    projected = arena.take(embd * n_tokens)
    arena.free(result)
    return projected


def _normed(arena: _Arena, stream: int, size: int) -> int:
    """A norm that does not write in the place of what it reads, as ggml's LayerNorm."""
    normed = arena.take(size)
    arena.free(stream)
    return normed


def _feed_forward(arena: _Arena, layer: Layer, stream: int, embd: int, rows: int) -> int:
    """The rest of a layer, for `rows` tokens of `embd` bytes."""
    if not layer.ff:
        return stream
    embd *= rows
    normed = -1 if layer.normed_after else arena.take(embd)
    if layer.experts:
        out = _experts(arena, layer, embd, rows)
        if layer.shared:
            both = _gated(arena, layer.shared * rows * F32, embd)
            arena.free(both)
        arena.free(normed)
    else:
        wide = layer.ff * rows * F32
        up, gate = arena.take(wide), arena.take(wide) if layer.gated else -1
        arena.free(normed)
        if layer.gated or layer.ff != layer.down:
            joined = arena.take(layer.down * rows * F32)
            arena.free(gate, up)
        else:
            joined = up
        out = arena.take(embd)
        arena.free(joined)
    arena.free(stream)  # added in the place of `out`
    return _normed(arena, out, embd) if layer.normed_after else out


def _gated(arena: _Arena, wide: int, embd: int) -> int:
    gate, up = arena.take(wide), arena.take(wide)
    joined = arena.take(wide)
    arena.free(gate, up)
    out = arena.take(embd)
    arena.free(joined)
    return out


def _experts(arena: _Arena, layer: Layer, embd: int, rows: int) -> int:
    scores = arena.take(layer.experts * rows * F32)
    order = arena.take(layer.experts * rows * F32)
    weights = arena.take(layer.used * rows * F32)
    arena.free(scores)
    wide = layer.ff * layer.used * rows * F32
    up, gate = arena.take(wide), arena.take(wide)
    joined = arena.take(wide)
    arena.free(up, gate)
    answers = arena.take(embd * layer.used)
    arena.free(joined, order, weights)
    out = arena.take(embd)
    arena.free(answers)
    return out


def _recurrent(arena: _Arena, layer: Layer, stream: int, embd: int) -> int:
    """Not as llama.cpp builds it, which differs from one architecture to the next: input, state and output at once."""
    normed, inner, state = arena.take(embd), arena.take(4 * embd), arena.take(layer.state * F32)
    arena.free(normed)
    out = arena.take(embd)
    arena.free(inner, state, stream)
    return out
