"""What a request for bytes can end in, beside the errors that a person sees (`jan_download.errors`)."""

from __future__ import annotations

from ..errors import BadSource, SourceUnreachable

__all__ = ["Changed", "NoRanges", "Unreachable"]


class Unreachable(Exception):
    """The source fails for now. `delay`: seconds the server asked to wait, 0 when it did not. `offline`: it is this
    machine that has no network. `error`: what a person is told."""

    def __init__(self, message: str, delay: float = 0.0, offline: bool = False) -> None:
        super().__init__(message)
        self.error = SourceUnreachable(message)
        self.delay = delay
        self.offline = offline


class NoRanges(BadSource):
    """The source gives the whole file only, though a part was asked for."""


class Changed(BadSource):
    """The source has another version of the file than before, or one of another size than was asked for."""
