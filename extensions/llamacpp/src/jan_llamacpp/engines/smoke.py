"""Checks a staged engine: imports it, lists its devices and runs a model. A script, run in a child process
only.

    python smoke.py ENGINE_DIR VARIANT VERSION [MODEL]

The last line of its output is a JSON object: `{"devices": [...]}`, or `{"error": "..."}` with exit status 1;
`"no_device": true` when it found no GPU for a build that needs one.
A crash of the native code ends this process by a signal, which the installer reads. It does not judge speed
or quality.
"""

from __future__ import annotations

import ctypes
import json
import runpy
import sys
from pathlib import Path
from typing import Any

# enum ggml_backend_dev_type of ggml-backend.h: GPU and integrated GPU (0 is the CPU, 3 an accelerator such as
# AMX)
_GPU = (1, 2)


def main(engine: str, variant: str, version: str, model: str = "") -> dict[str, Any]:
    sys.path.insert(0, engine)
    # By its file: a script has no package.
    runpy.run_path(str(Path(__file__).parents[1] / "worker" / "runtime.py"))["provide"](Path(engine))
    import llama_cpp

    if not (llama_cpp.__file__ or "").startswith(engine):
        return {"error": f"another llama_cpp was imported: {llama_cpp.__file__}"}
    if llama_cpp.__version__ != version:
        return {"error": f"expected version {version}, found {llama_cpp.__version__}"}
    llama_cpp.llama_backend_init()
    devices = _devices()
    if variant != "cpu" and not any(kind in _GPU for _, kind in devices):
        return {"error": f"this is a {variant} build, but it finds no GPU here", "no_device": True}
    if model:
        layers = 0 if variant == "cpu" else -1  # -1: all, or the GPU would list its name and never be used
        llm = llama_cpp.Llama(model, n_ctx=128, n_batch=64, n_threads=1, n_gpu_layers=layers, verbose=False)
        answer: Any = llm("Hello", max_tokens=4, temperature=0.0)
        if not answer["usage"]["completion_tokens"]:
            return {"error": "the embedded model generated nothing"}
        llm.close()
    return {"devices": [name for name, _ in devices]}


def _devices() -> list[tuple[str, int]]:
    """Name and type of every device the engine's back ends offer (ggml-backend.h)."""
    from llama_cpp import _ggml

    lib = _ggml.libggml
    if not hasattr(lib, "ggml_backend_dev_count"):  # the registry is in ggml-base on some platforms' builds
        raise RuntimeError("this engine's ggml has no device registry")
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


if __name__ == "__main__":
    try:
        result = main(*sys.argv[1:])
    except Exception as failure:
        result = {"error": f"{type(failure).__name__}: {failure}"}
    print(json.dumps(result), flush=True)
    sys.exit(1 if "error" in result else 0)
