"""The settings of this extension."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from .embedded import EMBEDDED_ID
from .remote.remote import Remote

__all__ = ["LlamaCppSettings", "Policy"]

_INDEX = r"^$|^https://[^/\s]+|^http://(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?(/|$)"
Positive = Annotated[int, Meta(ge=1)]
Policy = Literal["offline", "local-only", "prefer-local", "remote-allowed"]


class LlamaCppSettings(Struct, frozen=True):
    """Read anew for each request; those of a loaded model apply when it is next loaded.

    `default_model`: who answers a request that names no model. `max_loaded`: models in memory at a time.
    `queue_seconds`: how long a request waits for room, and for its turn in a busy model, before it is
    refused. `n_ctx` (tokens), `threads`: None: chosen from the model and the machine. `parallel`: requests a
    model decodes at the same time. `offline`: an engine is only installed from what is on this machine.
    `prebuilt_wheels`: whether an engine may come from a prebuilt wheel, which is not pinned by hash; else it
    is compiled here. `compile_engines`: whether that may be done, which takes minutes.
    `wheel_index`: where prebuilt wheels are looked for in place of the project's own indexes, a folder with `cpu`,
    `vulkan`, … in it; `https`, or `http` on this machine. `engine_build`: the
    build to use where it can be, by id, kind (`cuda12`) or variant (`cuda`); empty: chosen for this machine.
    `routing`: where requests may be answered. `offline`: on this machine, and no engine is
    fetched either (as the setting `offline`); `local-only`: on this machine; `prefer-local`: elsewhere when
    the model is not installed or cannot be loaded here, or the request asks for a remote one;
    `remote-allowed`: wherever the request or an extension chooses. A sensitive request is always answered
    here. `remotes`: the remote engines, as `remotes.add` keeps them. `speculate`: guess tokens that repeat the text
    before them and check several in one step. `idle_minutes`: a model nobody used for
    so long is unloaded; 0: never. `pinned`: ids of models that are not unloaded for that, nor for another
    model. `hang_seconds`: how long one step of a model, or its load without any progress, may take before its
    process is ended as hung; 0: for ever. `keep_states`: what a model has computed of a conversation is kept on the
    disk, so that it goes on after a restart without being read again; False: what was kept is deleted. `state_gib`:
    how much of that a model may keep, in GiB.
    """

    default_model: str = EMBEDDED_ID
    max_loaded: Positive = 2
    queue_seconds: Annotated[float, Meta(gt=0)] = 120.0
    n_ctx: Annotated[int, Meta(ge=64, le=2**30)] | None = None
    threads: Positive | None = None
    parallel: Annotated[int, Meta(ge=1, le=256)] = 8
    offline: bool = False
    prebuilt_wheels: bool = True
    compile_engines: bool = True
    wheel_index: Annotated[str, Meta(pattern=_INDEX, max_length=2048)] = ""
    engine_build: Annotated[str, Meta(max_length=256)] = ""
    routing: Policy = "local-only"
    remotes: tuple[Remote, ...] = ()
    speculate: bool = True
    idle_minutes: Annotated[float, Meta(ge=0)] = 60.0
    pinned: tuple[str, ...] = ()
    hang_seconds: Annotated[float, Meta(ge=0)] = 300.0
    keep_states: bool = True
    state_gib: Annotated[float, Meta(gt=0, le=4096)] = 4.0

    @property
    def policy(self) -> Policy:
        """The routing policy in force."""
        return "offline" if self.offline else self.routing
