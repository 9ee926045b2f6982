"""The methods the host itself serves: handshake, extensions, settings, system.

They stand in the same table as everybody's. What a session may call when is the peer's business (`rpc/peer.py`).
"""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct

from . import API_VERSION
from .errors import InvalidParams
from .extension import ExtensionInfo, State
from .lifecycle import CORE_PREFIXES
from .methods import Empty, method
from .metrics import Metrics, gather
from .settings import FILE

if TYPE_CHECKING:
    from .host import Host

__all__ = ["PROTOCOL_VERSION", "CoreMethods", "ServerInfo"]

PROTOCOL_VERSION = "1.0"

LOW_DISK = 1 << 30
"""Bytes free below which `system.doctor` warns: less than this and not even a small model fits."""


class ClientInfo(Struct):
    name: str = ""
    version: str = ""


class InitializeParams(Struct, rename="camel"):
    """The first request of a session. Unknown members are ignored: a newer client may know more."""

    protocol_version: str = PROTOCOL_VERSION
    client_info: ClientInfo = msgspec.field(default_factory=ClientInfo)
    capabilities: dict[str, Any] = {}


class ServerInfo(Struct):
    """Who we say we are in `initialize`."""

    name: str = "jan-core"
    version: str = "0"
    pid: int = 0


class InitializeResult(Struct, rename="camel"):
    """Who answers, what it can do, and what is installed. `capabilities` are computed from what is there."""

    protocol_version: str
    server_info: ServerInfo
    capabilities: dict[str, Any]
    extensions: list[ExtensionInfo]
    schema_hash: str


class SettingsQuery(Struct, forbid_unknown_fields=True):
    """`extension`: one section only; empty: all."""

    extension: str = ""


class SettingsChange(Struct, forbid_unknown_fields=True):
    """New values by name; null goes back to the default."""

    extension: str
    values: dict[str, Any]


class SettingsValues(Struct):
    """Values by extension and name."""

    settings: dict[str, dict[str, Any]]


class SettingsSchemas(Struct):
    """JSON Schemas by extension."""

    schemas: dict[str, dict[str, Any]]


class SystemInfo(Struct):
    """This process and machine. `uptime` in seconds, sizes in bytes."""

    version: str
    api_version: str
    protocol_version: str
    python: str
    platform: str
    pid: int
    data_dir: str
    disk_free: int
    uptime: float


class Finding(Struct, omit_defaults=True):
    """One line of `system.doctor`: what was looked at, how it is, and what to do about it."""

    check: str
    status: Literal["ok", "warn", "fail"]
    message: str
    advice: str = ""


class Findings(Struct):
    findings: list[Finding]


class CoreMethods:
    """Bound to one host."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._began = time.monotonic()

    @method("initialize")
    def initialize(self, params: InitializeParams) -> InitializeResult:
        """Begin a session. Nothing is imported for it: extensions are listed from their manifests."""
        host, server = self._host, self._host.server
        namespaces = sorted(
            {prefix.rstrip(".") for prefix in CORE_PREFIXES}
            | {
                prefix.rstrip(".")
                for e in host.lifecycle.extensions.values()
                if e.manifest and e.state not in (State.FAILED, State.DISABLED, State.QUARANTINED)
                for prefix in e.manifest.methods
            }
        )
        return InitializeResult(
            PROTOCOL_VERSION,
            ServerInfo(server.name, server.version, os.getpid()),
            {"namespaces": namespaces, "streams": True, "progress": True, "cancellation": True, "batches": True},
            [e.info() for e in host.lifecycle.extensions.values()],
            host.lifecycle.schema_hash(),
        )

    @method("initialized")
    def initialized(self, params: Empty) -> None:
        """The client is ready: extensions that want to start with the application are started, in the background."""
        self._host.activate_startup_soon()

    @method("shutdown")
    async def shutdown(self, params: Empty) -> None:
        """End the session's work. Answered when running requests have ended; new ones are refused. `exit` follows."""

    @method("ping")
    def ping(self, params: Empty) -> Empty:
        """Nothing, quickly."""
        return Empty()

    @method("rpc.discover")
    async def discover(self, params: Empty) -> dict[str, Any]:
        """The OpenRPC document of everything that can be called. Activates every extension that is not off."""
        from .rpc.openrpc import document

        host = self._host
        await host.lifecycle.activate_all()
        # In a thread: it takes some 25 ms. Of a copy: the table may change meanwhile.
        name, version = host.server.name, host.server.version
        return await asyncio.to_thread(document, dict(host.table), title=name, version=version)

    @method("settings.schema")
    def settings_schema(self, params: SettingsQuery) -> SettingsSchemas:
        """JSON Schema (2020-12) of the settings of active extensions."""
        kinds = self._settings_types(params.extension)
        return SettingsSchemas({name: msgspec.json.schema(kind) for name, kind in kinds.items()})

    @method("settings.get")
    def settings_get(self, params: SettingsQuery) -> SettingsValues:
        """Current settings of active extensions, defaults included."""
        read = self._host.settings.read
        kinds = self._settings_types(params.extension)
        return SettingsValues({name: msgspec.to_builtins(read(name, kind)) for name, kind in kinds.items()})

    @method("settings.set")
    def settings_set(self, params: SettingsChange) -> SettingsValues:
        """Change settings of one extension. Durable when answered; a value that does not fit changes nothing."""
        from .events import Event

        kind = self._settings_types(params.extension)[params.extension]
        values = msgspec.to_builtins(self._host.settings.write(params.extension, kind, params.values))
        self._host.bus.emit(Event("settings.changed", {"extension": params.extension, "values": values}))
        return SettingsValues({params.extension: values})

    @method("system.info")
    def info(self, params: Empty) -> SystemInfo:
        """This process and where it keeps its data."""
        return SystemInfo(
            version=self._host.server.version,
            api_version=API_VERSION,
            protocol_version=PROTOCOL_VERSION,
            python=platform.python_version(),
            # Not platform.platform(), which has a process tell it what kind of processor this is.
            platform="-".join((platform.system(), platform.release(), platform.machine())),
            pid=os.getpid(),
            data_dir=str(self._host.data_dir),
            disk_free=shutil.disk_usage(self._host.data_dir).free,
            uptime=time.monotonic() - self._began,
        )

    @method("system.doctor")
    async def doctor(self, params: Empty) -> Findings:
        """Look for what a person could mend: the data folder, the settings, each extension."""
        await self._host.activate_startup()
        overlay = await asyncio.to_thread(self._check_installed)
        return Findings([*self._check_folder(), *self._check_settings(), *overlay, *self._check_extensions()])

    @method("system.metrics")
    def metrics(self, params: Empty) -> Metrics:
        """Figures of this process since it began."""
        return gather(self._host, time.monotonic() - self._began)

    def _settings_types(self, only: str) -> dict[str, type[Struct]]:
        active = {
            e.id: e.current.settings_type
            for e in self._host.lifecycle.extensions.values()
            if e.current is not None and e.current.settings_type is not None
        }
        if not only:
            return active
        if only not in active:
            raise InvalidParams(
                f"no active extension {only!r} with settings; there are: {', '.join(active)}", path="$.extension"
            )
        return {only: active[only]}

    def _check_folder(self) -> list[Finding]:
        folder = self._host.data_dir
        if not os.access(folder, os.W_OK):
            return [Finding("data folder", "fail", f"{folder} cannot be written", "check its owner and permissions")]
        free = shutil.disk_usage(folder).free
        message = f"{folder}, {free / 1e9:.1f} GB free"
        if free < LOW_DISK:
            return [Finding("data folder", "warn", message, "free some space before downloading models")]
        return [Finding("data folder", "ok", message)]

    def _check_settings(self) -> list[Finding]:
        self.settings_get(SettingsQuery())  # looks at every field
        problems = self._host.settings.problems
        if not problems:
            return [Finding("settings", "ok", "all values fit")]
        return [
            Finding("settings", "fail", text, "mend the file, or move it away")
            if name == FILE
            else Finding("settings", "warn", f"{name}: {text}", f"set it anew with: jan settings set {name} VALUE")
            for name, text in problems.items()
        ]

    def _check_installed(self) -> list[Finding]:
        from .install.report import findings

        return [Finding("installed extensions", *found) for found in findings(self._host.data_dir)]

    def _check_extensions(self) -> list[Finding]:
        findings = []
        for e in self._host.lifecycle.extensions.values():
            name = f"extension {e.id}"
            if e.failure is not None:
                where = f" ({e.failure.file}:{e.failure.line})" if e.failure.file else ""
                serving = e.state is State.ACTIVE
                status: Literal["warn", "fail"] = "warn" if serving else "fail"
                advice = "it goes on serving; " if serving else "the others go on without it; "
                message = f"{e.failure.stage}: {e.failure.message}{where}"
                findings.append(Finding(name, status, message, f"{advice}see what to do with: jan ext doctor {e.id}"))
            elif e.leaks:
                advice = "register through the context what must end with the extension"
                findings.append(Finding(name, "warn", f"in memory after its end: {e.leaks[-1]}", advice))
            else:
                findings.append(Finding(name, "ok", f"{e.version} is {e.state.value}"))
        if not findings:
            findings.append(
                Finding("extensions", "warn", "none is installed", f"{sys.executable} has no jan.extensions packages")
            )
        return findings
