"""Puts the parts together: from a file and options to a scheduler that is ready, and a way to make prompts
for it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from ..markers import THINK_OPEN
from ..toolcalls import form_of
from .adapters import apply_adapters
from .context import CELL_STEP, Context
from .embedder import Embedder
from .embedding_context import EmbeddingContext
from .images import Projector
from .model import EMBEDS_ONLY, Model
from .native import Native, load_native, require_gpu
from .options import LoadOptions
from .prompts import Prompts
from .protocol import Embedded, Failed
from .refusal import Refusal
from .reply import ModelInfo
from .scheduler import Emit, Scheduler
from .sizes import DEFAULT_CTX
from .state import StateStore, identity_of
from .threads import ThreadGovernor, usable_cores

__all__ = ["make_embedding_engine", "make_engine"]

FIRST_LOOK = 0.03
MOST_CELLS = 2**31 - CELL_STEP
"""llama.cpp numbers the cells with 32 bits; more would wrap around."""

Progress = Callable[[float], bool]


def make_engine(
    engine_dir: Path, path: str, options: LoadOptions, emit: Emit, progress: Progress
) -> tuple[ModelInfo, Prompts, Scheduler]:
    """Load the model and make its context, in the calling thread; this thread must also run the scheduler.

    Raises Refusal: `model_load_failed`, `engine_broken`.
    """
    began = time.perf_counter()
    native, model, governor = _load(engine_dir, path, options, progress)
    n_ctx, n_cells = _sizes(model, options)
    context = Context(native, model, options, n_ctx, n_cells, governor.threads)
    apply_adapters(native, model, context, options.lora)
    if not native.c.llama_get_memory(context.handle):
        raise Refusal("model_load_failed", EMBEDS_ONLY, reason="no KV cache")
    projector = None
    if options.projector is not None:
        projector = Projector(
            native, model, context.handle, options.projector, n_batch=options.n_batch, threads=governor.threads
        )
    scheduler = Scheduler(
        native, model, context, n_seq=options.n_seq, n_ctx=n_ctx, n_cells=n_cells,
        max_queue=options.max_queue, emit=emit, governor=governor, states=_states(native, model, path, options),
        memory=options.memory_bytes,
        speculate=options.speculate, projector=projector,
    )  # fmt: skip
    info = _info(native, model, governor, began, n_ctx, n_cells, options.n_seq)
    return info, Prompts(model, projector), scheduler


def make_embedding_engine(
    engine_dir: Path, path: str, options: LoadOptions, emit: Callable[[Embedded | Failed], None], progress: Progress
) -> tuple[ModelInfo, Prompts, Embedder]:
    """The same for `options.embeddings`: with an embedder in place of the scheduler."""
    began = time.perf_counter()
    native, model, governor = _load(engine_dir, path, options, progress)
    context = EmbeddingContext(native, model, options, governor.threads)
    embedder = Embedder(context, n_vocab=model.n_vocab, max_queue=options.max_queue, emit=emit, governor=governor)
    info = _info(native, model, governor, began, context.n_ctx, context.n_cells, context.n_seq)
    return info, Prompts(model), embedder


def _load(
    engine_dir: Path, path: str, options: LoadOptions, progress: Progress
) -> tuple[Native, Model, ThreadGovernor]:
    governor = ThreadGovernor(options.threads or usable_cores(), adapt=options.threads is None)
    native = load_native(engine_dir)
    native.c.llama_backend_init()
    if options.variant != "cpu":
        require_gpu(options.variant)
    model = Model(native, path, options, progress)
    _check_counts(options)
    governor.look(FIRST_LOOK)  # what others did during the load is what they will do now
    return native, model, governor


def _info(
    native: Native, model: Model, governor: ThreadGovernor, began: float, n_ctx: int, n_cells: int, n_seq: int
) -> ModelInfo:
    return ModelInfo(
        n_ctx=n_ctx, n_ctx_train=model.n_ctx_train, n_cells=n_cells, n_seq=n_seq,
        n_vocab=model.n_vocab, n_params=model.n_params, size=model.size, description=model.description,
        eos=model.eos, has_template=model.chat_template is not None, threads=governor.most,
        load_seconds=time.perf_counter() - began, engine=native.version, pid=os.getpid(),
        tools=form_of(model.chat_template), reasons=THINK_OPEN in (model.chat_template or ""),
    )  # fmt: skip


def _states(native: Native, model: Model, path: str, options: LoadOptions) -> StateStore | None:
    """Where this model's conversations are kept. Everything that changes their numbers is part of the identity."""
    if options.state_dir is None:
        return None
    parts = [native.version, model.description, options.kv_type]
    parts += [f"{adapter.path}*{adapter.scale}" for adapter in options.lora]
    try:
        identity = identity_of(parts, [Path(path), *(Path(adapter.path) for adapter in options.lora)])
    except OSError:
        return None
    return StateStore(Path(options.state_dir), identity, options.state_bytes)


def _sizes(model: Model, options: LoadOptions) -> tuple[int, int]:
    """The context of one request, and the cells of all."""
    n_ctx = options.n_ctx if options.n_ctx is not None else min(model.n_ctx_train or DEFAULT_CTX, DEFAULT_CTX)
    n_cells = options.n_cells
    if n_cells is None:
        part = -(-n_ctx // CELL_STEP) * CELL_STEP
        n_cells = max(n_ctx, min(part * options.n_seq, DEFAULT_CTX))
    if not 1 <= n_ctx <= n_cells:
        raise Refusal("model_load_failed", f"n_ctx is {n_ctx}; it must be between 1 and n_cells ({n_cells})")
    if n_cells > MOST_CELLS:
        raise Refusal("model_load_failed", f"n_cells is {n_cells}; it must be between 1 and {MOST_CELLS}")
    return n_ctx, -(-n_cells // CELL_STEP) * CELL_STEP


def _check_counts(options: LoadOptions) -> None:
    if not 1 <= options.n_seq <= 256:
        raise Refusal("model_load_failed", f"n_seq is {options.n_seq}; it must be between 1 and 256")
    if not options.n_seq <= options.n_batch <= 65_536:
        raise Refusal("model_load_failed", f"n_batch is {options.n_batch}; it must be between n_seq and 65536")
    if options.threads is not None and not 1 <= options.threads <= 512:
        raise Refusal("model_load_failed", f"threads is {options.threads}; it must be between 1 and 512")
