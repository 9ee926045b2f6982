"""Ends a decode where its embeddings are made: what llama.cpp computes after them are logits, which nobody asked for.

They are a fifth of the work of a model of 3 M parameters, two fifths with 0.5 B and a vocabulary of 150,000 (measured,
short texts). No option leaves them out. But llama.cpp lets a function watch each step's graph (`cb_eval`,
ggml-backend.h), and stops where that says so. Which tensor holds the embeddings is known by its name (llama-graph.cpp,
`build_pooling`).

Processors only: on a GPU a watched graph is launched piece by piece. Not here: what a step has (`embedder.py`).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any

from .native import Native

__all__ = ["Cutoff"]

EMBEDDINGS = b"result_embd_pooled"


class Cutoff:
    """For one context. `callback` is its `cb_eval`, to be kept as long as it; `begin` and `done` go around a decode.
    `name` gives a tensor's.

    The first decode runs to its end and tells how often the name occurs: a model with dense layers behind its logits
    has it twice, and the last one counts. With no such name nothing is ever cut off.

    Raises OSError, AttributeError: an engine whose tensors' names cannot be read.
    """

    def __init__(self, native: Native) -> None:
        # The function is in a library that llama.cpp's needs: where dlsym looks, too, but Windows does not.
        library = ctypes.PyDLL(native.c._lib._name if os.name == "posix" else "ggml-base.dll")
        name = library.ggml_get_name
        name.restype, name.argtypes = ctypes.c_char_p, [ctypes.c_void_p]
        self.name: Callable[[int], bytes] = name
        self.callback: Any = native.c.ggml_backend_sched_eval_callback(self._watch)
        self._seen = self._each = 0

    def begin(self) -> None:
        """A decode begins."""
        self._seen = 0

    def done(self) -> None:
        """It succeeded."""
        self._each = self._each or self._seen

    def _watch(self, tensor: int, ask: bool, _user: object) -> bool:
        """Asked of each tensor: is this where to stop? Then, when it is computed: go on? llama.cpp may cut a batch in
        several graphs; each has the name equally often.
        """
        if not ask or self.name(tensor) != EMBEDDINGS:
            return False
        self._seen += 1
        return self._each > 0 and self._seen % self._each == 0
