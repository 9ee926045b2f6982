"""llama.cpp's C functions, as the worker calls them: the low-level bindings of llama-cpp-python, and nothing
above.

Two ways to call: short functions through `PyDLL`, which keeps the interpreter's lock (giving it up and taking
it again costs more than the call, and up to a switch interval when another thread is busy); the long ones,
which compute or read files, through `CDLL`, which lets go of the lock.

Not a wrapper with classes and lifetimes: those are in `model.py`, `context.py` and `sampling.py`.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.machinery
import os
import sys
import types
from pathlib import Path
from typing import Any

from .devices import finds_gpu
from .needed import missing_in
from .refusal import Refusal
from .runtime import provide

__all__ = ["KV_TYPES", "Native", "load_native", "require_gpu"]

LOG_INFO = 2
KV_TYPES = {"f16": 1, "q8_0": 8, "q4_0": 2}
"""`ggml_type` by the name used in the options."""
_LOOK = {
    "cuda": "whether its driver still answers (nvidia-smi; after a suspend it may have to be loaded anew) and whether "
    "CUDA_VISIBLE_DEVICES hides it",
    "rocm": "whether its driver still answers (rocminfo) and whether HIP_VISIBLE_DEVICES or ROCR_VISIBLE_DEVICES "
    "hides it",
    "vulkan": "whether its driver still answers (vulkaninfo) and whether GGML_VK_VISIBLE_DEVICES hides it",
}


class Native:
    """The functions and structures in use. `c` is the binding module `llama_cpp.llama_cpp` (a `CDLL`)."""

    def __init__(self, module: Any, version: str) -> None:
        self.c = module
        self.version = version
        # Kept as long as the library, which calls it: by the library's own module.
        if not hasattr(module, "_jan_log"):
            module._jan_log = module.llama_log_callback(_log)
        self.log = module._jan_log
        module.llama_log_set(self.log, None)
        self._quick = ctypes.PyDLL(module._lib._name)
        i32, ptr, size_t = ctypes.c_int32, ctypes.c_void_p, ctypes.c_size_t
        self.logits_address = self._bind("llama_get_logits_ith", ptr, ptr, i32)
        self.token_to_piece = self._bind(
            "llama_token_to_piece", i32, ptr, i32, ctypes.c_char_p, i32, i32, ctypes.c_bool
        )
        self.is_eog = self._bind("llama_vocab_is_eog", ctypes.c_bool, ptr, i32)
        self.seq_rm = self._bind("llama_memory_seq_rm", ctypes.c_bool, ptr, i32, i32, i32)
        self.seq_cp = self._bind("llama_memory_seq_cp", None, ptr, i32, i32, i32, i32)
        self.seq_add = self._bind("llama_memory_seq_add", None, ptr, i32, i32, i32, i32)
        self.can_shift = self._bind("llama_memory_can_shift", ctypes.c_bool, ptr)
        self.sampler_sample = self._bind("llama_sampler_sample", i32, ptr, ptr, i32)
        self.sampler_apply = self._bind("llama_sampler_apply", None, ptr, ptr)
        self.sampler_accept = self._bind("llama_sampler_accept", None, ptr, i32)
        self.set_n_threads = self._bind("llama_set_n_threads", None, ptr, i32, i32)
        self.tokenize = self._bind(
            "llama_tokenize", i32, ptr, ctypes.c_char_p, i32, ptr, i32, ctypes.c_bool, ctypes.c_bool
        )
        self.model_desc = self._bind("llama_model_desc", i32, ptr, ctypes.c_char_p, size_t)

    def _bind(self, name: str, result: Any, *arguments: Any) -> Any:
        function = getattr(self._quick, name)
        function.restype, function.argtypes = result, arguments
        return function


def load_native(engine_dir: Path) -> Native:
    """The engine installed in `engine_dir` (a `pip --target` directory with llama-cpp-python).

    Raises Refusal("engine_broken") when it cannot be loaded; `reason` is then `incompatible` where it lacks something
    that the worker needs.
    """
    package = engine_dir / "llama_cpp"
    provide(engine_dir)
    try:
        # The package's own __init__ imports its high-level API (templates, disk caches, a server's types):
        # 0.2 s of start-up for names that are not used here. A bare package object leads straight to the
        # binding module.
        if "llama_cpp" not in sys.modules:
            bare = types.ModuleType("llama_cpp")
            bare.__path__ = [str(package)]
            bare.__spec__ = importlib.machinery.ModuleSpec("llama_cpp", None, is_package=True)
            sys.modules["llama_cpp"] = bare
        module = importlib.import_module("llama_cpp.llama_cpp")
        if missing := missing_in(module):
            raise AttributeError(f"it has no {', '.join(missing)}")
        return Native(module, _version(engine_dir))
    except (ImportError, AttributeError) as error:
        raise _incompatible(error) from error
    except (OSError, RuntimeError) as error:
        raise Refusal("engine_broken", f"the inference engine cannot be loaded: {error}") from error


def require_gpu(variant: str) -> None:
    """What an engine that was built for this kind of GPU needs: llama.cpp would compute everything on the processor
    without one, and say nothing. After `llama_backend_init`.

    Raises Refusal("engine_broken"), `reason` `no_device`, with `advice`.
    """
    try:
        if finds_gpu():
            return
    except (ImportError, AttributeError) as error:
        raise _incompatible(error) from error
    look = f"Look {_LOOK[variant]}" if variant in _LOOK else "Look whether its driver still answers"
    advice = f"{look}, or choose a build for the processor (jan engines list, jan engines use ID)."
    message = f"this is a {variant} build, but it finds no GPU here now. {advice}"
    raise Refusal("engine_broken", message, reason="no_device", advice=advice)


def _incompatible(error: Exception) -> Refusal:
    return Refusal("engine_broken", f"the inference engine cannot be loaded: {error}", reason="incompatible")


def _log(level: int, text: bytes | None, _user: object) -> None:
    """Let llama.cpp write to stderr what is information or worse, and not every node of its graphs."""
    if level >= LOG_INFO and text:  # a continuation (5) belongs to the line before it; all of them are shown
        with contextlib.suppress(OSError):
            os.write(2, text)


def _version(engine_dir: Path) -> str:
    for entry in engine_dir.glob("llama_cpp_python-*.dist-info"):
        return entry.name.removeprefix("llama_cpp_python-").removesuffix(".dist-info")
    return "unknown"
