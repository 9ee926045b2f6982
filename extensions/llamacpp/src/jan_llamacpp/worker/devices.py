"""The devices that an engine's back ends offer now: ggml's registry (ggml-backend.h).

In a child process only, after the engine is loaded; a script as well (`engines/smoke.py` runs it by its file), so it
imports nothing of this package. What the hardware is without an engine is `engines/hardware`'s.
"""

from __future__ import annotations

import ctypes
import importlib
from typing import Any

__all__ = ["devices", "finds_gpu"]

_GPU = (1, 2)
"""enum ggml_backend_dev_type: GPU and integrated GPU (0 is the CPU, 3 an accelerator such as AMX)."""


def devices() -> list[tuple[str, int]]:
    """Name and type of each. Raises ImportError or AttributeError for an engine without such a registry."""
    ggml: Any = importlib.import_module("llama_cpp._ggml")
    lib = ggml.libggml
    lib.ggml_backend_dev_count.restype = ctypes.c_size_t
    lib.ggml_backend_dev_get.restype = ctypes.c_void_p
    lib.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    lib.ggml_backend_dev_description.restype = ctypes.c_char_p
    lib.ggml_backend_dev_description.argtypes = [ctypes.c_void_p]
    lib.ggml_backend_dev_type.restype = ctypes.c_int
    lib.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
    handles = [lib.ggml_backend_dev_get(index) for index in range(lib.ggml_backend_dev_count())]
    return [
        (lib.ggml_backend_dev_description(h).decode("utf-8", "replace"), lib.ggml_backend_dev_type(h)) for h in handles
    ]


def finds_gpu() -> bool:
    """Whether one of them is a GPU. Raises what `devices` does."""
    return any(kind in _GPU for _, kind in devices())
