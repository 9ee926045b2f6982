"""What llama.cpp says it would allocate for a model: its own figures, with nothing allocated (`no_alloc`).

A program of its own, because an engine is never loaded into a test's process:
`buffers.py ENGINE MODEL OPTIONS…`, each OPTIONS a JSON object of `LoadOptions`; prints one JSON object for each. With
`embeddings` it has the sizes of the context, too.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["buffers", "resident"]

MIB = 2**20


def buffers(engine: Path, model: Path, options: list[dict[str, Any]]) -> list[dict[str, int]]:
    """Bytes of `cache`, `compute` and `output` for each of these options. For embeddings also the context's `n_ctx`,
    `n_cells`, `n_seq` and whether it is `whole`; with a projector also the buffer it has, `picture`.
    """
    command = [sys.executable, __file__, str(engine), str(model), *map(json.dumps, options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def told(log: str) -> dict[str, int]:
    """The sizes of the last context in a log of llama.cpp's."""
    log = log.rpartition("constructing llama_context")[2]

    def total(pattern: str) -> int:
        return round(sum(float(number) for number in re.findall(pattern, log)) * MIB)

    return {
        "cache": total(r"size = +([\d.]+) MiB \( *\d+ cells"),
        "compute": total(r"compute buffer size = +([\d.]+) MiB"),
        "output": total(r"output buffer size = +([\d.]+) MiB"),
    }


def read(log: int) -> str:
    """A log from its beginning."""
    os.lseek(log, 0, os.SEEK_SET)
    said = b""
    while block := os.read(log, 1 << 20):
        said += block
    os.lseek(log, 0, os.SEEK_SET)
    return said.decode(errors="replace")


def main(engine: str, model: str, *options: str) -> None:
    from jan_llamacpp.worker.context import Context
    from jan_llamacpp.worker.embedding_context import EmbeddingContext
    from jan_llamacpp.worker.engine import _sizes
    from jan_llamacpp.worker.images import Projector
    from jan_llamacpp.worker.model import Model
    from jan_llamacpp.worker.native import load_native
    from jan_llamacpp.worker.options import LoadOptions

    native = load_native(Path(engine))
    c: Any = native.c
    c.llama_backend_init()
    defaults = c.llama_model_default_params

    def without_allocation() -> Any:
        params = defaults()
        params.no_alloc = True
        return params

    c.llama_model_default_params = without_allocation
    c.llama_free = lambda _context: None  # contexts without memory are not made to be freed
    shown, log = os.dup(1), os.memfd_create("log")
    os.dup2(log, 2)
    for text in options:
        chosen = LoadOptions(**json.loads(text), mmap=False)
        os.ftruncate(log, 0)
        loaded = Model(native, model, chosen)
        sizes: dict[str, int] = {}
        if chosen.embeddings:
            context = EmbeddingContext(native, loaded, chosen, 1)
            sizes = {name: getattr(context, name) for name in ("n_ctx", "n_cells", "n_seq", "whole")}
        else:
            Context(native, loaded, chosen, *_sizes(loaded, chosen), 1)
        sizes |= told(read(log))
        if chosen.projector:
            os.ftruncate(log, 0)
            Projector(native, loaded, None, chosen.projector, n_batch=chosen.n_batch, threads=1)
            sizes["picture"] = told(read(log))["compute"]
        os.write(shown, json.dumps(sizes).encode() + b"\n")
    os._exit(0)  # nor are models


if __name__ == "__main__":
    main(*sys.argv[1:])


def resident(pid: int) -> int:
    """A process's bytes in memory, pages of mapped files included."""
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024
