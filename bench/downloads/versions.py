"""Which programs and packages are measured."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version

__all__ = ["describe"]

PROGRAMS = (("nginx", "-v"), ("aria2c", "--version"), ("curl", "--version"))
PACKAGES = ("urllib3", "httpx", "huggingface_hub")


def describe() -> str:
    """In one line; what is missing is named as such."""
    return ", ".join([*(_program(*each) for each in PROGRAMS), *map(_package, PACKAGES)])


def _program(name: str, option: str) -> str:
    binary = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if binary is None:
        return f"no {name}"
    done = subprocess.run([binary, option], capture_output=True, text=True, timeout=10)
    found = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    return f"{name} {found[0] if found else '?'}"


def _package(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"no {name}"
