"""GGUF files, checked in pure Python before any native code sees them.

`read_info(path)` reads the header of one file only and answers what it is, or raises `InvalidModelFile`; `read_model`
does it for a model, which may be in several files. They do not judge whether an engine can run the architecture, and
read no tensor data. Format: ggml's `docs/gguf.md`, versions 2 and 3.
"""

from ..errors import InvalidModelFile
from .info import GGUFInfo, TensorInfo, read_info
from .split import read_model, shard_name, shards_of

__all__ = ["GGUFInfo", "InvalidModelFile", "TensorInfo", "read_info", "read_model", "shard_name", "shards_of"]
