"""Installs an engine build: staged, checked in a child process, then switched into place by one rename.

Where a build comes from, in this order: a wheel file the person gave; a prebuilt wheel of the variant's
index; the source distribution, compiled here (from uv's cache without the network when everything is there).
The source and every dependency are pinned by SHA-256. A prebuilt wheel cannot be: its hash is not known when
this software is released, so it is trusted as far as TLS to its index and the hash the index tells go, its
libraries' hashes are recorded as they arrived, and `pinned` is false in `engine.json`. `wheels=False` takes pinned
sources only.

Interrupted anywhere, also by SIGKILL, it leaves nothing that counts, and `.kept-<build>` with what the next attempt
goes on with; that folder goes when the build is in place.

It does not choose a build (`builds.py`, hooks) and never imports an engine.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from jan_core.types import EngineBuild

from . import choice, installed
from .check import check
from .diagnosis import AttemptFailed, Reason
from .durable import sync_directory
from .errors import EngineInstallFailed
from .lock import held
from .progress import OnProgress, Progress, Tracker
from .record import EngineRecord, InstalledEngine, Library
from .sources import Obtained, Sources
from .workshop import LOG, Workshop

__all__ = ["EngineInstaller"]


_CHECK_SECONDS = 600.0  # the first start of a GPU build may compile its kernels

Origin = Literal["source", "wheel", "wheel-file"]


class EngineInstaller:
    """Installs into `engines` (the folder `<data>/engines`).

    `check_model`: a GGUF file that a fresh build must be able to run. `offline`: open no socket. `wheels`:
    whether prebuilt wheels, which are not pinned, may be used, `sources`: whether it may be compiled here.
    `check_seconds`: how long the check may take.
    """

    def __init__(
        self,
        engines: Path,
        *,
        check_model: Path | None = None,
        offline: bool = False,
        wheels: bool = True,
        sources: bool = True,
        check_seconds: float = _CHECK_SECONDS,
    ) -> None:
        self._engines = engines.absolute()
        self._check_model = check_model
        self._offline = offline
        self._wheels = wheels
        self._sources = sources
        self._check_seconds = check_seconds

    async def ensure(
        self, build: EngineBuild, on_progress: OnProgress, *, wheel: Path | None = None, sha256: str = ""
    ) -> InstalledEngine:
        """The build, installed if it is not yet; `wheel`: anew, from this file (absolute path), which must have the
        hash `sha256` (hex) if one is given.

        Processes that want the same build wait for the first one.

        Raises EngineInstallFailed; its `log` then names a file with the full output. Cancelling ends every
        child process and leaves nothing that counts. The generation before stays where it is.
        """
        if build.refused:
            raise EngineInstallFailed(f"{build.id}: {build.refused}", build=build.id, reason="refused")
        if not installed.is_name(build.id):
            raise EngineInstallFailed(f"{build.id!r} is no id of a build", build=build.id, reason="refused")
        if wheel is None and (engine := installed.find(self._engines, build.id)):
            return engine
        given = _Given(wheel, sha256) if wheel else None
        tracker = Tracker(on_progress)
        waiting = Progress("waiting", f"another process is installing {build.id}; waiting for it")
        try:
            self._engines.mkdir(parents=True, exist_ok=True)
            async with held(self._engines / f".lock-{build.id}", lambda: tracker.show(waiting)) as lock:
                if wheel is None and (engine := installed.find(self._engines, build.id)):
                    return engine
                return await self._install(build, tracker, lock, given)
        except OSError as failure:
            raise self._failed(build, *_os_failure(failure)) from failure

    async def _install(self, build: EngineBuild, tracker: Tracker, lock: int, given: _Given | None) -> InstalledEngine:
        import anyio

        async with self._staging(build.id) as stage:
            shop = Workshop(stage, installed.kept(self._engines, build.id), tracker, lock)
            tried: list[_Tried] = []
            try:
                origin, obtained, devices = await self._obtain(build, shop, given, tried)
                number, final = installed.next_generation(self._engines, build.id)
                record = EngineRecord(
                    id=build.id,
                    generation=number,
                    variant=build.variant,
                    version=build.version,
                    origin=origin,
                    pinned=origin == "source",
                    installed_at=datetime.now(UTC).isoformat(timespec="seconds"),
                    devices=devices,
                    libraries=await anyio.to_thread.run_sync(_settle, stage),
                    wheel=obtained.wheel,
                    sha256=obtained.sha256,
                    verified=_verifier(origin, obtained),
                )
            except (AttemptFailed, OSError) as failure:
                log = self._keep_log(build.id, stage)
                reason, message = (
                    (failure.reason, str(failure)) if isinstance(failure, AttemptFailed) else _os_failure(failure)
                )
                raise self._failed(build, reason, message, log, tried) from None
            await anyio.to_thread.run_sync(_switch, shop.target, final, record)
            await anyio.to_thread.run_sync(_clear, shop.kept)
        return InstalledEngine(final, record)

    async def _obtain(
        self, build: EngineBuild, shop: Workshop, given: _Given | None, tried: list[_Tried]
    ) -> tuple[Origin, Obtained, list[str]]:
        """Fill the workshop's `target` by the first way that works; returns which, what was taken, and the devices."""
        import anyio

        ways: list[Origin] = ["wheel-file"] if given else []
        if not given and self._wheels and not self._offline and build.index:
            ways.append("wheel")
        if not given and self._sources:
            ways.append("source")
        if not ways:
            raise AttemptFailed("refused", "there is no prebuilt engine for this build, and compiling is switched off")
        sources = Sources(shop, offline=self._offline)
        for way in ways:
            await anyio.to_thread.run_sync(_delete, shop.target)
            try:
                if given:
                    obtained = await sources.from_file(given.wheel, build.version, given.sha256)
                elif way == "wheel":
                    obtained = await sources.from_index(build)
                else:
                    obtained = await sources.from_source(build)
                return way, obtained, await check(shop, build, self._check_model, self._check_seconds)
            except AttemptFailed as failure:
                tried.append(_Tried(way, failure))
                if failure.reason == "no_device":
                    break  # nor would another way of getting it find one
        raise _explained(tried)

    @asynccontextmanager
    async def _staging(self, build: str) -> AsyncIterator[Path]:
        """A fresh directory beside the final one (same file system: the switch is a rename). Its lock is
        held.
        """
        import anyio

        for old in [*self._engines.glob(f".staging-{glob.escape(build)}~*"), *self._engines.glob(".trash-*")]:
            await anyio.to_thread.run_sync(_delete, old)
        stage = self._engines / f".staging-{build}~{uuid.uuid4().hex[:12]}"
        (stage / "tmp").mkdir(parents=True)
        try:
            yield stage
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(_delete, stage)
                await anyio.to_thread.run_sync(_tidy, installed.kept(self._engines, build))

    def _keep_log(self, build: str, stage: Path) -> str:
        """Move the log of a failed installation to `logs/<build>.log`, over that of the one before."""
        kept = self._engines / "logs" / f"{build}.log"
        try:
            kept.parent.mkdir(exist_ok=True)
            (stage / LOG).replace(kept)
        except OSError:
            return ""
        return str(kept)

    def _failed(
        self, build: EngineBuild, reason: Reason, message: str, log: str = "", tried: Sequence[_Tried] = ()
    ) -> EngineInstallFailed:
        ways = [{"way": way, "reason": failure.reason, "message": str(failure)} for way, failure in tried]
        return EngineInstallFailed(f"{build.id}: {message}", build=build.id, reason=reason, log=log, tried=ways)


class _Given(NamedTuple):
    """A wheel file of the person's, and what it must hash to, if that is known."""

    wheel: Path
    sha256: str


class _Tried(NamedTuple):
    way: Origin
    failure: AttemptFailed


def _verifier(origin: Origin, obtained: Obtained) -> Literal["index", "person", "nobody"]:
    if not obtained.verified:
        return "nobody"
    return "index" if origin == "wheel" else "person"


def _explained(tried: Sequence[_Tried]) -> AttemptFailed:
    """The failure to report: the last one, with why there was no prebuilt wheel."""
    last = tried[-1].failure
    if len(tried) == 1:
        return last
    return AttemptFailed(last.reason, f"{last}; a prebuilt one could not be had either: {tried[0].failure}")


def _delete(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)


def _tidy(kept: Path) -> None:
    """Take away what is empty of what is kept."""
    for path in (*kept.glob("*"), kept):
        with contextlib.suppress(OSError):
            path.rmdir()


def _clear(kept: Path) -> None:
    with contextlib.suppress(OSError):  # it is only in the way
        installed.discard(kept)


def _switch(target: Path, final: Path, record: EngineRecord) -> None:
    """Put a checked build in place. The rename is the moment from which it counts, and from which it is in use."""
    engines = final.parent
    installed.write_record(target, record)
    installed.discard(final)  # what lies there does not count
    known = choice.read(engines)
    if final.name in known.aside or final.name in known.proven:
        choice.change(engines, partial(choice.Choice.forget, name=final.name))
    target.rename(final)
    sync_directory(engines)
    installed.prune(engines, record.id)
    for name, entry in known.aside.items():
        if entry.id == record.id and not (engines / name).exists():
            choice.change(engines, partial(choice.Choice.forget, name=name))


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
