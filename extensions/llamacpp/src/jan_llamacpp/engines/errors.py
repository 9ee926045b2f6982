"""What can go wrong with an engine build, as typed errors (codes -32040 to -32042)."""

from __future__ import annotations

from jan_core.errors import JanError

__all__ = ["EngineInUse", "EngineInstallFailed", "EngineNotFound"]


class EngineInstallFailed(JanError):
    """A build could not be installed. Nothing that counts is left; what was fetched or compiled may be kept for the
    next attempt.

    `data.reason`: of getting it, `network` (no connection), `slow` (no byte within the limit), `not_found`, `server`
    (it refuses otherwise), `web_page` (neither an index nor a file: a sign-in page), `truncated`, `wrong_hash`,
    `disk_full` and `permission`; of a wheel, `not_a_wheel`, `wrong_package`, `wrong_version` and `wrong_platform`; of
    compiling, `compiler_missing` and `build_failed`; of running it, `check_failed`, and `no_device`: a GPU build that
    finds no GPU; `refused`: not tried.
    `data.tried`: each way that was tried, as `{way, reason, message}`. `data.log` is the file with the full output,
    empty when nothing was run.
    """

    code, type = -32040, "engine_install_failed"

    def __init__(
        self, message: str, /, *, build: str, reason: str, log: str = "", tried: list[dict[str, str]] | None = None
    ) -> None:
        super().__init__(message, build=build, reason=reason, log=log, tried=tried or [])
        self.reason = reason


class EngineNotFound(JanError):
    """No build of this id is known, or it is not installed. `data.known` lists the ids that are."""

    code, type = -32041, "engine_not_found"


class EngineInUse(JanError):
    """A model runs on this build, or is being loaded on it; unload it first. `data.models` names the models."""

    code, type, retryable = -32042, "engine_in_use", True
