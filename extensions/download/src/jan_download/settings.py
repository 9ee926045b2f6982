"""Settings of the extension."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["DownloadSettings"]

Seconds = Annotated[float, Meta(gt=0, le=3600)]


class DownloadSettings(Struct):
    """`jan settings set download.…`; read anew for each job that starts."""

    max_running: Annotated[int, Meta(ge=1, le=16)] = 2
    """Jobs that move bytes at the same time; the others are queued."""
    reserve_bytes: Annotated[int, Meta(ge=0)] = 1 << 30
    """Free disk space that downloads leave alone."""
    resume_at_start: bool = True
    """Go on by itself with what a crash or an exit interrupted. Otherwise such jobs are paused."""
    connect_timeout: Seconds = 10.0
    stall_timeout: Seconds = 30.0
    """A connection that brings no byte for this long (s) is given up and tried again."""
    retry_first: Annotated[float, Meta(gt=0, le=60)] = 1.0
    retry_longest: Seconds = 60.0
    """The pause before a retry (s) doubles from the first to the longest; a server's Retry-After wins when
    it is longer."""
