"""Settings of the extension."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

__all__ = ["RegistrySettings", "SourceSetting"]

Address = Annotated[str, Meta(pattern=r"^((https?|file)://[\x21-\x7e]+)?$", max_length=2048)]


class SourceSetting(Struct, omit_defaults=True):
    """Another hub that may be asked. `id` names it here; `url` is for kinds that have no address of their own.

    `token` goes to that host and to no other; rather than a token, name a variable of the environment: `$HF_TOKEN`.
    """

    id: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
    kind: Literal["huggingface", "jan-catalogue", "cortexso", "oci", "modelscope", "lmstudio", "openai", "kinto", "hub"]
    url: Address = ""
    title: str = ""
    token: str = ""
    options: dict[str, str] = field(default_factory=dict)


class RegistrySettings(Struct, frozen=True):
    """`jan settings set registry.url …`; read anew each time."""

    url: Address = ""
    """The signed hub. Empty: none, and the network is not used; what is shown was shipped with the program."""
    root: str = ""
    """The path of the hub's first root metadata (`1.root.json`), got from its operator. Empty: the one that was shipped
    with the program."""
    refresh_seconds: Annotated[int, Meta(ge=0, le=30 * 86400)] = 4 * 3600
    """How often the hub is asked in the background, give or take a fifth (every 15 minutes while the list is being
    looked at); 0: only on request. At least a minute."""
    timeout_seconds: Annotated[float, Meta(gt=0, le=300)] = 10.0
    """For one file, from the first connection to the last byte; one that keeps coming (16 KiB a second or more) may
    take longer."""
    phase: Literal["", "fallback", "mixed", "dynamic"] = ""
    """The phase of the roll-out this person wants; empty: what the operator says."""
    region: Annotated[str, Meta(pattern=r"^([A-Z]{2})?$")] = ""
    """ISO 3166-1, for lists that are meant for a region; empty: that of the locale. The address on the network is never
    looked at."""
    experiments: bool = True
    """Whether this machine takes part in experiments on what is featured. Nothing of them leaves it."""
    sources: list[SourceSetting] = field(default_factory=list)
    """Other hubs beside those that are known by name; asked only when somebody names them."""
