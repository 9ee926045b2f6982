"""Which weights llama.cpp rewrites for this CPU when it loads a model, and how large they are then.

The rules are those of ggml-cpu's repack.cpp and amx.cpp, by the CPU's features. A build that was not compiled for all
of them (a prebuilt wheel knows no AMX) rewrites less than is told here. KleidiAI, SpacemiT and the GPUs' own formats
are not counted: they are part of no build that is offered.
"""

from __future__ import annotations

from collections.abc import Collection

from ..gguf import TensorInfo

__all__ = ["repacked_bytes"]

_AMX_EXTRA = {"Q4_0": 0, "Q4_1": 0, "Q8_0": 4, "Q4_K": 4, "Q5_K": 4, "Q6_K": 0, "IQ4_XS": 2}
"""Bytes that AMX's format takes beside each block of a type."""
_BLOCK = {"Q4_0": 32, "Q4_1": 32, "Q8_0": 32, "Q4_K": 256, "Q5_K": 256, "Q6_K": 256, "IQ4_XS": 256}
_AVX2 = ("Q4_0", "Q4_K", "IQ4_NL", "MXFP4")
_AVX512 = ("Q2_K",)
_ARM_I8MM = ("Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "Q1_0")
_ARM_DOT = ("Q4_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "MXFP4", "Q8_0", "Q1_0")
_BY_EIGHT = ("Q4_K", "Q5_K", "Q6_K", "Q2_K")


def repacked_bytes(name: str, tensor: TensorInfo, features: Collection[str]) -> int:
    """The bytes of a matrix's rewritten copy; 0 where it is used as it lies in the file.

    `features`: as `Hardware.features` names them. For a matrix that is multiplied with; not for one whose rows are
    looked up.
    """
    if len(tensor.dims) < 2 or not name.endswith(".weight"):
        return 0
    if "amx_int8" in features and "avx512_vnni" in features and len(tensor.dims) == 2:
        return _amx(tensor)
    rows = tensor.dims[1]
    if "avx2" in features:
        taken = tensor.type in _AVX2 or ("avx512f" in features and tensor.type in _AVX512)
        return tensor.size if taken and rows % 8 == 0 else 0
    by = 8 if tensor.type in _BY_EIGHT else 4
    for feature, types in (("i8mm", _ARM_I8MM), ("asimddp", _ARM_DOT)):
        if feature in features and tensor.type in types and rows % by == 0:
            return tensor.size
    return 0


def _amx(tensor: TensorInfo) -> int:
    columns, rows = tensor.dims[:2]
    if rows % 32:
        return 0
    if tensor.type == "F16":
        return tensor.size if columns % 16 == 0 else 0
    extra, block = _AMX_EXTRA.get(tensor.type), _BLOCK.get(tensor.type, 0)
    if extra is None or columns % block:
        return 0
    return tensor.size + columns // block * rows * extra
