"""CUDA's own libraries, where they were installed beside the engine: prebuilt wheels need them and do not bring them.

In a child process only, before the engine is loaded; a script as well, so it imports nothing of this package. Where the
machine has the libraries itself nothing lies beside the engine, and the system's linker finds them.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

__all__ = ["provide"]

# In this order: cuBLAS needs the other two. Not everything in those folders: libnvblas would take over BLAS calls.
_LIBRARIES = ("libcudart.so.*", "libcublasLt.so.*", "libcublas.so.*")


def provide(engine_dir: Path) -> None:
    """Make the libraries of NVIDIA's Python packages in `engine_dir` known to the dynamic linker.

    On Linux they are loaded, after which the engine's own need of them is met by name; on Windows their folders are
    searched. What cannot be loaded is left out: the engine's loading then fails and names it.
    """
    root = engine_dir / "nvidia"
    if os.name == "nt":
        folders = sorted({str(library.parent) for library in root.glob("*/bin/**/*.dll")})
        os.environ["PATH"] = os.pathsep.join([*folders, os.environ.get("PATH", "")])  # the engine's loader looks there
        return
    for pattern in _LIBRARIES:
        for library in sorted(root.glob(f"*/lib/{pattern}")):
            with suppress(OSError):
                ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
