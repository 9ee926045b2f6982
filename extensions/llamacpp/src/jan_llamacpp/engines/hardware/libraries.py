"""The GPU runtime libraries on this machine: prebuilt wheels bring the engine, but not CUDA's or ROCm's own libraries.

Looked for by their names in the folders where the dynamic linker, the vendors' installers and conda put them. A library
kept elsewhere is not found here and may still be found by the linker. Nothing is loaded.
"""

from __future__ import annotations

import re

from .tools import Tools

__all__ = ["find"]

_NAMES = re.compile(r"lib(?:cudart|cublas|amdhip64|hipblas|rocblas)\.so\.\d+(?:\.0)?|(?:cudart|cublas)64_\d+\.dll")
_FOLDERS = (
    "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib",
    "/usr/local/cuda/lib64", "/opt/cuda/lib64", "/opt/rocm/lib",
)  # fmt: skip
_CONFIG = "/etc/ld.so.conf.d"


def find(tools: Tools) -> list[str]:
    """Names of the libraries that are there, as in `libcudart.so.12` or `cudart64_12.dll`."""
    if tools.platform == "linux":
        folders = [*_FOLDERS, *_configured(tools), *_versioned(tools)]
        folders += [folder for folder in (tools.env("LD_LIBRARY_PATH") or "").split(":") if folder.startswith("/")]
        folders += [f"{root}/{sub}" for name in ("CUDA_HOME", "CONDA_PREFIX", "ROCM_PATH")
                    if (root := tools.env(name)) for sub in ("lib64", "lib")]  # fmt: skip
    elif tools.platform == "win32":
        # CUDA 13 puts its libraries into bin\x64.
        root = tools.env("CUDA_PATH")
        folders = [f"{root}\\bin", f"{root}\\bin\\x64"] if root else []
    else:
        return []
    return sorted({name for folder in folders for name in tools.names(folder) if _NAMES.fullmatch(name)})


def _versioned(tools: Tools) -> list[str]:
    """Toolkits that lie side by side: /usr/local/cuda-12.4."""
    return [f"/usr/local/{name}/lib64" for name in tools.names("/usr/local") if name.startswith("cuda-")]


def _configured(tools: Tools) -> list[str]:
    """The folders of the dynamic linker's configuration (ldconfig(8))."""
    texts = (tools.read(f"{_CONFIG}/{name}") for name in tools.names(_CONFIG) if name.endswith(".conf"))
    return [line.strip() for text in texts for line in text.splitlines() if line.startswith("/")]
