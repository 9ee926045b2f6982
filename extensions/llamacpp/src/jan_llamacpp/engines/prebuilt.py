"""Which prebuilt wheels the engine's project publishes, and what each needs of a machine. Facts; nothing is chosen.

Taken from the project's own build workflows for this version (`.github/workflows/build-wheels-*.yaml`), and from
NVIDIA's release notes for the drivers. A wheel that is not there when it is looked for is compiled from source instead.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["CUDA", "INDEXES", "PORTABLE_X86", "ROCM_LIBRARIES", "ROCM_TARGETS", "Generation", "Toolkit", "numbers"]

INDEXES = "https://abetlen.github.io/llama-cpp-python/whl"
"""The folder of the indexes, one for each kind of wheel: `cpu`, `cu124`, `vulkan`, …"""

PORTABLE_X86 = frozenset({"avx2", "bmi2", "f16c", "fma"})
"""Instructions that the x86 wheels for CPU and Vulkan are compiled with. Those for CUDA are compiled for the processor
that made them, which has at least these; whether they run here is found out when the engine is checked."""


@dataclass(frozen=True)
class Toolkit:
    """One CUDA toolkit that wheels are built with; its index is `cu` and the digits. `windows`: also for Windows."""

    cuda: str
    windows: bool

    @property
    def index(self) -> str:
        return "cu" + self.cuda.replace(".", "")


@dataclass(frozen=True)
class Generation:
    """The CUDA toolkits of one major version; drivers and libraries are compatible within it.

    `linux`, `windows`: the first driver that runs programs of this generation. `capability`: the lowest compute
    capability its compilers know; `compiled`: the lowest and highest that the wheels hold code for, `jit` when they
    also hold code that a driver can compile for newer cards.
    """

    major: int
    toolkits: tuple[Toolkit, ...]
    linux: str
    windows: str
    capability: str
    compiled: tuple[str, str]
    jit: bool

    def libraries(self, os: str) -> tuple[str, ...]:
        """Libraries the wheels need and do not bring."""
        if os == "windows":
            major = {11: "110"}.get(self.major, str(self.major))
            return (f"cudart64_{major}.dll", f"cublas64_{self.major}.dll")
        return (f"libcudart.so.{'11.0' if self.major == 11 else self.major}", f"libcublas.so.{self.major}")

    def packages(self, toolkit: Toolkit) -> list[str]:
        """NVIDIA's Python packages that hold those libraries, of this toolkit where they count as it does."""
        if self.major == 13:  # the first without the generation in their names
            return ["nvidia-cuda-runtime==13.*", "nvidia-cublas==13.*"]
        cublas = "11.11" if self.major == 11 else toolkit.cuda
        return [f"nvidia-cuda-runtime-cu{self.major}=={toolkit.cuda}.*", f"nvidia-cublas-cu{self.major}=={cublas}.*"]


# Drivers: CUDA release notes, "CUDA Toolkit and Minimum Required Driver Version for CUDA Minor Version Compatibility".
CUDA = (
    Generation(
        13, (Toolkit("13.0", True), Toolkit("13.2", True)), "580.65.06", "580", "7.5", ("7.5", "9.0"), jit=True
    ),
    Generation(
        12,
        (Toolkit("12.1", False), Toolkit("12.2", False), Toolkit("12.3", False), Toolkit("12.4", True),
         Toolkit("12.5", True)),
        "525.60.13", "528.33", "5.0", ("6.0", "9.0"), jit=True,
    ),
    Generation(11, (Toolkit("11.8", True),), "450.80.02", "452.39", "3.5", ("6.0", "8.9"), jit=False),
)  # fmt: skip
"""The newest first."""

_RDNA = ("gfx1030", "gfx1100", "gfx1101", "gfx1102", "gfx1150", "gfx1151", "gfx1200", "gfx1201")

ROCM_TARGETS = {
    "linux": frozenset({*_RDNA, "gfx908", "gfx90a", "gfx942"}),
    "windows": frozenset({*_RDNA, "gfx1031", "gfx1032"}),
}
"""The architectures the ROCm wheels (Linux: `rocm72`, Windows: `hip-radeon`) hold code for."""

ROCM_LIBRARIES = ("libamdhip64.so.7", "libhipblas.so.3", "librocblas.so.5")
"""What the Linux wheel needs and does not bring: those of ROCm 7. The one for Windows brings its own."""


def numbers(version: str) -> tuple[int, ...]:
    """A version as numbers, for comparing: 525.60.13 < 525.105.17 and 9.0 < 12.0."""
    return tuple(int(digits) for digits in re.findall(r"\d+", version))
