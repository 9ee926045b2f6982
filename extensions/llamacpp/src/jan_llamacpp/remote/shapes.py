"""What the methods `remotes.*` take and return."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from .remote import KeyPlace, Remote

__all__ = ["AddRemote", "RemoteAsked", "RemoteId", "RemoteList", "RemoteTest"]


class AddRemote(Struct, forbid_unknown_fields=True):
    """`remote.key` is not looked at: where the key is kept shows when it is. `key` is never given out again.

    `replace`: change the engine of that id; without a `key` it keeps the one it has, if its address stays the same.
    """

    remote: Remote
    key: Annotated[str, Meta(min_length=1, max_length=4096, pattern=r"^[\x21-\x7e]+\Z")] | None = None
    replace: bool = False

    def __repr__(self) -> str:
        return f"AddRemote(remote={self.remote!r}, replace={self.replace!r})"


class RemoteId(Struct, forbid_unknown_fields=True):
    """A remote engine's id."""

    id: Annotated[str, Meta(min_length=1, max_length=64)]


class RemoteList(Struct):
    """`kept_here`: why no request goes to them now; empty: the policy allows it."""

    remotes: list[Remote]
    kept_here: str


class RemoteTest(Struct):
    """A remote engine answers. `models`: those it names; empty where it does not list them. `seconds` it took."""

    id: str
    models: list[str]
    seconds: float
    key: KeyPlace


class RemoteAsked(Struct):
    """Data of the event `remotes.asked`: a request is being sent to an endpoint. `local`: which is on this machine."""

    remote: str
    origin: str
    model: str
    thread_id: str | None
    local: bool
