"""Engines and routing: what the inference hooks hand around. Plain data only; the chat objects are in `chat`."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct, field

from .chat import ChatRequest
from .generation import Usage

__all__ = [
    "BuildChoice",
    "Device",
    "EngineBuild",
    "Hardware",
    "InferenceEngine",
    "InferenceOutcome",
    "InferenceRequest",
    "Route",
    "Variant",
]

Variant = Literal["cpu", "cuda", "metal", "rocm", "vulkan"]


class Device(Struct, omit_defaults=True):
    """One accelerator, as one kind of engine build sees it: a card that CUDA and Vulkan can use is listed twice.

    Memory in bytes; 0 where the driver does not tell. `integrated`: it shares the computer's memory. `runtime`: the
    version of CUDA, ROCm, Vulkan or Metal that the driver offers. `compute_capability`: as in `8.9` for NVIDIA,
    `gfx1100` for AMD. `id`: what the driver calls it.
    """

    kind: Variant
    name: str
    memory_total: int = 0
    memory_free: int = 0
    driver: str = ""
    runtime: str = ""
    compute_capability: str = ""
    integrated: bool = False
    id: str = ""


class Hardware(Struct):
    """This machine, as far as it can be told without loading native engine code. Memory in bytes.

    `absent`: by kind of device, why none is listed. `warnings`: what keeps hardware that is there from being used, and
    what to do. `container`: `docker`, `wsl` and the like; empty on a plain machine. `libraries`: runtime libraries for
    GPUs that were found, as in `libcudart.so.12`.
    """

    os: str
    arch: str
    cpu: str
    cores: int
    threads: int
    features: list[str]
    memory_total: int
    memory_free: int
    devices: list[Device] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    container: str = ""
    libraries: list[str] = field(default_factory=list)


class EngineBuild(Struct, omit_defaults=True):
    """One build of the engine that could run here.

    `id` names its directory and is unique. `index` is where prebuilt wheels are offered, `packages` what such a wheel
    needs beside it that this machine lacks (Python requirements), `cmake_args` how to make it from source. `refused`
    says why it cannot run on this machine, where that is known; `note` what it would run on. It is not chosen without
    being asked for while there is a `doubt` that it would do well, or, not being installed, while it `needs` something
    that only a person can bring.
    """

    id: str
    variant: Variant
    version: str
    index: str = ""
    cmake_args: list[str] = field(default_factory=list)
    installed: bool = False
    refused: str = ""
    note: str = ""
    doubt: str = ""
    needs: str = ""
    packages: list[str] = field(default_factory=list)


class BuildChoice(Struct):
    """The build to use, and the reason in words a person understands."""

    build: str
    reason: str


class InferenceEngine(Struct):
    """Something that can answer a chat request: a local model runner or a remote endpoint.

    `method` is the method of the table that takes a `ChatRequest` and streams `ChatChunk`s; an engine is named by
    data and reached through the table, so that it may live in any extension or process.
    """

    id: str
    kind: Literal["local", "remote"]
    method: str
    models: list[str] = field(default_factory=list)
    """Ids it serves now. Empty: a local one serves whatever `models.list` says is installed, a remote one whatever a
    request calls `ID/MODEL` with its id. An id `ID/MODEL` is also found by MODEL alone."""


class InferenceRequest(Struct):
    """A chat request on its way to an engine. `origin` names the method that brought it."""

    chat: ChatRequest
    origin: str = "chat.complete"
    refused: str = ""
    """A reason set by an implementation of `jan_before_inference` refuses the request."""


class Route(Struct):
    """Which candidate engine answers, and why."""

    engine: str
    reason: str


class InferenceOutcome(Struct, omit_defaults=True):
    """How a request ended. Times in seconds; `error` is the stable type of the error, empty when it went well."""

    engine: str
    model: str
    duration: float
    time_to_first_token: float | None = None
    finish_reason: str | None = None
    usage: Usage | None = None
    error: str = ""
    detail: dict[str, Any] = field(default_factory=dict)
    where: Literal["local", "remote"] = "local"
    """Whether the request stayed on this machine or was sent to another one."""
