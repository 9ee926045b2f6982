"""Where an engine's files come from: each way is a few commands that fill the workshop's `target`.

Which way is taken, and whether what came runs, is the installer's business. What is slow to get lies in the workshop's
`kept`, so that an attempt which was interrupted goes on: the wheel as far as it was fetched, or the compiled part of a
build. uv's own environment variables (cache, mirrors, certificates) are honoured.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from jan_core.types import EngineBuild

from .diagnosis import AttemptFailed, Reason, diagnose
from .progress import Progress
from .wheels import PACKAGE, best_of, check_file, offers
from .workshop import Workshop

__all__ = ["Obtained", "Sources"]

_HERE = Path(__file__).parent
_PAGE = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.5, text/html;q=0.2"
_PAGE_LIMIT, _WHEEL_LIMIT = 8 << 20, 8 << 30  # bytes
_BUILD_SETTINGS = ("CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS", "CUDACXX", "CUDAFLAGS", "HIPCXX")


class Obtained(Struct, frozen=True):
    """The wheel that was taken. `verified`: its hash was known beforehand."""

    wheel: str = ""
    sha256: str = ""
    verified: bool = False


class _Said(Struct):
    """A line of `fetch.py`."""

    at: int = 0
    of: int | None = None
    sha256: str = ""
    type: str = ""
    url: str = ""
    failed: Reason | None = None
    message: str = ""


class Sources:
    """Fills the workshop's `target`. `offline`: open no socket. The methods raise AttemptFailed."""

    def __init__(self, shop: Workshop, *, offline: bool) -> None:
        self._shop = shop
        self._offline = offline

    async def from_index(self, build: EngineBuild) -> Obtained:
        """A prebuilt wheel of the variant's index: not pinned, but checked against the hash the index tells, if it
        does. Its dependencies are pinned.
        """
        url = f"{build.index.rstrip('/')}/{PACKAGE}/"
        self._shop.tracker.show(Progress("resolving", f"looking for a prebuilt engine ({build.variant})"))
        page = self._shop.stage / "index"
        answer = await self._fetch(
            {"url": url, "path": str(page), "limit": _PAGE_LIMIT, "accept": _PAGE, "document": True}
        )
        offer = best_of(offers(page.read_bytes(), answer.type, answer.url), build.version)
        if answer.url.startswith("https:") and not offer.url.startswith("https:"):
            raise AttemptFailed("refused", "the index leads from https to a file without")
        # A file of the same name at another place, or with another hash, is another file.
        folder = self._shop.kept / hashlib.sha256(f"{offer.url} {offer.sha256}".encode()).hexdigest()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        wheel = folder / offer.filename
        got = await self._fetch(
            {"url": offer.url, "path": str(wheel), "limit": _WHEEL_LIMIT, "sha256": offer.sha256},
            f"downloading {offer.filename}",
        )
        await self.from_file(wheel, build.version, got.sha256)
        if build.packages:  # from the index of Python packages, as uv is set up; not pinned either
            await self._uv(["--only-binary", ":all:", *build.packages])
        return Obtained(offer.filename, got.sha256, bool(offer.sha256))

    async def from_file(self, wheel: Path, version: str, sha256: str = "") -> Obtained:
        """A wheel file, checked against `sha256` if there is one. Its dependencies are pinned; their wheels may lie in
        the same folder, for machines without a network.
        """
        import anyio

        # Only reads: when it is given up, the thread may come to its end behind our back.
        actual = await anyio.to_thread.run_sync(check_file, wheel, version, sha256, abandon_on_cancel=True)
        try:
            await self._uv(["--no-deps", "--no-index", str(wheel)])
        except AttemptFailed as failure:
            if failure.reason != "build_failed":
                raise
            raise AttemptFailed("not_a_wheel", f"{wheel.name} cannot be unpacked: {failure}") from None
        await self._pinned(self._without_engine(), "--find-links", str(wheel.parent))
        return Obtained(wheel.name, actual, bool(sha256))

    async def from_source(self, build: EngineBuild) -> Obtained:
        """The source distribution, compiled here; pinned."""
        # The variant's flags go through uv's settings, which are part of the key of its cache; CMAKE_ARGS is not.
        flags = ["-C", f"cmake.args={';'.join(build.cmake_args)}"] if build.cmake_args else []
        import anyio

        folder = await anyio.to_thread.run_sync(self._build_folder, build)
        try:
            # Where it is compiled goes through the environment: it must not be part of that key.
            await self._pinned(_HERE / "requirements-cpu.txt", *flags, SKBUILD_BUILD_DIR=str(folder))
        except AttemptFailed:
            # Whatever is wrong with it is not gone on with.
            await anyio.to_thread.run_sync(partial(shutil.rmtree, folder, ignore_errors=True))
            raise
        return Obtained()

    def _build_folder(self, build: EngineBuild) -> Path:
        """Where this build is compiled: ninja goes on there after an interruption. Others of the build are cleared."""
        settings = [build.version, *build.cmake_args, *(os.environ.get(name, "") for name in _BUILD_SETTINGS)]
        folder = self._shop.kept / f"build-{hashlib.sha256(repr(settings).encode()).hexdigest()[:16]}"
        for other in self._shop.kept.glob("build-*"):
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)
        if folder.is_dir():
            self._shop.tracker.show(Progress("building", "going on with the build where it was interrupted"))
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    async def _fetch(self, job: Mapping[str, Any], message: str = "") -> _Said:
        import urllib3

        last = _Said()

        def line(text: str) -> None:
            nonlocal last
            try:
                last = msgspec.json.decode(text, type=_Said)
            except msgspec.DecodeError:
                last = _Said()
                return
            if message and last.of and not last.failed:
                self._shop.tracker.show(Progress("downloading", message, last.at, last.of))

        libraries = str(Path(urllib3.__file__).parent.parent)
        command = [sys.executable, "-I", str(_HERE / "fetch.py"), libraries, msgspec.json.encode(job).decode()]
        self._shop.tracker.begin()
        status, _ = await self._shop.run(command, line)
        if status or last.failed:
            raise AttemptFailed(last.failed or "network", last.message or f"the download ended with status {status}")
        return last

    async def _pinned(self, requirements: Path, *flags: str, **env: str) -> None:
        """Install hash-pinned requirements: out of uv's cache when it has them, else over the network."""
        constraints = str(_HERE / "requirements-build.txt")
        what = ["--require-hashes", "-r", str(requirements), "--build-constraints", constraints, *flags]
        try:
            await self._uv(["--offline", *what], **env)
        except AttemptFailed as failure:
            if failure.reason != "network":
                raise
            if self._offline:
                message = f"offline mode is on, and not all of its parts are in uv's cache ({_names(requirements)})"
                raise AttemptFailed("network", message) from None
            await self._uv(what, **env)

    async def _uv(self, what: list[str], **env: str) -> None:
        import uv

        command = [uv.find_uv_bin(), "pip", "install", "-v", "--target", str(self._shop.target)]
        command += ["--python", sys.executable, *what]
        self._shop.tracker.begin()
        status, output = await self._shop.run(command, self._shop.tracker.line, **env)
        if status:
            raise AttemptFailed(*diagnose(output))

    def _without_engine(self) -> Path:
        """The pinned requirements without the engine itself, as a file in the stage."""
        lines: list[str] = []
        skipping = False
        for line in (_HERE / "requirements-cpu.txt").read_text("utf-8").splitlines():
            if not line.startswith((" ", "\t")):
                skipping = line.startswith(f"{PACKAGE}==")
            if not skipping:
                lines.append(line)
        path = self._shop.stage / "dependencies.txt"
        path.write_text("\n".join(lines) + "\n")
        return path


def _names(requirements: Path) -> str:
    """What a file of requirements names, for a person."""
    return ", ".join(re.findall(r"^([\w-]+==[\w.]+)", requirements.read_text("utf-8"), re.MULTILINE))
