"""Installs an engine build: staged, checked in a child process, then switched into place by one rename.

Where a build comes from, in this order: a wheel file the person gave; a prebuilt wheel of the variant's
index; the source distribution, compiled here (from uv's cache without the network when everything is there).
The source and every dependency are pinned by SHA-256. A prebuilt wheel cannot be: its hash is not known when
this software is released, so it is trusted as far as TLS to its index goes, its libraries' hashes are
recorded as they arrived, and `pinned` is false in `engine.json`. `wheels=False` takes pinned sources only.

It does not choose a build (`builds.py`, hooks) and never imports an engine.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from jan_core.types import EngineBuild

from . import installed
from .diagnosis import AttemptFailed, Reason
from .errors import EngineInstallFailed
from .lock import held
from .process import run
from .progress import OnProgress, Progress, Tracker
from .record import EngineRecord, InstalledEngine, Library
from .sources import LOG, Sources, environment

__all__ = ["EngineInstaller"]

_HERE = Path(__file__).parent
_LEFTOVERS = ("bin", "include", "lib")  # CMake's second copy of the libraries; the package loads its own

Origin = Literal["source", "wheel", "wheel-file"]


class _Checked(Struct):
    """What `smoke.py` prints."""

    devices: list[str] = []
    error: str = ""


class EngineInstaller:
    """Installs into `engines` (the folder `<data>/engines`).

    `check_model`: a GGUF file that a fresh build must be able to run. `offline`: open no socket. `wheels`:
    whether prebuilt wheels, which are not pinned, may be used.
    """

    def __init__(
        self, engines: Path, *, check_model: Path | None = None, offline: bool = False, wheels: bool = True
    ) -> None:
        self._engines = engines.absolute()
        self._check_model = check_model
        self._offline = offline
        self._wheels = wheels

    async def ensure(
        self, build: EngineBuild, on_progress: OnProgress, *, wheel: Path | None = None
    ) -> InstalledEngine:
        """The build, installed if it is not yet; `wheel`: anew, from this file (absolute path).

        Processes that want the same build wait for the first one.

        Raises EngineInstallFailed; its `log` then names a file with the full output. Cancelling ends every
        child process and leaves nothing that counts.
        """
        if build.refused:
            raise EngineInstallFailed(f"{build.id}: {build.refused}", build=build.id, reason="refused")
        if not installed.is_name(build.id):
            raise EngineInstallFailed(f"{build.id!r} is no id of a build", build=build.id, reason="refused")
        if wheel is None and (engine := installed.find(self._engines, build.id)):
            return engine
        tracker = Tracker(on_progress)
        waiting = Progress("waiting", f"another process is installing {build.id}; waiting for it")
        try:
            self._engines.mkdir(parents=True, exist_ok=True)
            async with held(self._engines / f".lock-{build.id}", lambda: tracker.show(waiting)):
                if wheel is None and (engine := installed.find(self._engines, build.id)):
                    return engine
                return await self._install(build, tracker, wheel)
        except OSError as failure:
            raise self._failed(build, *_os_failure(failure)) from failure

    async def _install(self, build: EngineBuild, tracker: Tracker, wheel: Path | None) -> InstalledEngine:
        import anyio

        async with self._staging(build.id) as stage:
            target = stage / "target"
            try:
                origin, devices = await self._obtain(build, stage, tracker, wheel)
                record = EngineRecord(
                    id=build.id,
                    variant=build.variant,
                    version=build.version,
                    origin=origin,
                    pinned=origin == "source",
                    installed_at=datetime.now(UTC).isoformat(timespec="seconds"),
                    devices=devices,
                    libraries=await anyio.to_thread.run_sync(_settle, stage),
                )
            except (AttemptFailed, OSError) as failure:
                log = self._keep_log(build.id, stage)
                reason, message = (
                    (failure.reason, str(failure)) if isinstance(failure, AttemptFailed) else _os_failure(failure)
                )
                raise self._failed(build, reason, message, log) from None
            final = self._engines / build.id
            await anyio.to_thread.run_sync(_switch, target, final, record)
        return InstalledEngine(final, record)

    async def _obtain(
        self, build: EngineBuild, stage: Path, tracker: Tracker, wheel: Path | None
    ) -> tuple[Origin, list[str]]:
        """Fill `stage/target` by the first way that works; returns which, and the devices the check found."""
        ways: list[Origin] = ["wheel", "source"] if self._may_fetch(build) else ["source"]
        if wheel:
            ways = ["wheel-file"]
        sources = Sources(stage, tracker, offline=self._offline)
        failures: list[AttemptFailed] = []
        for way in ways:
            shutil.rmtree(stage / "target", ignore_errors=True)
            try:
                if wheel:
                    await sources.from_file(wheel)
                elif way == "wheel":
                    await sources.from_index(build)
                else:
                    await sources.from_source(build)
                return way, await self._check(build, stage, tracker)
            except AttemptFailed as failure:
                failures.append(failure)
        raise _explained(failures)

    def _may_fetch(self, build: EngineBuild) -> bool:
        return self._wheels and not self._offline and bool(build.index)

    async def _check(self, build: EngineBuild, stage: Path, tracker: Tracker) -> list[str]:
        """Import the staged engine, list devices and run the model in a child; returns the devices."""
        target = stage / "target"
        for name in _LEFTOVERS:
            shutil.rmtree(target / name, ignore_errors=True)
        tracker.show(Progress("checking", "checking that the engine runs here"))
        command = [sys.executable, "-I", str(_HERE / "smoke.py"), str(target), build.variant, build.version]
        if self._check_model:
            command.append(str(self._check_model))
        status, output = await run(command, log=stage / LOG, env=environment(stage), cwd=stage)
        last = next((line for line in reversed(output.splitlines()) if line.startswith("{")), "{}")
        try:
            checked = msgspec.json.decode(last, type=_Checked)
        except msgspec.DecodeError:
            checked = _Checked()
        if status or checked.error:
            raise AttemptFailed("check_failed", f"the engine does not run here: {checked.error or _ending(status)}")
        return checked.devices

    @asynccontextmanager
    async def _staging(self, build: str) -> AsyncIterator[Path]:
        """A fresh directory beside the final one (same file system: the switch is a rename). Its lock is
        held.
        """
        import anyio

        for old in [*self._engines.glob(f".staging-{build}-*"), *self._engines.glob(".trash-*")]:
            await anyio.to_thread.run_sync(_delete, old)
        stage = self._engines / f".staging-{build}-{uuid.uuid4().hex[:12]}"
        (stage / "tmp").mkdir(parents=True)
        try:
            yield stage
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(_delete, stage)

    def _keep_log(self, build: str, stage: Path) -> str:
        """Move the log of a failed installation to `logs/<build>.log`, over that of the one before."""
        kept = self._engines / "logs" / f"{build}.log"
        try:
            kept.parent.mkdir(exist_ok=True)
            (stage / LOG).replace(kept)
        except OSError:
            return ""
        return str(kept)

    def _failed(self, build: EngineBuild, reason: Reason, message: str, log: str = "") -> EngineInstallFailed:
        return EngineInstallFailed(f"{build.id}: {message}", build=build.id, reason=reason, log=log)


def _explained(failures: list[AttemptFailed]) -> AttemptFailed:
    """The failure to report: the last one, with why there was no prebuilt wheel where that would have helped."""
    *earlier, last = failures
    if last.reason == "compiler_missing" and earlier:
        return AttemptFailed(last.reason, f"{last}; a prebuilt one could not be had either: {earlier[0]}")
    return last


def _delete(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)


def _switch(target: Path, final: Path, record: EngineRecord) -> None:
    """Put a checked build in place. The rename is the moment from which it counts."""
    installed.write_record(target, record)
    installed.discard(final)  # an older or damaged directory of that name
    target.rename(final)
    installed.sync_directory(final.parent)


def _settle(stage: Path) -> list[Library]:
    """Hash the libraries and force them to the disk; the log goes along with the build."""
    target = stage / "target"
    libraries = installed.libraries(target)
    if not libraries:
        raise AttemptFailed("check_failed", "the package holds no native library")
    for library in libraries:
        with (target / library.path).open("rb") as file:
            os.fsync(file.fileno())
    (stage / LOG).replace(target / LOG)
    return libraries


def _os_failure(failure: OSError) -> tuple[Reason, str]:
    if failure.errno in (errno.ENOSPC, errno.EDQUOT):
        return "disk_full", "the disk is full: the engine could not be written"
    if isinstance(failure, PermissionError):
        return "permission", f"the engine's folder cannot be written: {failure.filename or failure}"
    return "build_failed", f"the engine could not be installed: {failure}"


def _ending(status: int) -> str:
    import signal

    if status == 128 + 4:  # SIGILL
        return "it uses instructions this processor does not have"
    if status > 128 and status - 128 in list(signal.Signals):
        return f"it was ended by {signal.Signals(status - 128).name}"
    return f"its check ended with status {status}"
