"""llama.cpp's array of candidates: tokens with their logits, as its samplers take them.

One memory that C and numpy see, made once for many uses: what is filled in each time is two columns.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from .native import Native

__all__ = ["Candidates"]

CANDIDATE = np.dtype([("id", "<i4"), ("logit", "<f4"), ("p", "<f4")])


class Candidates:
    """Room for `size` candidates."""

    def __init__(self, native: Native, size: int) -> None:
        self._native, c = native, native.c
        memory = np.zeros(size, CANDIDATE)
        self._ids, self._logits = memory["id"], memory["logit"]
        data = ctypes.cast(memory.ctypes.data, ctypes.POINTER(c.llama_token_data))
        self._array = c.llama_token_data_array(data=data, size=size, selected=-1, sorted=False)
        self._address = ctypes.addressof(self._array)

    def draw(self, sampler: Any, ids: Any, logits: Any) -> int:
        """The token that `sampler` selects among these, of which the first is the likeliest, and so on."""
        count, array = len(ids), self._array
        self._ids[:count], self._logits[:count] = ids, logits
        array.size, array.selected, array.sorted = count, -1, True
        self._native.sampler_apply(sampler, self._address)
        return int(self._ids[array.selected])

    def logits_after(self, sampler: Any, ids: Any, *, long: bool = False) -> Any:
        """The logits that `sampler` leaves of these tokens, each of which begins with 0. `long`: it may take long, so
        let go of the interpreter's lock.
        """
        count, array = len(ids), self._array
        self._ids[:count], self._logits[:count] = ids, 0.0
        array.size, array.selected, array.sorted = count, -1, False
        if long:
            self._native.c.llama_sampler_apply(sampler, ctypes.byref(array))
        else:
            self._native.sampler_apply(sampler, self._address)
        return self._logits[:count]
