"""Whether this runs in a container or in WSL, where a GPU that the machine has may be held back."""

from __future__ import annotations

import re

from .tools import Tools

__all__ = ["find"]

_MARKS = (("docker", r"docker"), ("kubernetes", r"kubepods"), ("podman", r"libpod"), ("lxc", r"/lxc[./]"))


def find(tools: Tools) -> str:
    """`docker`, `podman`, `kubernetes`, `lxc`, `wsl`, another runtime's name, or empty."""
    if tools.platform != "linux":
        return ""
    if tools.env("KUBERNETES_SERVICE_HOST"):
        return "kubernetes"
    named = tools.env("container") or ""  # as systemd's container interface asks every runtime to say
    if re.fullmatch(r"[a-z0-9-]{1,32}", named):
        return "podman" if named == "oci" else named
    root = tools.names("/")
    if ".dockerenv" in root:
        return "docker"
    if tools.names("/run") and ".containerenv" in tools.names("/run"):
        return "podman"
    groups = tools.read("/proc/self/cgroup")
    for name, mark in _MARKS:
        if re.search(mark, groups):
            return name
    return "wsl" if "microsoft" in tools.read("/proc/version").lower() else ""
