"""Settings of the extension."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, field

__all__ = ["DownloadSettings"]

Seconds = Annotated[float, Meta(gt=0, le=3600)]
Rate = Annotated[int, Meta(ge=0)]


class DownloadSettings(Struct):
    """`jan settings set download.…`; read anew for each job that starts, limits and schedule at once."""

    max_running: Annotated[int, Meta(ge=1, le=16)] = 2
    """Jobs that move bytes at the same time; the others are queued."""
    max_connections: Annotated[int, Meta(ge=1, le=32)] = 8
    """Connections of one job, at most; how many it uses follows from what they bring."""
    limit: Rate = 0
    """Bytes a second of all downloads together; 0: as fast as it goes."""
    schedule: Annotated[str, Meta(max_length=200)] = ""
    """When bytes may be moved, in local time: `22:00-06:00`, or several, `12:00-13:00 22:00-06:00`, or with days,
    `mon-fri 22:00-06:00, sat-sun`. Empty: always."""
    reserve_bytes: Annotated[int, Meta(ge=-1)] = -1
    """Free disk space that downloads leave alone; -1: 2 GiB or 5 % of the disk, whichever is less."""
    keep_partial_days: Annotated[int, Meta(ge=0, le=365)] = 7
    """What a cancelled download had is kept this long, so that starting it again loses nothing."""
    resume_at_start: bool = True
    """Go on by itself with what a crash or an exit interrupted. Otherwise such jobs are paused."""
    adopt: bool = True
    """Take files that this machine has already (of the Hugging Face cache, Ollama, LM Studio, Jan) instead of fetching
    them."""
    adopt_folders: list[Annotated[str, Meta(max_length=4096)]] = field(default_factory=list)
    """Further folders to look through for them."""
    connect_timeout: Seconds = 10.0
    stall_timeout: Seconds = 10.0
    """A connection that brings no byte for this long (s) is given up, and another is tried."""
    retry_first: Annotated[float, Meta(gt=0, le=60)] = 1.0
    retry_longest: Seconds = 60.0
    """The pause before a retry (s) doubles from the first to the longest; a server's Retry-After wins when
    it is longer."""
    proxy: Annotated[str, Meta(max_length=2048)] = ""
    """`http://`, `https://` or `socks5h://host:port`, with `user:password@` where needed. Empty: what the environment
    says (`https_proxy`, `http_proxy`, `all_proxy`, `no_proxy`); `none`: no proxy."""
    no_proxy: Annotated[str, Meta(max_length=4096)] = ""
    """Hosts that are reached without a proxy, as in the environment's `no_proxy`."""
    certificates: Annotated[str, Meta(max_length=4096)] = ""
    """A file (or folder) of certificate authorities to trust beside the system's, as PEM."""
    tokens: dict[Annotated[str, Meta(max_length=255)], Annotated[str, Meta(max_length=4096)]] = field(
        default_factory=dict
    )
    """Tokens by host (`huggingface.co`), each sent to that host and no other; rather than a token, name a variable of
    the environment: `$HF_TOKEN`."""

    def __post_init__(self) -> None:
        if self.schedule:
            from .schedule import Schedule

            Schedule.parse(self.schedule)  # its ValueError becomes the error of the setting
