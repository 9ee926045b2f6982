"""The processor: its name, its physical cores, and the instructions it has, in Linux's words for them."""

from __future__ import annotations

import re

from msgspec import Struct

from .tools import Answers, Command, Tools

__all__ = ["Cpu", "architecture", "commands", "find", "parse_cpuinfo", "parse_sysctl", "translated"]

_ARCH = {"amd64": "x86_64", "x64": "x86_64", "aarch64": "arm64", "armv8l": "arm64"}
_SYSCTL: Command = (
    "sysctl", "machdep.cpu.brand_string", "hw.physicalcpu", "machdep.cpu.features", "machdep.cpu.leaf7_features",
)  # fmt: skip
_TRANSLATED: Command = ("sysctl", "sysctl.proc_translated")
# macOS writes AVX1.0; Linux, whose words are used here, avx.
_MACOS_WORDS = {"avx1.0": "avx", "sse4.1": "sse4_1", "sse4.2": "sse4_2"}
# PF_* of IsProcessorFeaturePresent (winnt.h). AVX2 comes with BMI2, FMA and F16C on every processor sold.
_WINDOWS = {38: ["sse4_2"], 39: ["avx"], 40: ["avx2", "bmi2", "f16c", "fma"], 41: ["avx512f"]}
# What ARM's manuals call the makers and designs that /proc/cpuinfo gives by number.
_ARM = {"0x41": "ARM", "0x4e": "NVIDIA", "0x51": "Qualcomm", "0x61": "Apple", "0xc0": "Ampere"}


class Cpu(Struct, frozen=True):
    """`features` sorted, empty where the system does not tell. `cores`: physical, 0 where it does not tell."""

    name: str
    features: list[str]
    cores: int


def architecture(machine: str) -> str:
    """`x86_64`, `arm64`, or what the system says."""
    return _ARCH.get(machine.lower(), machine.lower())


def commands(tools: Tools) -> list[Command]:
    """What `find` and `translated` need answers to."""
    return [_SYSCTL, _TRANSLATED] if tools.platform == "darwin" else []


def find(tools: Tools, answers: Answers) -> Cpu:
    """This machine's processor."""
    if tools.platform == "linux":
        return parse_cpuinfo(tools.read("/proc/cpuinfo"))
    if tools.platform == "darwin":
        return parse_sysctl(answers[_SYSCTL].output)
    return Cpu(tools.env("PROCESSOR_IDENTIFIER") or "", _windows_features(), 0)


def translated(answers: Answers) -> bool:
    """Whether this is an Intel program on Apple silicon (Rosetta)."""
    return _TRANSLATED in answers and answers[_TRANSLATED].output.strip() == "sysctl.proc_translated: 1"


def parse_cpuinfo(text: str) -> Cpu:
    """/proc/cpuinfo of x86, ARM and others."""
    name, maker, model, package = "", "", "", ""
    flags, cores = set[str](), set[tuple[str, str]]()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        key, value = key.strip(), value.strip()
        if key == "model name" and not name:
            name = value
        elif key == "Model":  # a Raspberry Pi's and its like
            model = value
        elif key == "CPU implementer":
            maker = _ARM.get(value, "")
        elif key in ("flags", "Features") and not flags:
            flags = set(value.split())
        elif key == "physical id":
            package = value
        elif key == "core id":
            cores.add((package, value))
    return Cpu(name or model or maker, sorted(flags), len(cores))


def parse_sysctl(text: str) -> Cpu:
    """What `sysctl` tells on macOS. Apple silicon has no list of features: none is needed for it."""
    values = {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    told = f"{values.get('machdep.cpu.features', '')} {values.get('machdep.cpu.leaf7_features', '')}".lower().split()
    cores = re.fullmatch(r"\d{1,6}", values.get("hw.physicalcpu", ""))
    features = sorted({_MACOS_WORDS.get(word, word) for word in told})
    return Cpu(values.get("machdep.cpu.brand_string", ""), features, int(cores[0]) if cores else 0)


def _windows_features() -> list[str]:
    import sys

    if sys.platform != "win32":
        return []
    import ctypes

    has = ctypes.windll.kernel32.IsProcessorFeaturePresent
    return sorted(word for number, words in _WINDOWS.items() if has(number) for word in words)
