"""GGUF files, checked in pure Python before any native code sees them.

`read_info(path)` reads the header only and answers what the file is, or raises `InvalidModelFile`. It does
not judge whether an engine can run the architecture, and reads no tensor data. Format: ggml's `docs/gguf.md`,
versions 2 and 3.
"""

from ..errors import InvalidModelFile
from .info import GGUFInfo, read_info

__all__ = ["GGUFInfo", "InvalidModelFile", "read_info"]
