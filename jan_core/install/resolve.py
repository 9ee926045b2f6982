"""What `uv` is asked: build a wheel, say what is missing, fetch exactly that. And what its refusals mean.

It resolves against the packages of this interpreter: what is installed there, editable or not, published or not,
satisfies a requirement when its version does, and is held at that version by a constraint. So a plan names only what
is missing, and there is none when something would have to be replaced. `UV_*` variables (index, cache, mirrors,
certificates, offline) are honoured; those that would put packages elsewhere or override constraints are not handed on.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InstallFailed
from . import command
from .packages import canonical
from .threads import off_loop

__all__ = ["Pin", "Places", "Uv", "find_uv"]

_SCRUBBED = (
    *("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX", "UV_PYTHON", "UV_SYSTEM_PYTHON", "UV_TARGET"),
    *("UV_PREFIX", "UV_OVERRIDE", "UV_EXCLUDE", "UV_CONSTRAINT", "UV_PROJECT", "UV_WORKING_DIRECTORY", "UV_NO_BUILD"),
    "UV_LINK_MODE",  # symbolic links would tie an overlay to the cache
)
_PLANNED = re.compile(r" ([-+~]) (\S+?)(?:==(\S+)| @ (\S+)| \(from (\S+)\))(?: \(from (\S+)\))?$")
_COUNTED = re.compile(r"Would install (\d+) packages?$")
_NETWORK = ("error sending request", "dns error", "tcp connect error", "operation timed out", "Request failed after")
_OFFLINE = ("network was disabled", "network connectivity is disabled")
_DISK = ("No space left on device", "os error 28", "not enough space on the disk", "Disk quota exceeded")
_MISSING = ("was not found in the", "were not found in the", "Distribution not found at", "there are no versions of")
_UNUSABLE = ("has no usable wheels", "no wheels with a matching", "building from source is disabled")


@dataclass(frozen=True)
class Places:
    """Where packages are looked for beside the default index: more indexes, folders, and whether the network is used at
    all."""

    indexes: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    offline: bool = False

    def flags(self) -> list[str]:
        return [
            *(f"--index={url}" for url in self.indexes),
            *(f"--find-links={folder}" for folder in self.find_links),
            *(["--offline"] if self.offline else []),
        ]


@dataclass(frozen=True)
class Pin:
    """One package of a plan: a version of an index, or an address."""

    name: str
    version: str = ""
    url: str = ""

    def __str__(self) -> str:
        return f"{self.name} @ {self.url}" if self.url else f"{self.name}=={self.version}"


@dataclass
class Uv:
    """Runs `uv` in a folder of the installer's; `show` is told what goes on, in words. Methods raise InstallFailed."""

    folder: Path
    places: Places
    show: Callable[[str], None]

    async def build(self, project: Path, out: Path) -> Path:
        """Build the wheel of a project's folder or source archive. This runs code of that project."""
        self.show(f"building {project.name}")
        what = ["build", "--wheel", f"--out-dir={out}", *self.places.flags(), str(project)]
        status, output = await self._run(what)
        built = await off_loop(lambda: list(out.glob("*.whl")))  # of a fresh folder
        if status or len(built) != 1:
            reason, message = _diagnose(output, "build")
            raise InstallFailed(f"{project.name} could not be built: {message}", reason=reason)
        return built[0]

    async def plan(self, requirements: Sequence[str], constraints: Mapping[str, str]) -> list[Pin]:
        """What would have to be added so that `requirements` work here. Writes nothing but `uv`'s cache."""
        wanted = self._write("requirements.txt", requirements)
        held = self._write("constraints.txt", (f"{name}=={version}" for name, version in constraints.items()))
        # `--break-system-packages`: a dry run changes nothing, and the interpreter may be the system's.
        what = ["pip", "install", "--dry-run", "--break-system-packages", "-r", wanted, "-c", held, "--no-build"]
        status, output = await self._run([*what, *self.places.flags()])
        if status:
            reason, message = _diagnose(output, "conflict" if "No solution found" in output else "refused")
            if reason == "conflict":
                with_whom = "the application" if len(requirements) == 1 else "the application or each other"
                message = f"this does not go together with {with_whom}: {message}"
            raise InstallFailed(message, reason=reason)
        pins, count = [], 0
        for line in output.splitlines():
            if counted := _COUNTED.fullmatch(line.strip()):
                count = int(counted[1])
            elif planned := _PLANNED.fullmatch(line.rstrip()):
                sign, name, version, *urls = planned.groups()
                if sign != "+":
                    raise InstallFailed(f"the application's {name} would have to be replaced", reason="conflict")
                pins.append(Pin(canonical(name), version or "", next(filter(None, urls), "")))
        if len(pins) != count:
            raise InstallFailed("this version of uv says what it would do in words that are not known", reason="uv")
        return pins

    async def fetch(self, pins: Iterable[Pin], site: Path, *, cached: bool = True) -> None:
        """Put exactly these packages into a folder; `cached` False: over what is there, and not out of uv's cache."""
        wanted = self._write("missing.txt", map(str, pins))
        what = ["pip", "install", "--no-deps", "--no-build", "-r", wanted, f"--target={site}", *self.places.flags()]
        status, output = await self._run(what if cached else [*what, "--no-cache", "--reinstall"])
        if status:
            reason, message = _diagnose(output, "refused")
            raise InstallFailed(f"the packages could not be fetched: {message}", reason=reason)

    def _write(self, name: str, lines: Iterable[str]) -> str:
        (self.folder / name).write_text("".join(f"{line}\n" for line in lines), "utf-8")
        return name  # uv runs in this folder; older ones split a path at its spaces

    async def _run(self, what: list[str]) -> tuple[int, str]:
        env = {key: value for key, value in os.environ.items() if key not in _SCRUBBED}
        env |= {"NO_COLOR": "1", "UV_NO_PROGRESS": "1"}
        try:
            return await command.run(
                [find_uv(), what[0], *what[1:], f"--python={sys.executable}"],
                env=env,
                cwd=self.folder,
                on_line=self._hear,
            )
        except OSError as error:
            raise InstallFailed(f"uv could not be started: {error}", reason="uv") from error

    def _hear(self, line: str) -> None:
        if line.startswith(("Downloading ", "Building ")):
            self.show(line[0].lower() + line[1:])


def find_uv() -> str:
    """The `uv` that comes with the product, else the one on the PATH. Raises InstallFailed."""
    try:
        import uv

        return str(uv.find_uv_bin())
    except (ImportError, OSError):
        found = shutil.which("uv")
    if not found:
        raise InstallFailed(
            "extensions are installed with uv, and there is none: install the package uv beside this program",
            reason="uv",
        )
    return found


def _diagnose(output: str, otherwise: str) -> tuple[str, str]:
    """The reason, and the sentence for a person, in what a failed `uv` printed."""
    text, whole = _sentence(output), re.sub(r"[\s│]+", " ", output)
    if any(mark in whole for mark in _DISK):
        return "storage", "the disk is full"
    if any(mark in whole for mark in _OFFLINE):
        return "network", f"offline, and not everything is here: {text}"
    if any(mark in whole for mark in _NETWORK):
        return "network", f"the index could not be reached: {text}"
    if any(mark in whole for mark in _UNUSABLE):
        return "build", f"there is no wheel for this machine: {text}"
    if any(mark in whole for mark in _MISSING):
        return "not_found", text
    return otherwise, text


def _sentence(output: str) -> str:
    """The error with its causes on one line."""
    text = output.partition("\n\nhint:")[0]
    for mark in ("error: ", "\u00d7 "):  # older ones draw a tree
        text = text.rpartition(mark)[2]
    lines = [re.sub(r"^(?:cause: |Caused by: |╰─▶ |├─▶ |│ *)", "", line.strip()) for line in text.splitlines()]
    lines = [line for line in lines if line]
    if lines and lines[0].startswith("No solution found"):
        return " ".join(lines[1:])[:600]
    return ": ".join(lines)[:600] or "uv did not say why"
