"""What can go wrong with an engine build, as typed errors (codes -32040 to -32042)."""

from __future__ import annotations

from jan_core.errors import JanError

__all__ = ["EngineInUse", "EngineInstallFailed", "EngineNotFound"]


class EngineInstallFailed(JanError):
    """A build could not be installed. Nothing half-made is left.

    `data.reason` is one of `compiler_missing`, `network`, `disk_full`, `build_failed`, `check_failed`,
    `permission` and `refused`; `data.log` is the file that holds the full output, empty when nothing was run.
    """

    code, type = -32040, "engine_install_failed"

    def __init__(self, message: str, /, *, build: str, reason: str, log: str = "") -> None:
        super().__init__(message, build=build, reason=reason, log=log)
        self.reason = reason


class EngineNotFound(JanError):
    """No build of this id is known, or it is not installed. `data.known` lists the ids that are."""

    code, type = -32041, "engine_not_found"


class EngineInUse(JanError):
    """A loaded model runs on this build; unload it first. `data.models` names the models."""

    code, type, retryable = -32042, "engine_in_use", True
