"""What a request for bytes can end in, beside the errors that a person sees (`jan_download.errors`)."""

from __future__ import annotations

from ..errors import BadSource, SourceUnreachable

__all__ = ["Changed", "NoRanges", "Unreachable"]


class Unreachable(Exception):
    """The source fails for now. `error`: what a person is told.

    `delay`: seconds the server asked to wait, 0 when it did not. `offline`: it is this machine that has no network.
    `status`: the HTTP status, 0 when there was no answer. `brought`: bytes of the body that came before it broke.
    """

    def __init__(
        self, message: str, delay: float = 0.0, offline: bool = False, *, status: int = 0, brought: int = 0
    ) -> None:
        super().__init__(message)
        self.error = SourceUnreachable(message)
        self.delay, self.offline, self.status, self.brought = delay, offline, status, brought


class NoRanges(BadSource):
    """The source gives the whole file only, though a part was asked for."""


class Changed(BadSource):
    """The source has another version of the file than before, or one of another size than was asked for."""
