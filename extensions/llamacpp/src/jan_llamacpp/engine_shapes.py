"""What the methods of engine builds take and return, beside the shapes of `jan_core.types`."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from jan_core.types import EngineBuild, Hardware

from .engines.record import EngineRecord

__all__ = [
    "EngineChanged",
    "EngineId",
    "EngineList",
    "Explanation",
    "InstallEngine",
    "RollbackEngine",
    "SetAside",
    "UseEngine",
    "Verdict",
]


class EngineId(Struct, forbid_unknown_fields=True):
    """A build's id."""

    id: Annotated[str, Meta(min_length=1, max_length=256)]


class EngineChanged(Struct):
    """Data of the event `engines.changed`: a build was installed or removed, or with a `reason`, set aside or not used
    this time.
    """

    id: str
    installed: bool
    reason: str = ""


class InstallEngine(Struct, forbid_unknown_fields=True):
    """`id` empty: the build chosen for this machine. `wheel`: take the engine from this file (absolute path), which
    must have this `sha256` (hex) if one is given. With a wheel and no `id`, the build is of the wheel's version.
    """

    id: str = ""
    wheel: str = ""
    sha256: Annotated[str, Meta(pattern="^([0-9a-fA-F]{64})?$")] = ""


class UseEngine(Struct, forbid_unknown_fields=True):
    """`id`: an installed build, or empty: whichever the house chooses."""

    id: str = ""


class RollbackEngine(Struct, forbid_unknown_fields=True):
    """`id` empty: the build that is in use."""

    id: str = ""


class SetAside(Struct):
    """A build that is neither used nor installed again by itself, and why.

    `generation`: the installation it is about, 0 when there is none. `by`: what showed it: its installation, its first
    use, or a person. `at`: RFC 3339, UTC.
    """

    id: str
    generation: int
    reason: str
    by: Literal["install", "use", "person"]
    at: str


class EngineList(Struct):
    """Every build that could be used here, refused ones included, and the records of those that are installed.

    `installed` has the generation in use of each build, `earlier` those that can be gone back to. `use`: the build a
    person chose, empty: the house chooses.
    """

    builds: list[EngineBuild]
    installed: list[EngineRecord]
    earlier: list[EngineRecord] = field(default_factory=list)
    set_aside: list[SetAside] = field(default_factory=list)
    use: str = ""


class Verdict(Struct):
    """What became of one candidate, and why."""

    id: str
    verdict: Literal["chosen", "usable", "refused"]
    reason: str
    installed: bool


class Explanation(Struct):
    """Which build is used on this machine and why. `by`: the extension that chose, or `person`.

    `damaged`: libraries of the chosen build that are not what was installed. `warnings`: what a person expects and does
    not get (a GPU that no driver speaks for, a setting that cannot be followed), and what to do. `set_aside`: builds
    that are not used by themselves any more.
    """

    build: str
    reason: str
    by: str
    candidates: list[Verdict]
    hardware: Hardware
    damaged: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    set_aside: list[SetAside] = field(default_factory=list)
