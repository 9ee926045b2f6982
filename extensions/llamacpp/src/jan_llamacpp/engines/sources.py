"""Where an engine's files come from: each way is a few commands of uv that fill `stage/target`.

Which way is taken, and whether what came runs, is the installer's business. uv's own environment variables (cache,
mirrors, certificates) are honoured; those that would change what is compiled are not handed on.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from jan_core.types import EngineBuild

from .diagnosis import AttemptFailed, diagnose
from .process import run
from .progress import Tracker

__all__ = ["LOG", "Sources", "environment"]

LOG = "install.log"
_HERE = Path(__file__).parent
_PACKAGE = "llama-cpp-python"
# They would change what is compiled behind the back of uv's cache, or where things are put.
_SCRUBBED = (
    "CMAKE_ARGS",
    "FORCE_CMAKE",
    "SKBUILD_CMAKE_ARGS",
    "PYTHONPATH",
    "PYTHONHOME",
    "UV_TARGET",
    "UV_PREFIX",
)


class Sources:
    """Fills `stage/target`. `offline`: open no socket. The methods raise AttemptFailed."""

    def __init__(self, stage: Path, tracker: Tracker, *, offline: bool) -> None:
        self._stage = stage
        self._tracker = tracker
        self._offline = offline

    async def from_index(self, build: EngineBuild) -> None:
        """A prebuilt wheel of the variant's index: not pinned. Its dependencies are."""
        what = ["--only-binary", _PACKAGE, "--default-index", build.index, f"{_PACKAGE}=={build.version}"]
        # A host that is not there must not hold up the build from source: one attempt, a short connect timeout.
        await self._uv(["--no-deps", *what], UV_HTTP_RETRIES="0", UV_HTTP_CONNECT_TIMEOUT="5")
        await self._pinned(self._without_engine())

    async def from_file(self, wheel: Path) -> None:
        """A wheel file: not pinned. Its dependencies are."""
        await self._uv(["--no-deps", "--no-index", str(wheel)])
        await self._pinned(self._without_engine())

    async def from_source(self, build: EngineBuild) -> None:
        """The source distribution, compiled here; pinned."""
        # The variant's flags go through uv's settings, which are part of the key of its cache; CMAKE_ARGS is not.
        flags = ["-C", f"cmake.args={';'.join(build.cmake_args)}"] if build.cmake_args else []
        await self._pinned(_HERE / "requirements-cpu.txt", *flags)

    async def _pinned(self, requirements: Path, *flags: str) -> None:
        """Install hash-pinned requirements: out of uv's cache when it has them, else over the network."""
        constraints = str(_HERE / "requirements-build.txt")
        what = ["--require-hashes", "-r", str(requirements), "--build-constraints", constraints, *flags]
        try:
            await self._uv(["--offline", *what])
        except AttemptFailed as failure:
            if failure.reason != "network":
                raise
            if self._offline:
                raise AttemptFailed("network", "the engine is not in the cache, and offline mode is on") from None
            await self._uv(what)

    async def _uv(self, what: list[str], **env: str) -> None:
        import uv

        command = [uv.find_uv_bin(), "pip", "install", "-v", "--target", str(self._stage / "target")]
        command += ["--python", sys.executable, *what]
        self._tracker.begin()
        status, output = await run(
            command,
            log=self._stage / LOG,
            env=environment(self._stage, **env),
            cwd=self._stage,
            on_line=self._tracker.line,
        )
        if status:
            raise AttemptFailed(*diagnose(output))

    def _without_engine(self) -> Path:
        """The pinned requirements without the engine itself, as a file in the stage."""
        lines: list[str] = []
        skipping = False
        for line in (_HERE / "requirements-cpu.txt").read_text("utf-8").splitlines():
            if not line.startswith((" ", "\t")):
                skipping = line.startswith(f"{_PACKAGE}==")
            if not skipping:
                lines.append(line)
        path = self._stage / "dependencies.txt"
        path.write_text("\n".join(lines) + "\n")
        return path


def environment(stage: Path, **more: str) -> dict[str, str]:
    """Ours for a command of an installation; temporary files go to the stage, and with it."""
    tmp = str(stage / "tmp")
    env = {key: value for key, value in os.environ.items() if key not in _SCRUBBED}
    return {**env, "TMPDIR": tmp, "TEMP": tmp, "TMP": tmp, "NO_COLOR": "1", "UV_NO_PROGRESS": "1", **more}
