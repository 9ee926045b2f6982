"""The engine builds this version knows, which of them could run on a machine and on what, and the default choice.

Descriptions only: nothing here touches the disk or the network. A build that a machine cannot run is `refused`; one
that is taken only when it is asked for has a `doubt` or `needs` something. Each says why, in words that help.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from jan_core.types import BuildChoice, Device, EngineBuild, Hardware, Variant

from .prebuilt import CUDA, INDEXES, PORTABLE_X86, ROCM_LIBRARIES, ROCM_TARGETS, Generation, Toolkit, numbers

__all__ = ["ENGINE_VERSION", "choose", "known_builds", "named", "preferred", "version_key"]

ENGINE_VERSION = "0.3.36"
"""The llama-cpp-python release that this package's worker is written against and its requirements pin."""

ROOM = 2**30
"""Bytes of free GPU memory below which a GPU is not worth it: the driver's context and the buffers for computing take
about half of that, and the smallest useful models the rest."""

_Key = tuple[tuple[int, str], ...]
_ORDER = ("metal", "cuda", "rocm", "vulkan", "cpu")  # the fastest first, on one and the same card


def known_builds(hardware: Hardware, *, base: str = "") -> list[EngineBuild]:
    """Every build this version knows. `base`: the folder of the wheel indexes, empty: the project's own."""
    builds = [_cpu(hardware), *(_cuda(hardware, generation) for generation in CUDA)]
    builds += [_metal(hardware), _rocm(hardware), _vulkan(hardware)]
    for build in builds:
        if build.index:
            build.index = f"{(base or INDEXES).rstrip('/')}/{build.index}"
        if hardware.arch not in ("x86_64", "arm64"):
            build.refused = f"processors of type {hardware.arch} are not supported"
        if build.refused:
            build.note = build.doubt = build.needs = ""
    return builds


def choose(builds: Iterable[EngineBuild]) -> BuildChoice | None:
    """The default choice. None: nothing is usable."""
    usable = [build for build in builds if not build.refused]
    best = preferred(usable)
    if best is None:
        return None
    why = best.note or f"the newest usable build ({best.variant} {best.version})"
    held = preferred(build for build in usable if build.variant != "cpu" and (build.doubt or build.needs))
    if best.variant == "cpu" and held:
        why = f"{why}, and {held.id} is not taken by itself: {held.doubt or held.needs}"
    beside = f" with {' and '.join(best.packages)}" if best.packages else ""
    return BuildChoice(best.id, f"{why}; {'installed' if best.installed else f'to be installed{beside} at first use'}")


def preferred(usable: Iterable[EngineBuild]) -> EngineBuild | None:
    """The best of these: one that nothing speaks against, a GPU before the processor, an installed one before others,
    then the fastest kind, then the newest.
    """
    return max(usable, key=_merit, default=None)


def named(builds: Iterable[EngineBuild], name: str) -> list[EngineBuild]:
    """The builds a person may mean: by id, by id without version (`cuda12`), or by variant (`cuda`)."""
    return [build for build in builds if name in (build.id, build.id.removesuffix(f"-{build.version}"), build.variant)]


def version_key(version: str) -> _Key:
    """Orders versions by their numbers, not as text: 0.3.9 < 0.3.36 and b9999 < b10000."""
    return tuple((int(digits), word) for word, digits in re.findall(r"([a-z]*)\.?(\d+)", version.lower()))


def _merit(build: EngineBuild) -> tuple[bool, bool, bool, int, _Key, _Key]:
    # Without the version an id orders the generations of CUDA.
    name = build.id.removesuffix(f"-{build.version}")
    return (
        not build.doubt and (build.installed or not build.needs),
        build.variant != "cpu",
        build.installed,
        -_ORDER.index(build.variant),
        version_key(name),
        version_key(build.version),
    )


def _cpu(hardware: Hardware) -> EngineBuild:
    build = _build("cpu", "cpu", index="cpu", note="it runs on every machine")
    missing = _missing_instructions(hardware)
    if hardware.os == "macos" and hardware.arch == "x86_64":
        build.index, build.note = "", "there is no prebuilt wheel for Macs with Intel processors: it is compiled here"
    elif missing:
        build.index, build.note = "", f"the prebuilt wheel needs {missing}, so it is compiled here"
    elif hardware.os == "windows" and hardware.arch == "arm64":
        build.index, build.note = "", "there is no prebuilt wheel for Windows on ARM: it is compiled here"
    return build


def _metal(hardware: Hardware) -> EngineBuild:
    build = _build("metal", "metal", ["-DGGML_METAL=on"], index="metal")
    devices = _devices(hardware, "metal")
    if not devices:
        build.refused = _absent(hardware, "metal", "no GPU with Metal was found")
    elif hardware.arch != "arm64":
        build.refused = "llama.cpp supports Metal on Apple silicon; this is an Intel processor"
    else:
        _weigh(build, devices)
    return build


def _cuda(hardware: Hardware, generation: Generation) -> EngineBuild:
    build = _build(f"cuda{generation.major}", "cuda", ["-DGGML_CUDA=on"])
    devices = _devices(hardware, "cuda")
    if not devices:
        build.refused = _absent(hardware, "cuda", "no NVIDIA GPU was found")
        return build
    build.refused = _driver_refusal(hardware, generation, devices)
    served = [device for device in devices if _knows(generation, device)]
    if build.refused or not served:
        build.refused = build.refused or _capability_refusal(generation, devices)
        return build
    _weigh(build, served)
    toolkit, why_none = _toolkit(hardware, generation, served)
    if len(served) < len(devices):
        others = ", ".join(device.name for device in devices if device not in served)
        build.doubt = f"it has no code for the {others}, which would have to be hidden from it (CUDA_VISIBLE_DEVICES)"
    if toolkit is None:
        build.needs = f"{why_none}: it can be compiled here with the CUDA {generation.major} toolkit"
        return build
    build.index = toolkit.index
    if any(name not in hardware.libraries for name in generation.libraries(hardware.os)):
        build.packages = generation.packages(toolkit)
    return build


def _rocm(hardware: Hardware) -> EngineBuild:
    build = _build("rocm", "rocm", ["-DGGML_HIP=on"])
    devices = _devices(hardware, "rocm")
    if not devices:
        build.refused = _absent(hardware, "rocm", "no AMD GPU with ROCm was found")
        return build
    targets = ROCM_TARGETS.get(hardware.os, frozenset())
    served = [device for device in devices if device.compute_capability in targets]
    _weigh(build, served or devices)
    if hardware.arch != "x86_64" or not served:
        names = ", ".join(f"{device.name} ({device.compute_capability})" for device in devices)
        build.needs = f"no prebuilt wheel has code for the {names}: it can be compiled here with ROCm"
        return build
    build.index = "hip-radeon" if hardware.os == "windows" else "rocm72"
    build.needs = _missing_rocm(hardware)
    return build


def _vulkan(hardware: Hardware) -> EngineBuild:
    build = _build("vulkan", "vulkan", ["-DGGML_VULKAN=on"], index="vulkan")
    devices = _devices(hardware, "vulkan")
    if not devices:
        build.refused = _absent(hardware, "vulkan", "no GPU with a Vulkan driver was found")
        return build
    capable = [device for device in devices if not device.runtime or numbers(device.runtime) >= (1, 2)]
    if not capable:
        name, version = devices[0].name, devices[0].runtime
        build.refused = f"the driver of the {name} offers Vulkan {version}; this build needs 1.2: update the driver"
        return build
    # As llama.cpp does: GPUs that share the computer's memory are left alone where there are others.
    _weigh(build, [device for device in capable if not device.integrated] or capable)
    missing = _missing_instructions(hardware)
    if hardware.arch != "x86_64" or missing:
        build.index = ""
        why = f"the prebuilt wheel needs {missing}" if missing else f"there is no prebuilt wheel for {hardware.arch}"
        build.needs = f"{why}: it can be compiled here with the Vulkan SDK"
    return build


def _build(
    name: str, variant: Variant, cmake_args: list[str] | None = None, *, index: str = "", note: str = ""
) -> EngineBuild:
    return EngineBuild(f"{name}-{ENGINE_VERSION}", variant, ENGINE_VERSION, index, cmake_args or [], note=note)


def _devices(hardware: Hardware, kind: str) -> list[Device]:
    return [device for device in hardware.devices if device.kind == kind]


def _absent(hardware: Hardware, kind: str, otherwise: str) -> str:
    return hardware.absent.get(kind) or otherwise


def _weigh(build: EngineBuild, devices: list[Device]) -> None:
    """Say what it would run on, and whether that is worth it."""
    build.note = " and ".join(dict.fromkeys(_described(device, devices) for device in devices))
    if not any(not device.memory_total or device.memory_free >= ROOM or _unknown(device) for device in devices):
        best = max(devices, key=lambda device: device.memory_free)
        free, total = _gigabytes(best.memory_free), _gigabytes(best.memory_total)
        build.doubt = f"only {free} of the {total} of the {best.name} are free: too little to be worth it"
    elif all(device.integrated for device in devices) and build.variant in ("vulkan", "rocm"):
        names = " and ".join(device.name for device in devices)
        build.doubt = f"the {names} shares the computer's memory, where it is seldom faster than the processor"


def _unknown(device: Device) -> bool:
    """Whether the driver told a total but not what is free of it."""
    return device.kind in ("metal", "rocm") and not device.memory_free and not device.integrated


def _described(device: Device, devices: list[Device]) -> str:
    """The device, counted with those of its name; of them, the one with most free memory is told."""
    same = [other for other in devices if other.name == device.name]
    device = max(same, key=lambda other: other.memory_free)
    parts = []
    if device.memory_total and not _unknown(device):
        parts.append(f"{_gigabytes(device.memory_free)} of {_gigabytes(device.memory_total)} free")
    if device.kind == "cuda":
        parts.append(f"driver {device.driver or 'unknown'} offers CUDA {device.runtime or 'unknown'}")
        parts.append(f"compute capability {device.compute_capability or 'unknown'}")
    elif device.compute_capability:
        parts.append(device.compute_capability)
    name = f"{len(same)} × {device.name}" if len(same) > 1 else device.name
    return f"{name} ({', '.join(parts)})" if parts else name


def _driver_refusal(hardware: Hardware, generation: Generation, devices: list[Device]) -> str:
    driver, offered = devices[0].driver, devices[0].runtime
    # In WSL the driver is that of Windows.
    floor = generation.windows if hardware.os == "windows" or hardware.container == "wsl" else generation.linux
    if not driver or numbers(driver) >= numbers(floor):
        return ""
    offer = f"offers CUDA {offered}" if offered else "is too old"
    return f"the driver {driver} {offer}; this build needs {floor} or newer: update the driver"


def _knows(generation: Generation, device: Device) -> bool:
    """Whether this generation can make code for the card, by wheel or by compiling."""
    if not device.compute_capability:
        return True
    capability = numbers(device.compute_capability)
    return numbers(generation.capability) <= capability and (
        generation.jit or capability <= numbers(generation.compiled[1])
    )


def _capability_refusal(generation: Generation, devices: list[Device]) -> str:
    card = devices[0]
    has = f"the compute capability of the {card.name} is {card.compute_capability}"
    if numbers(card.compute_capability) < numbers(generation.capability):
        return f"{has}; CUDA {generation.major} needs {generation.capability} or newer"
    return f"{has}, for which CUDA {generation.major} is too old"


def _toolkit(hardware: Hardware, generation: Generation, devices: list[Device]) -> tuple[Toolkit | None, str]:
    """The wheel to take: the newest that the driver knows, else the oldest of the generation, which every driver of the
    generation runs, though it cannot compile for newer cards. Else None, and why.
    """
    if hardware.arch != "x86_64":
        return None, f"there is no prebuilt CUDA wheel for {hardware.arch}"
    missing = _missing_instructions(hardware)
    if missing:
        return None, f"the prebuilt wheel needs {missing}"
    lowest, highest = (numbers(version) for version in generation.compiled)
    capabilities = [numbers(device.compute_capability) for device in devices if device.compute_capability]
    if any(capability < lowest for capability in capabilities):
        return None, f"prebuilt wheels have code from compute capability {generation.compiled[0]} on"
    toolkits = [each for each in generation.toolkits if each.windows or hardware.os != "windows"]
    offered = numbers(devices[0].runtime)
    known = [each for each in toolkits if numbers(each.cuda) <= offered]
    if known:
        return known[-1], ""
    if offered and any(capability > highest for capability in capabilities):
        return None, f"the driver (CUDA {devices[0].runtime}) cannot prepare a prebuilt wheel for so new a card"
    return toolkits[0], ""


def _missing_instructions(hardware: Hardware) -> str:
    """Those the prebuilt wheels for x86 need and this processor lacks, where it tells."""
    if hardware.arch != "x86_64" or not hardware.features:
        return ""
    missing = sorted(PORTABLE_X86 - set(hardware.features))
    return f"{', '.join(name.upper() for name in missing)}, which this processor does not have" if missing else ""


def _missing_rocm(hardware: Hardware) -> str:
    missing = [name for name in ROCM_LIBRARIES if name not in hardware.libraries]
    if hardware.os != "linux" or not missing:
        return ""
    return f"the prebuilt wheel needs ROCm 7 ({', '.join(missing)} not found): install or update ROCm"


def _gigabytes(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
