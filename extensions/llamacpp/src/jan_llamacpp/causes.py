"""Why a worker ended: a pure function of how it ended and what it wrote last.

The texts are those of llama.cpp, ggml's back ends, glibc, the C++ runtime and Python. Nothing is decided here: what a
cause means for a request is `client.py`'s business, what it means for the next start the pool's.
"""

from __future__ import annotations

import re
from typing import Literal

from msgspec import Struct

__all__ = ["LOG_LINES", "Cause", "Kind", "cause_of", "memory_cause"]

LOG_LINES = 40
"""Lines at the end of a log that can be about its end. llama.cpp goes on after many an error before them."""

Kind = Literal[
    "out_of_memory",
    "device_out_of_memory",
    "device_lost",
    "heap_corruption",
    "file_lost",
    "illegal_instruction",
    "assertion",
    "crash",
    "killed",
    "hung",
    "defect",
    "exited",
]


class Cause(Struct, frozen=True):
    """`message` ends a sentence ("the model's process is gone: …"); `advice` is a sentence, or empty."""

    kind: Kind
    message: str
    advice: str = ""


_LESS = "Use a smaller context, fewer parallel requests or a smaller model, or unload another one"
_ADVICE: dict[Kind, str] = {
    "out_of_memory": f"{_LESS}, or close other programs.",
    "device_out_of_memory": f"{_LESS}, or keep fewer of its layers on the device.",
    "device_lost": "Its driver gave up on the device: update the driver, or choose the CPU build if it happens again.",
    "heap_corruption": "This is a defect of the engine or of its driver: try another engine build.",
    "file_lost": "The model's file was cut off or its disk cannot be read: check the disk and import the model again.",
    "illegal_instruction": "The engine was built for another processor: install a build for this one.",
    "assertion": "This is a defect of the engine or of the model's file: try another engine build.",
}

_SKIP = re.compile(r"pinned memory|^llama_model_loader: - kv", re.IGNORECASE)
"""An allocation that may fail (llama.cpp goes on without it), and texts of the model's author."""
_DEVICE_MEMORY = re.compile(
    r"ErrorOutOfDeviceMemory|OutOfDeviceMemoryError|kIOGPUCommandBufferCallbackErrorOutOfMemory"
    r"|(?:CUDA|ROCm|MUSA|HIP|SYCL) error: out of memory|(?:cuda|hip|musa)Malloc\w* failed"
    r"|allocating .* on device \d+: .*out of memory|(?:CUBLAS|HIPBLAS|ROCBLAS|cublas|hipblas)\w*ALLOC_FAILED"
    r"|failed to allocate (?:Metal|(?:CUDA|ROCm|MUSA|Vulkan|SYCL|OpenCL)\d*) buffer"
    r"|unable to allocate (?:Metal|(?:CUDA|ROCm|MUSA|Vulkan|SYCL|OpenCL)\d*) buffer"
    r"|Insufficient Memory"
)
_MEMORY = re.compile(
    r"std::bad_alloc|MemoryError|ErrorOutOfHostMemory|[Cc]annot allocate memory|out of memory"
    r"|(?:failed|unable) to allocate|memory allocation of \d+ bytes failed|insufficient memory",
)
_DEVICE_LOST = re.compile(
    r"ErrorDeviceLost|DeviceLostError|device lost"
    r"|(?:CUDA|ROCm|MUSA|HIP) error: (?:an illegal memory access|unspecified launch failure|the launch timed out|"
    r"misaligned address|an illegal instruction|device-side assert|uncorrectable|.*(?:GPU|device) (?:is|has) .*lost)"
    r"|command buffer \d+ failed with status|GPU Hang|GPU Timeout|Memory access fault by GPU"
)
_HEAP = re.compile(
    r"double free|free\(\): |munmap_chunk\(\)|malloc\(\): |realloc\(\): |malloc_consolidate\(\)|corrupted size"
    r"|corrupted double-linked|corrupted unsorted|\*\*\* stack smashing detected|buffer overflow detected"
    r"|pointer being freed was not allocated|heap corruption",
)
_ASSERTION = re.compile(
    r"(GGML_ASSERT\(.+\) failed|[\w./\\-]+\.(?:cpp|c|cu|cuh|m|h|hpp):\d+: .+"
    r"|terminate called .+|what\(\): .+|Assertion .+ failed.*)"
)
_CRASHES = ("SIGSEGV", "SIGFPE", "SIGTRAP", "SIGSYS")
_NTSTATUS: dict[int, tuple[Kind, str]] = {
    0xC0000005: ("crash", "it read or wrote memory that is not its own (access violation)"),
    0xC0000006: ("file_lost", "a part of the model's file could not be read"),
    0xC0000017: ("out_of_memory", "there was not enough memory"),
    0xC000001D: ("illegal_instruction", "it met an instruction this processor does not have"),
    0xC0000374: ("heap_corruption", "its heap was damaged"),
    0xC00000FD: ("crash", "its stack was used up"),
    0xC0000409: ("crash", "it stopped itself (fail fast)"),
}
"""What Windows has for an exit status when a process is ended for its faults. Untested there."""


def cause_of(
    *, code: int | None, signal: str | None, log: str, oom_killed: bool = False, hung: str | None = None
) -> Cause:
    """Why a process ended that nobody asked to.

    `code` or `signal`: how it ended. `log`: what it wrote to stderr; its last `LOG_LINES` count. `oom_killed`: the
    kernel killed somebody for memory meanwhile. `hung`: how it stood still, when it was ended for that.
    """
    if hung is not None:
        return Cause("hung", hung)
    memory = memory_cause(log)
    if signal == "SIGKILL":
        if oom_killed:
            return _cause("out_of_memory", "the system ended it (SIGKILL) because memory had run out")
        if memory:
            return memory
        return Cause("killed", "it was killed (SIGKILL), perhaps for lack of memory")
    if memory:
        return memory
    lines = _last(log)
    if found := _find(_DEVICE_LOST, lines):
        return _cause("device_lost", f"the device stopped working: {found}")
    if found := _find(_HEAP, lines):
        return _cause("heap_corruption", f"its heap was damaged: {found}")
    if signal == "SIGBUS":
        return _cause("file_lost", "a part of the model's file could not be read (SIGBUS)")
    if signal == "SIGILL":
        return _cause("illegal_instruction", "it met an instruction this processor does not have (SIGILL)")
    if code is not None and code & 0xFFFFFFFF in _NTSTATUS:
        return _cause(*_NTSTATUS[code & 0xFFFFFFFF])
    if signal in _CRASHES:
        return Cause("crash", f"it crashed ({signal})")
    if found := _find(_ASSERTION, lines):
        return _cause("assertion", f"it stopped itself: {found}")
    if found := _find(re.compile(r"worker: (.+)"), lines):
        return Cause("defect", found.removeprefix("worker: "))
    if signal is not None:
        return Cause("crash" if signal == "SIGABRT" else "killed", f"it was ended by {signal}")
    return Cause("exited", f"it ended with status {code}")


def memory_cause(log: str) -> Cause | None:
    """The end of a log that tells of too little memory; None when it does not."""
    lines = _last(log)
    if found := _find(_DEVICE_MEMORY, lines):
        return _cause("device_out_of_memory", f"the device has not enough memory: {found}")
    if found := _find(_MEMORY, lines):
        return _cause("out_of_memory", f"there was not enough memory: {found}")
    return None


def _cause(kind: Kind, message: str) -> Cause:
    return Cause(kind, message, _ADVICE.get(kind, ""))


def _last(log: str) -> list[str]:
    return [line.strip() for line in log.strip().splitlines()[-LOG_LINES:] if not _SKIP.search(line)]


def _find(pattern: re.Pattern[str], lines: list[str]) -> str | None:
    """The first line of the kind: what came after it mostly follows from it."""
    return next((line for line in lines if pattern.search(line)), None)
