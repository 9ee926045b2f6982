"""Small projectors with random weights, and pictures: real files of the kinds that llama.cpp's mtmd reads."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

__all__ = ["bmp", "png", "write_projector"]


def write_projector(
    path: Path, *, n_embd: int = 64, kind: str = "mlp", image_size: int = 28, n_layer: int = 2, seed: int = 0,
    n_vision: int = 32, n_ff: int = 48, patches: int = 4,
) -> Path:  # fmt: skip
    """Write a vision tower of width `n_vision` and a projector to vectors of `n_embd` numbers. `patches`: in a row.

    `mlp`: LLaVA's; a picture is 4 x 4 tokens. `gemma3`: a picture is 2 x 2 tokens, which see each other.
    `qwen2vl_merger`: a small picture is 3 x 3 tokens, at three positions.
    """
    import gguf
    import numpy as np

    n_head, patch = 4, image_size // patches
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_name(path.stem)
    writer.add_type("mmproj")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", kind)
    writer.add_bool("clip.use_gelu", True)
    for key, number in {
        "embedding_length": n_vision,
        "feed_forward_length": n_ff,
        "block_count": n_layer,
        "projection_dim": n_embd,
        "attention.head_count": n_head,
        "image_size": image_size,
        "patch_size": patch,
        "projector.scale_factor": 2,
    }.items():
        writer.add_uint32(f"clip.vision.{key}", number)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    random = np.random.default_rng(seed)

    def weight(name: str, *shape: int) -> None:
        scale = np.float32(np.sqrt(np.prod(shape[1:])))
        writer.add_tensor(name, random.standard_normal(shape, dtype=np.float32) / scale)

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(n_vision, np.float32))
        writer.add_tensor(f"{name}.bias", np.zeros(n_vision, np.float32))

    weight("v.patch_embd.weight", n_vision, 3, patch, patch)
    if kind == "qwen2vl_merger":
        weight("v.patch_embd.weight.1", n_vision, 3, patch, patch)
    else:
        weight("v.position_embd.weight", patches**2, n_vision)
    norm("v.pre_ln" if kind == "mlp" else "v.post_ln")
    for layer in range(n_layer):
        block = f"v.blk.{layer}."
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            weight(f"{block}{name}.weight", n_vision, n_vision)
            writer.add_tensor(f"{block}{name}.bias", np.zeros(n_vision, np.float32))
        norm(block + "ln1")
        norm(block + "ln2")
        weight(block + "ffn_up.weight", n_ff, n_vision)
        weight(block + "ffn_down.weight", n_vision, n_ff)
        writer.add_tensor(block + "ffn_up.bias", np.zeros(n_ff, np.float32))
        writer.add_tensor(block + "ffn_down.bias", np.zeros(n_vision, np.float32))
    if kind != "gemma3":
        n_in = n_vision if kind == "mlp" else n_vision * 4
        n_between = n_embd if kind == "mlp" else n_in
        weight("mm.0.weight", n_between, n_in)
        writer.add_tensor("mm.0.bias", np.zeros(n_between, np.float32))
        weight("mm.2.weight", n_embd, n_between)
        writer.add_tensor("mm.2.bias", np.zeros(n_embd, np.float32))
    else:
        weight("mm.input_projection.weight", n_vision, n_embd)
        writer.add_tensor("mm.soft_emb_norm.weight", np.ones(n_vision, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def png(
    width: int = 8, height: int = 8, colour: tuple[int, int, int] = (200, 30, 30), *, data: bytes | None = None
) -> bytes:
    """A PNG of one colour with a darker left half. `data`: what stands where its pixels would be."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    if data is None:  # not for those that only claim to be as large as a town
        row = bytes(part // 3 for part in colour) * (width // 2) + bytes(colour) * (width - width // 2)
        data = zlib.compress((b"\0" + row) * height)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def bmp(width: int = 4, height: int = 4) -> bytes:
    """A grey BMP."""
    row = -(-3 * width // 4) * 4
    body = b"\x80" * (row * abs(height))
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, len(body), 2835, 2835, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(body), 0, 0, 54) + info + body
