"""The engine builds this version knows, which of them could run on a machine, and the default choice.

Descriptions only: nothing here touches the disk or the network. All variants are laid out; until GPUs are
detected (`hardware.py`) every variant but `cpu` is refused with that reason, so that nobody gets a GPU build
that silently runs on the CPU.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from jan_core.types import BuildChoice, EngineBuild, Hardware, Variant

__all__ = ["ENGINE_VERSION", "choose", "known_builds", "version_key"]

ENGINE_VERSION = "0.3.36"
"""The llama-cpp-python release that this package's worker is written against and its requirements pin."""

_WHEELS = "https://abetlen.github.io/llama-cpp-python/whl"

# Where a variant's index depends on the driver (cu121…cu132, rocm72…) it stays empty until drivers are
# detected.
_VARIANTS: dict[Variant, tuple[str, list[str]]] = {
    "cpu": (f"{_WHEELS}/cpu", []),
    "cuda": ("", ["-DGGML_CUDA=on"]),
    "metal": (f"{_WHEELS}/metal", ["-DGGML_METAL=on"]),
    "rocm": ("", ["-DGGML_HIP=on"]),
    "vulkan": (f"{_WHEELS}/vulkan", ["-DGGML_VULKAN=on"]),
}
_NO_GPU_YET = "this version does not detect GPUs yet, so it cannot tell whether this build would find one"


def known_builds(hardware: Hardware) -> list[EngineBuild]:
    """Every build this version knows; `refused` says why one cannot be used on this machine."""
    return [
        EngineBuild(
            id=f"{variant}-{ENGINE_VERSION}",
            variant=variant,
            version=ENGINE_VERSION,
            index=index,
            cmake_args=list(cmake_args),
            refused=_refusal(variant, hardware),
        )
        for variant, (index, cmake_args) in _VARIANTS.items()
    ]


def choose(builds: Iterable[EngineBuild]) -> BuildChoice | None:
    """The default choice: among the usable, an installed one before others, then the newest. None: nothing is
    usable.
    """
    usable = [build for build in builds if not build.refused]
    if not usable:
        return None
    best = max(usable, key=lambda build: (build.installed, version_key(build.version), build.id))
    state = "installed" if best.installed else "to be installed at first use"
    return BuildChoice(best.id, f"the newest usable build ({best.variant} {best.version}, {state})")


def version_key(version: str) -> tuple[tuple[int, str], ...]:
    """Orders versions by their numbers, not as text: 0.3.9 < 0.3.36 and b9999 < b10000."""
    return tuple((int(digits), word) for word, digits in re.findall(r"([a-z]*)\.?(\d+)", version.lower()))


def _refusal(variant: Variant, hardware: Hardware) -> str:
    if hardware.arch not in ("x86_64", "arm64"):
        return f"processors of type {hardware.arch} are not supported"
    if variant == "metal" and hardware.os != "macos":
        return "Metal exists on macOS only"
    if variant in ("cuda", "rocm", "vulkan") and hardware.os == "macos":
        return f"there is no {variant} on macOS"
    return "" if variant == "cpu" else _NO_GPU_YET
