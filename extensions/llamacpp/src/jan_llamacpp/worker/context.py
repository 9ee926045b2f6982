"""The context: the KV cache and the decode call, with batch arrays of our own.

Must be created and used by one thread: OpenMP keeps a pool for each calling thread, and a second one halves
the speed. Decides nothing: what goes into a batch is the scheduler's business.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from .model import Model
from .native import KV_TYPES, Native
from .options import LoadOptions
from .refusal import Refusal
from .sizes import CELL_STEP, PLAIN_ATTENTION_BYTES
from .speculation import MOST_DRAFTED

__all__ = ["CELL_STEP", "Context"]

Row = np.ndarray[Any, np.dtype[np.float32]]


class Context:
    """`n_seq` sequences over a KV cache of `n_cells` tokens.

    The cache is unified: any sequence may have any number of its cells, and a common prefix is stored once. But every
    token then looks over the cells of all sequences, the idle ones too. Where that would cost more than the weights
    (a small model), the cache is split into equal parts, if `n_cells` has room for a whole context for each.

    Raises Refusal("model_load_failed") when there is no memory for it.
    """

    def __init__(
        self, native: Native, model: Model, options: LoadOptions, n_ctx: int, n_cells: int, threads: int
    ) -> None:
        self._native, c = native, native.c
        self._n_vocab = model.n_vocab
        params = c.llama_context_default_params()
        params.n_ctx, params.n_seq_max = n_cells, options.n_seq
        params.n_batch = params.n_ubatch = options.n_batch
        # Logits are wanted for one token of each sequence, and for guesses, not for every token of a prompt: some
        # 200 MB less at a 128 k vocabulary.
        self.n_outputs = options.n_seq + (MOST_DRAFTED if options.speculate else 0)
        params.n_outputs_max = self.n_outputs
        params.n_threads = params.n_threads_batch = threads
        part = -(-n_ctx // CELL_STEP) * CELL_STEP
        self.split = 4 * model.cost_of_cell * n_cells > model.n_params * 2 and part * options.n_seq <= n_cells
        if self.split:
            params.n_ctx = part * options.n_seq
        params.kv_unified, params.no_perf = not self.split, True
        params.type_k = params.type_v = KV_TYPES[options.kv_type]
        scores = n_cells * options.n_batch * int(c.llama_model_n_head(model.handle)) * 4
        plain = options.kv_type == "f16" and scores <= PLAIN_ATTENTION_BYTES and not self.split
        if plain and not c.llama_supports_gpu_offload():
            params.flash_attn_type = c.LLAMA_FLASH_ATTN_TYPE_DISABLED
        # An abort callback without Python in it: strlen() of a flag that is "" (go on) or one byte long
        # (stop).
        self._flag = ctypes.create_string_buffer(2)
        libc = ctypes.CDLL(None) if os.name == "posix" else ctypes.CDLL("msvcrt")
        params.abort_callback = ctypes.cast(libc.strlen, c.ggml_abort_callback)
        params.abort_callback_data = ctypes.cast(self._flag, ctypes.c_void_p)
        self.handle: Any = c.llama_init_from_model(model.handle, params)
        if not self.handle:
            raise Refusal("model_load_failed", f"no context of {n_cells} tokens could be made")
        self._memory = c.llama_get_memory(self.handle)
        self._decode = c.llama_decode
        self._rows: dict[int, Row] = {}
        self._pending: set[int] = set()  # copies and moves of cells that llama.cpp makes with the next decode
        self.n_batch = options.n_batch
        self._make_batch(c, options.n_batch)

    def _make_batch(self, c: Any, size: int) -> None:
        # One flat array a column: llama_batch_init would allocate for each row.
        int32, pointer = ctypes.c_int32, ctypes.POINTER(ctypes.c_int32)
        tokens, positions, ids, counts = ((int32 * size)() for _ in range(4))
        outputs = (ctypes.c_int8 * size)()
        base = ctypes.addressof(ids)
        seq_ids = (pointer * size)(*(ctypes.cast(base + 4 * i, pointer) for i in range(size)))
        counts[:] = [1] * size
        self._tokens, self._positions = np.ctypeslib.as_array(tokens), np.ctypeslib.as_array(positions)
        self._ids, self._outputs = np.ctypeslib.as_array(ids), np.ctypeslib.as_array(outputs)
        self._keep = (tokens, positions, ids, counts, outputs, seq_ids)
        self._batch = c.llama_batch(
            n_tokens=0,
            token=ctypes.cast(tokens, pointer),
            embd=None,
            pos=ctypes.cast(positions, pointer),
            n_seq_id=ctypes.cast(counts, pointer),
            seq_id=ctypes.cast(seq_ids, ctypes.POINTER(pointer)),
            logits=ctypes.cast(outputs, ctypes.POINTER(ctypes.c_int8)),
        )

    def put(self, at: int, seq: int, position: int, tokens: Sequence[int], outputs: int) -> int:
        """Write `tokens` of sequence `seq` into the batch from row `at`; returns the row after the last.

        `outputs`: logits are wanted for so many of the last of them, under those rows' numbers.
        """
        end = at + len(tokens)
        if end == at + 1:  # The common row: one token of a sequence that generates.
            self._tokens[at], self._positions[at] = tokens[0], position
        else:
            self._tokens[at:end] = tokens
            self._positions[at:end] = np.arange(position, position + len(tokens))
        self._ids[at:end] = seq
        self._outputs[at : end - outputs] = 0
        self._outputs[end - outputs : end] = 1
        return end

    def decode(self, rows: int) -> int:
        """Evaluate the first `rows` rows. 0: done; 1: no room in the cache; 2: aborted; below 0: an error."""
        self._batch.n_tokens = rows
        status = int(self._decode(self.handle, self._batch))
        if status == 0:
            self._pending.clear()
        return status

    def logits(self, row: int) -> Row:
        """The logits of a row whose `output` was set: a view of llama.cpp's memory, good until the next
        decode.
        """
        address = self._native.logits_address(self.handle, row)
        if not address:
            raise RuntimeError(f"there are no logits for row {row}")
        view = self._rows.get(address)
        if view is None:
            if len(self._rows) > 256:
                self._rows.clear()
            memory = (ctypes.c_float * self._n_vocab).from_address(address)
            view = self._rows[address] = np.ctypeslib.as_array(memory)
        return view

    def abort(self) -> None:
        """Make a running decode return 2 as soon as it can (any thread; CPU builds only). Until `resume`."""
        self._flag[0] = b"\x01"

    def resume(self) -> None:
        """Let decodes run again."""
        self._flag[0] = b"\x00"

    def truncate(self, seq: int, length: int) -> bool:
        """Keep the first `length` tokens of a sequence. False when its kind of memory cannot be cut there."""
        return bool(self._native.seq_rm(self._memory, seq, length, -1))

    def clear(self, seq: int) -> None:
        """Forget a sequence."""
        self._native.seq_rm(self._memory, seq, -1, -1)

    def share(self, source: int, target: int, length: int) -> None:
        """Let `target` hold the first `length` tokens of `source` and nothing else.

        Unified: the same cells, one more owner. Split: their contents are copied, before the next decode.
        """
        if self.split:
            self._native.seq_cp(self._memory, source, target, -1, -1)
            self._pending |= {source, target}
            self.truncate(target, length)
        else:
            self._native.seq_cp(self._memory, source, target, 0, length)

    def shift(self, seq: int, keep: int, gap: int) -> bool:
        """Forget `gap` tokens after the first `keep` and move those behind them up. False: this memory cannot.

        The cells must not be another sequence's, too: their positions would change for it as well.
        """
        if not self._native.can_shift(self._memory) or not self._native.seq_rm(self._memory, seq, keep, keep + gap):
            return False
        self._native.seq_add(self._memory, seq, keep + gap, -1, -gap)
        self._pending.add(seq)
        return True

    def state_size(self, seq: int) -> int:
        """Bytes that `state` would give."""
        return int(self._native.c.llama_state_seq_get_size(self.handle, seq))

    def state(self, seq: int) -> bytearray:
        """llama.cpp's copy of a sequence's cells (`llama_state_seq_get_data`); empty when there is none to be had, or
        not before the next decode.
        """
        if seq in self._pending:
            return bytearray()
        c = self._native.c
        try:
            data = bytearray(self.state_size(seq))
        except MemoryError:
            return bytearray()
        if not data:
            return data
        written = c.llama_state_seq_get_data(self.handle, _bytes_of(data), len(data), seq)
        del data[written:]
        return data

    def restore(self, seq: int, data: bytearray) -> bool:
        """Put back what `state` gave. False: it is not of this context, or there is no room (not before the next
        decode, perhaps); then clear it.
        """
        c = self._native.c
        return (
            bool(data)
            and seq not in self._pending
            and bool(c.llama_state_seq_set_data(self.handle, _bytes_of(data), len(data), seq))
        )

    def close(self) -> None:
        """Free it. A worker ends with its process; this is for who makes several in one. Before its model."""
        handle, self.handle = self.handle, None
        if handle:
            self._native.c.llama_free(handle)

    def set_threads(self, count: int) -> None:
        self._native.set_n_threads(self.handle, count, count)


def _bytes_of(data: bytearray) -> Any:
    return (ctypes.c_uint8 * len(data)).from_buffer(data)
