"""Writes GGUF headers byte by byte, right and wrong: for what the `gguf` package would refuse to write."""

from __future__ import annotations

from struct import pack
from typing import Any

U32, BOOL, STRING, ARRAY, U64 = 4, 7, 8, 9, 10

LLAMA: dict[str, Any] = {
    "general.architecture": "llama",
    "general.name": "Tiny",
    "general.license": "apache-2.0",
    "general.file_type": 8 - 1,
    "llama.context_length": 256,
    "llama.embedding_length": 32,
    "llama.block_count": 2,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.tokens": ["a", "b", "<end>"],
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.chat_template": "{{ messages }}",
}
TENSORS: list[tuple[str, list[int], int]] = [
    ("token_embd.weight", [32, 3], 0),
    ("blk.0.attn_q.weight", [32, 32], 8),
    ("blk.1.attn_q.weight", [32, 32], 8),
]


def string(text: str) -> bytes:
    data = text.encode()
    return pack("<Q", len(data)) + data


def value(content: Any) -> bytes:
    match content:
        case bool():
            return pack("<IB", BOOL, content)
        case int():
            return pack("<II", U32, content)
        case str():
            return pack("<I", STRING) + string(content)
        case bytes():  # as it stands: type and all
            return content
        case [str(), *_]:
            return pack("<IIQ", ARRAY, STRING, len(content)) + b"".join(map(string, content))
        case list():
            return pack("<IIQ", ARRAY, U32, len(content)) + b"".join(pack("<I", item) for item in content)
    raise TypeError(content)


def size_of(dims: list[int], kind: int) -> int:
    elements = 1
    for dim in dims:
        elements *= dim
    return elements * 4 if kind == 0 else elements // 32 * 34  # F32, else Q8_0


def header(
    metadata: dict[str, Any] = LLAMA, tensors: list[tuple[str, list[int], int]] = TENSORS, *, version: int = 3
) -> bytes:
    out = b"GGUF" + pack("<IQQ", version, len(tensors), len(metadata))
    for key, content in metadata.items():
        out += string(key) + value(content)
    offset = 0
    for name, dims, kind in tensors:
        out += string(name) + pack("<I", len(dims)) + b"".join(pack("<Q", dim) for dim in dims)
        out += pack("<IQ", kind, offset)
        offset += -(-size_of(dims, kind) // 32) * 32
    return out


def whole(
    metadata: dict[str, Any] = LLAMA, tensors: list[tuple[str, list[int], int]] = TENSORS, *, version: int = 3
) -> bytes:
    """A complete file: header, padding, and tensor data of zeros."""
    head = header(metadata, tensors, version=version)
    data = sum(-(-size_of(dims, kind) // 32) * 32 for _, dims, kind in tensors)
    return head + bytes(-len(head) % 32) + bytes(data)
