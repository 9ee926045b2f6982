"""Checks a staged engine: imports it, lists its devices and runs a model. A script, run in a child process
only.

    python smoke.py ENGINE_DIR VARIANT VERSION [MODEL]

The last line of its output is a JSON object: `{"devices": [...]}`, or `{"error": "..."}` with exit status 1;
`"no_device": true` when it found no GPU for a build that needs one.
A crash of the native code ends this process by a signal, which the installer reads. It does not judge speed
or quality.
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

# Of the worker, by their files: a script has no package.
_WORKER = Path(__file__).parents[1] / "worker"


def main(engine: str, variant: str, version: str, model: str = "") -> dict[str, Any]:
    sys.path.insert(0, engine)
    runpy.run_path(str(_WORKER / "runtime.py"))["provide"](Path(engine))
    import llama_cpp

    if not (llama_cpp.__file__ or "").startswith(engine):
        return {"error": f"another llama_cpp was imported: {llama_cpp.__file__}"}
    if llama_cpp.__version__ != version:
        return {"error": f"expected version {version}, found {llama_cpp.__version__}"}
    llama_cpp.llama_backend_init()
    offered = runpy.run_path(str(_WORKER / "devices.py"))
    if variant != "cpu" and not offered["finds_gpu"]():
        return {"error": f"this is a {variant} build, but it finds no GPU here", "no_device": True}
    if model:
        layers = 0 if variant == "cpu" else -1  # -1: all, or the GPU would list its name and never be used
        llm = llama_cpp.Llama(model, n_ctx=128, n_batch=64, n_threads=1, n_gpu_layers=layers, verbose=False)
        answer: Any = llm("Hello", max_tokens=4, temperature=0.0)
        if not answer["usage"]["completion_tokens"]:
            return {"error": "the embedded model generated nothing"}
        llm.close()
    return {"devices": [name for name, _ in offered["devices"]()]}


if __name__ == "__main__":
    try:
        result = main(*sys.argv[1:])
    except Exception as failure:
        result = {"error": f"{type(failure).__name__}: {failure}"}
    print(json.dumps(result), flush=True)
    sys.exit(1 if "error" in result else 0)
