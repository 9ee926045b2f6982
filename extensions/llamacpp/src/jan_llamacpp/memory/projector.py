"""What a projector takes: its weights, and the buffer in which mtmd encodes a picture.

The buffer is found by a rule that was measured, not by llama.cpp's allocator as `graph.py` does it: vision towers have
one shape, and differ in their size. It is that of the picture mtmd tries at the load (`clip.cpp`, `warmup_image_size`),
with flash attention; of a model that takes pictures of any size, a larger one takes more.
"""

from __future__ import annotations

from ..gguf import GGUFInfo

__all__ = ["projector_bytes"]

_TOKENS_A_SIDE = {
    "qwen2vl_merger": 46, "qwen2.5vl_merger": 46, "qwen3vl_merger": 46, "ling3vl": 46, "glm4v": 46, "glm5v": 46,
    "mimovl": 46, "exaone4_5": 46, "dots_ocr": 46, "dots3note_v": 46, "muse-glimmer": 32, "hunyuanvl": 32,
    "paddleocr": 28, "pixtral": 16, "lightonocr": 16, "kimivl": 16, "gemma4v": 16, "phi4": 16, "lfm2": 16,
    "youtuvl": 16, "minimax_m3": 16, "deepseek4v": 16,
}  # fmt: skip
"""The first picture of those that take any size. The others have one size, which the file names."""
_MERGED = {"pixtral": 1, "lightonocr": 1, "phi4": 1, "gemma4v": 3}
"""Patches in a row that become one token, where the file does not say; of most that are two."""


def projector_bytes(info: GGUFInfo) -> int:
    """Bytes of the weights and of the buffer for one picture. One that takes no pictures has no such buffer."""
    weights = sum(tensor.size for tensor in info.tensors.values())
    embd, ff = _number(info, "embedding_length"), _number(info, "feed_forward_length")
    return weights + _patches(info) * 4 * (3 * embd + max(ff, 2 * embd))


def _patches(info: GGUFInfo) -> int:
    kind = info.metadata.get("clip.vision.projector_type") or info.metadata.get("clip.projector_type")
    if isinstance(kind, str) and (tokens := _TOKENS_A_SIDE.get(kind)):
        merged = _number(info, "spatial_merge_size") or _number(info, "projector.scale_factor") or _MERGED.get(kind, 2)
        return (tokens * merged) ** 2
    return (_number(info, "image_size") // max(1, _number(info, "patch_size"))) ** 2


def _number(info: GGUFInfo, name: str) -> int:
    value = info.metadata.get(f"clip.vision.{name}")
    return value if isinstance(value, int) and 0 <= value < 1 << 31 else 0
