"""How much memory a model takes when it is loaded with given options: a sum of parts, for the processor and each GPU.

From the header alone: no engine is asked, so that a whole list of models can be estimated at once. For a worker that
generates, or with `LoadOptions.embeddings` one that embeds. The parts are llama.cpp's own buffers (weights, KV cache,
compute, output) and what a worker takes beside them; `docs/inference.md` has the table of how far off they were.
Models with recurrent layers or latent attention are marked `rough`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from msgspec import Struct

from ..gguf import GGUFInfo, TensorInfo
from ..worker.options import LoadOptions
from ..worker.sizes import CELL_STEP, DEFAULT_CTX, PLAIN_ATTENTION_BYTES, EmbeddingSizes, embedding_sizes
from .graph import F32, Step, compute_bytes, scratch_bytes
from .layers import Layer, ModelShape, model_shape
from .need import MemoryNeed
from .repack import repacked_bytes

__all__ = ["Weights", "cells_of", "memory_need", "sizes_to_embed", "weights_of"]

MOST_DRAFTED = 48
"""The worker's rule (`worker/speculation.py`), tested to be the same."""
KV_BYTES = {"f16": (2, 1), "q8_0": (34, 32), "q4_0": (18, 32)}
"""Bytes and elements of a block."""
BASE = 48 << 20
"""A worker without a model: Python, numpy, the engine's libraries."""
PER_TOKEN = 150
"""Bytes of memory for each entry of the vocabulary, and for each merge of it."""
GPU_BASE = 300 << 20
"""What a GPU's driver takes for a process that uses it. Measured on no machine yet."""


class Weights(Struct, frozen=True):
    """A model's weights by place. `layers`: bytes of each block; `head`: of the output; `rest`: what is looked up,
    which stays with the processor. `repacked_layers`, `repacked_head`: of their rewritten copies; what is not rewritten
    of a block is `plain_layers`, of the head `plain_head`.
    """

    layers: list[int]
    plain_layers: list[int]
    repacked_layers: list[int]
    head: int
    plain_head: int
    repacked_head: int
    rest: int


def weights_of(
    tensors: Mapping[str, TensorInfo], n_layer: int, features: Collection[str], *, repack: bool, tied: bool
) -> Weights:
    """Sort a model's tensors by the layer they belong to. `features`: the CPU's. `tied`: the table of tokens is also
    the output.
    """
    layers, plain, copies = [0] * n_layer, [0] * n_layer, [0] * n_layer
    head = plain_head = repacked_head = rest = 0
    for name, tensor in tensors.items():
        copy = repacked_bytes(name, tensor, features) if repack else 0
        first, _, after = name.removeprefix("enc.").partition(".")
        number = after.partition(".")[0]
        if first == "blk" and number.isdigit() and int(number) < n_layer:
            at = int(number)
            layers[at] += tensor.size
            copies[at] += copy
            plain[at] += 0 if copy else tensor.size
        elif first.startswith("output"):
            head += tensor.size
            repacked_head += copy
            plain_head += 0 if copy else tensor.size
        else:
            rest += tensor.size
    if tied and (table := tensors.get("token_embd.weight")):
        # Looked up in the file's form, multiplied with in the rewritten.
        head += table.size
        repacked_head += repacked_bytes("token_embd.weight", table, features) if repack else 0
    return Weights(layers, plain, copies, head, plain_head, repacked_head, rest)


def sizes_to_embed(shape: ModelShape, options: LoadOptions) -> EmbeddingSizes:
    """The sizes of the context in which a worker embeds with this model."""
    return embedding_sizes(options, whole=shape.whole, n_vocab=shape.vocab, n_ctx_train=shape.context)


def cells_of(options: LoadOptions, trained: int) -> tuple[int, int]:
    """The context of one request and the cells of all, as a worker that generates chooses them."""
    n_ctx = options.n_ctx if options.n_ctx is not None else min(trained or DEFAULT_CTX, DEFAULT_CTX)
    n_cells = options.n_cells
    if n_cells is None:
        n_cells = max(n_ctx, min(_stepped(n_ctx) * options.n_seq, DEFAULT_CTX))
    return n_ctx, _stepped(n_cells)


def memory_need(
    info: GGUFInfo,
    tensors: Mapping[str, TensorInfo],
    options: LoadOptions,
    *,
    features: Collection[str] = (),
    gpu_layers: Iterable[int] = (),
    projector: int = 0,
    adapters: int = 0,
) -> list[MemoryNeed]:
    """What the processor needs (first) and each GPU, one for each entry of `gpu_layers`: how many layers it gets, the
    first GPU the first ones of those that go to GPUs; the output counts as the last layer. `projector`, `adapters`:
    bytes of what comes with it; a worker that embeds has neither.
    """
    shape = model_shape(info, tensors)
    on_gpus = list(gpu_layers)
    if options.embeddings:
        projector = adapters = 0
    repack = options.repack and not any(on_gpus)  # with a GPU, weights that stay are in memory it can read
    weights = weights_of(tensors, info.block_count, features, repack=repack, tied=shape.tied)
    context = _to_embed(shape, options) if options.embeddings else _to_generate(shape, options, on_gpus)
    step = context.step
    buffer = compute_bytes(shape, step)
    # Without flash attention V is stored turned, in rows as long as the longest of any layer.
    padded = 0 if step.flash else max(layer.v for layer in shape.layers)
    caches = [_cache(layer, options, context, padded) for layer in shape.layers]
    caches += [0] * (info.block_count - len(caches))

    total = info.block_count + 1
    begin = max(0, total - sum(on_gpus))
    host_layers = min(begin, info.block_count)
    head_here = begin == total
    host_weights = weights.rest + sum(weights.plain_layers[:host_layers]) + (weights.plain_head if head_here else 0)
    host_copies = sum(weights.repacked_layers[:host_layers]) + (weights.repacked_head if head_here else 0)
    needs = [
        MemoryNeed(
            weights=host_weights,
            repacked=host_copies,
            cache=sum(caches[:host_layers]),
            compute=buffer if host_layers else _inputs(shape, step),
            scratch=scratch_bytes(shape, step) if host_layers else 0,
            output=context.output,
            projector=0 if on_gpus else projector,
            adapters=adapters,
            base=BASE + PER_TOKEN * (shape.vocab + info.lengths.get("tokenizer.ggml.merges", 0)),
        )
    ]
    for number, count in enumerate(on_gpus):
        pictures = projector if number == 0 else 0  # mtmd takes the first GPU, if no layer of the model is there
        end = min(begin + count, total)
        blocks = slice(begin, min(end, info.block_count))
        needs.append(
            MemoryNeed(
                weights=sum(weights.layers[blocks]) + (weights.head if end == total and count else 0),
                cache=sum(caches[blocks]),
                compute=buffer if count else 0,
                projector=pictures,
                base=GPU_BASE if count or pictures else 0,
            )
        )
        begin = end
    return needs


class _Context(Struct, frozen=True):
    """What a worker's context is made for. `step`: the largest. `kept`: cells of the KV cache. `n_seq`: sequences with
    a state of their own. `output`: bytes of logits and embeddings.
    """

    step: Step
    kept: int
    n_seq: int
    output: int


def _to_generate(shape: ModelShape, options: LoadOptions, on_gpus: Collection[int]) -> _Context:
    n_ctx, n_cells = cells_of(options, shape.context)
    part = _stepped(n_ctx)
    split = _is_split(shape, options, n_cells, part)
    streams, cells = (options.n_seq, part) if split else (1, n_cells)
    n_tokens = _multiple(min(cells * streams, options.n_batch), options.n_seq)
    outputs = options.n_seq + (MOST_DRAFTED if options.speculate else 0)
    flash = split or _is_flash(shape, options, n_cells, gpu=bool(on_gpus))
    step = Step(n_tokens, min(n_tokens, outputs), cells, flash, quantised=options.kv_type != "f16")
    return _Context(step, cells * streams, options.n_seq, output=shape.vocab * outputs * F32)


def _to_embed(shape: ModelShape, options: LoadOptions) -> _Context:
    sizes = sizes_to_embed(shape, options)
    n_tokens = _multiple(sizes.n_batch, sizes.n_seq)
    cells = sizes.n_cells if shape.cached else n_tokens
    step = Step(n_tokens, sizes.n_batch, cells, flash=True, quantised=options.kv_type != "f16")
    most = sizes.n_ctx if shape.whole else sizes.n_batch  # tokens that a decode ever has
    kept = cells if shape.cached else 0
    return _Context(step, kept, sizes.n_seq, output=(shape.vocab + shape.out) * most * F32)


def _cache(layer: Layer, options: LoadOptions, context: _Context, padded: int) -> int:
    """Bytes of a layer's cache and state.

    Windows are not counted on: llama.cpp's default is a whole cache for them too, without which a prefix that was read
    once could not be used again.
    """
    size, block = KV_BYTES[options.kv_type]
    v = max(layer.v, padded) if layer.v else 0
    return (layer.k + v) * context.kept * size // block + layer.state * context.n_seq * F32


def _is_split(shape: ModelShape, options: LoadOptions, n_cells: int, part: int) -> bool:
    cost = 4 * 4 * shape.embd * len(shape.layers)
    return cost * n_cells > shape.n_params * 2 and part * options.n_seq <= n_cells


def _is_flash(shape: ModelShape, options: LoadOptions, n_cells: int, *, gpu: bool) -> bool:
    scores = n_cells * options.n_batch * shape.heads * F32
    return gpu or options.kv_type != "f16" or scores > PLAIN_ATTENTION_BYTES


def _inputs(shape: ModelShape, step: Step) -> int:
    """What the processor prepares for a GPU's step: embeddings and masks."""
    return 2 * shape.embd * step.n_tokens * F32 + step.cells * step.n_tokens * (2 if step.flash else F32)


def _stepped(number: int) -> int:
    return _multiple(number, CELL_STEP)


def _multiple(number: int, of: int) -> int:
    """The next multiple."""
    return -(-number // of) * of
