"""Why an installation failed, in words that tell a person what to do: read out of the commands' output.

The texts looked for are those of uv, CMake and the C library. What is not recognised is reported as
`build_failed` with the last telling line; the full output stays in the log.
"""

from __future__ import annotations

import re
import sys
from typing import Literal

__all__ = ["AttemptFailed", "Reason", "compiler_advice", "diagnose"]

Reason = Literal[
    "build_failed",
    "check_failed",
    "compiler_missing",
    "disk_full",
    "network",
    "no_device",
    "not_a_wheel",
    "not_found",
    "permission",
    "refused",
    "server",
    "slow",
    "truncated",
    "web_page",
    "wrong_hash",
    "wrong_package",
    "wrong_platform",
    "wrong_version",
]

_NETWORK = (
    "error sending request",
    "tcp connect error",
    "dns error",
    "client error (Connect)",
    "operation timed out",
    "network connectivity is disabled",
    "network was disabled",
    "not found in the cache",
    "Failed to fetch",
)
_COMPILER = (
    "CMAKE_C_COMPILER not set",
    "CMAKE_CXX_COMPILER not set",
    "No CMAKE_C_COMPILER could be found",
    "No CMAKE_CXX_COMPILER could be found",
    "CMake was unable to find a build program",
    "Could not find any instance of Visual Studio",
    "Microsoft Visual C++ 14.0 or greater is required",
)
_DISK = (
    "No space left on device",
    "os error 28",
    "There is not enough space on the disk",
    "Disk quota exceeded",
)
_TELLING = re.compile(r"(?:fatal error|error|Error|CMake Error|FAILED)[: ].+")


class AttemptFailed(Exception):
    """One way of getting a build did not work; there may be another."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason


def diagnose(output: str) -> tuple[Reason, str]:
    """The reason and one line for a person, from the output of the command that failed."""
    if any(text in output for text in _DISK):
        return "disk_full", "the disk is full: the engine could not be written"
    if any(text in output for text in _COMPILER):
        return "compiler_missing", f"no C++ compiler was found to build the engine with: {compiler_advice()}"
    lowered = output.lower()
    if any(text.lower() in lowered for text in _NETWORK):
        return (
            "network",
            "the engine's packages could not be fetched: the network or the index did not answer",
        )
    telling = [match[0] for line in output.splitlines() if (match := _TELLING.search(line))]
    return "build_failed", f"the engine could not be built: {telling[-1][:300] if telling else 'see the log'}"


def compiler_advice(platform: str = sys.platform) -> str:
    """How to get a C++ compiler on this system."""
    if platform == "darwin":
        return "run `xcode-select --install`"
    if platform == "win32":
        return "install the Visual Studio Build Tools with the C++ workload"
    return "install one with the package manager (`apt install build-essential`, `dnf install gcc-c++`, …)"
