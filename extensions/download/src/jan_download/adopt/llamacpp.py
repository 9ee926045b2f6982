"""llama.cpp's own cache of models, files with names made of their repository's.

`fs_get_cache_directory` in `common/common.cpp` of github.com/ggml-org/llama.cpp: `LLAMA_CACHE`, else `llama.cpp` in the
system's folder for caches. Newer versions use the Hugging Face cache, see `huggingface`. What is being fetched ends in
`.downloadInProgress`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .places import Places

__all__ = ["folders"]


def folders(places: Places) -> Iterator[Path]:
    """Folders of models."""
    if chosen := places.variable("LLAMA_CACHE"):
        yield chosen
    if cache := places.cache:
        yield cache / "llama.cpp"
