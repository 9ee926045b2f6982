"""What is known of this machine and person without asking anybody: the defaults of a `ModelContext`.

It reads the environment and the operating system, never the network, and nothing it finds is sent anywhere.
"""

from __future__ import annotations

import os
import platform
from functools import lru_cache

from jan_core.types import ModelContext

__all__ = ["completed"]

_SYSTEMS = {"linux": "linux", "darwin": "macos", "windows": "windows"}
_MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "arm64": "arm64", "aarch64": "arm64"}


def completed(context: ModelContext, *, region: str = "", app_version: str = "") -> ModelContext:
    """`context` with what the caller left out. `region` is the person's own choice."""
    system, machine, memory = _machine()
    return ModelContext(
        locale=context.locale or _locale(),
        region=context.region or region,
        memory_free=context.memory_free,
        device_memory_free=context.device_memory_free,
        query=context.query,
        app_version=context.app_version or app_version,
        os=context.os or system,
        arch=context.arch or machine,
        memory_total=context.memory_total or memory,
    )


def _locale() -> str:
    """The locale for messages, as POSIX names it (`pt_BR.UTF-8`) or as the environment's `LANGUAGE` begins."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if value := os.environ.get(name):
            return value
    if platform.system() == "Windows":
        import locale

        return locale.getlocale()[0] or ""
    return ""


@lru_cache(maxsize=1)
def _machine() -> tuple[str, str, int]:
    """Operating system, processor, and bytes of memory; "" and 0 for what cannot be told."""
    system = _SYSTEMS.get(platform.system().lower(), "")
    machine = _MACHINES.get(platform.machine().lower(), "")
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        memory = 0
    return system, machine, memory
