"""One remote engine as a person configured it: a row of the setting `remotes`. Never its key."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from jan_core.types import InferenceEngine

from .address import Address, address_of

__all__ = ["KeyPlace", "Remote", "engine_of"]

KeyPlace = Literal["none", "keyring", "file"]
ModelName = Annotated[str, Meta(min_length=1, max_length=512)]
Seconds = Annotated[float, Meta(gt=0, le=3600)]


class Remote(Struct, frozen=True, omit_defaults=True):
    """An OpenAI-compatible endpoint. A request asks for one of its models as `ID/MODEL`.

    `base_url` is what `/chat/completions` is put behind, as `https://api.example.com/v1`. `models`: those it may be
    asked for; empty: any. `key` says where the key is kept. `connect_seconds`, `first_byte_seconds` and `idle_seconds`
    bound the connection, the wait for the answer's beginning, and each pause in it. `retries`: how often a request that
    brought no byte yet is sent again. `context`: the tokens its models take, prompt and answer together; 0: nobody
    knows. `ca_file`: the only certificates to trust here, in place of the public ones (PEM, absolute path). `proxy`: an
    HTTP proxy for TLS; the environment's are not used. `on_this_machine`: the person's word that it answers here and
    hands nothing on, so that policy counts it as local; for loopback addresses alone.
    """

    id: Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?\Z")]
    base_url: Annotated[str, Meta(max_length=2048)]
    models: Annotated[tuple[ModelName, ...], Meta(max_length=1000)] = ()
    key: KeyPlace = "none"
    connect_seconds: Seconds = 10.0
    first_byte_seconds: Seconds = 120.0
    idle_seconds: Seconds = 60.0
    retries: Annotated[int, Meta(ge=0, le=5)] = 2
    context: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    ca_file: str = ""
    proxy: Annotated[str, Meta(max_length=2048)] = ""
    on_this_machine: bool = False

    def __post_init__(self) -> None:
        address = self.address
        if self.on_this_machine and not address.loopback:
            raise ValueError(f"{address.host} is not on this machine")
        if self.proxy:
            if address.scheme != "https":
                raise ValueError("a proxy is for https only")
            if address.loopback:  # it would connect to itself, and what is for this machine alone would leave it
                raise ValueError("a proxy does not reach this machine's own addresses")
            address_of(self.proxy, plain=True)

    @property
    def address(self) -> Address:
        """Where it is, read from `base_url`."""
        return address_of(self.base_url)

    def serves(self, model: str) -> bool:
        """Whether a request for this model may be answered here: `ID/MODEL`, or one of `models` by itself."""
        name = model.removeprefix(f"{self.id}/")
        return name in self.models if self.models else name != model


def engine_of(remote: Remote) -> InferenceEngine:
    """The engine that a remote is to the house: requests reach it through `remotes.complete`, by its model's name."""
    kind: Literal["local", "remote"] = "local" if remote.on_this_machine else "remote"
    return InferenceEngine(remote.id, kind, "remotes.complete", [f"{remote.id}/{model}" for model in remote.models])
