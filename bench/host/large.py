"""Writes an extension of 5,000 lines: Structs, helpers and methods in many modules, as a grown one would have them.

Every module has a number that says when it was saved last; `many.stamp` answers the highest of them, `many.stream`
sends numbered items. So a client sees which code serves it.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["MODULES", "Large"]

MODULES = 25
SECTIONS = 6

PROJECT = """\
[project]
name = "jan-many"
version = "0"
requires-python = ">=3.11"
dependencies = ["jan-core"]

[project.entry-points."jan.extensions"]
many = "jan_many:Many"

[tool.jan.extension]
id = "many"
requires-core = ">=1"
activation = "startup"
methods = ["many."]
"""

PACKAGE = '''\
"""Many modules and methods; written to be reloaded."""

from __future__ import annotations

import asyncio

import msgspec

from jan_core import Call, Empty, Method, hookimpl, method, methods_of

{imports}

PARTS = [{parts}]


class Stamp(msgspec.Struct):
    """When what serves was saved: its latest module, and its oldest."""

    stamp: int
    oldest: int


class Wanted(msgspec.Struct):
    """A stream: so many items, so many seconds apart."""

    count: int
    pause: float = 0.0


class Item(msgspec.Struct):
    """Item number `seq` from the code that was saved at `stamp`."""

    seq: int
    stamp: int


class State(msgspec.Struct):
    """What the next generation takes over."""

    served: int = 0
    seen: list[str] = []


class Many:
    """The plugin."""

    def __init__(self) -> None:
        self._state = State()

    @hookimpl
    def jan_methods(self) -> list[Method]:
        return methods_of(self, *(part.Part() for part in PARTS))

    @hookimpl
    def jan_export_state(self) -> State:
        return self._state

    @hookimpl
    def jan_restore_state(self, state: object) -> None:
        self._state = msgspec.convert(state, State)

    @method("many.stamp")
    def stamp(self, params: Empty) -> Stamp:
        """Which code serves."""
        self._state.served += 1
        return stamp()

    @method("many.stream", item=Item)
    async def stream(self, params: Wanted, call: Call) -> Stamp:
        """Send numbered items."""
        served = stamp()
        for seq in range(params.count):
            await call.send(Item(seq, served.stamp))
            await asyncio.sleep(params.pause)
        return served


def stamp() -> Stamp:
    stamps = [part.STAMP for part in PARTS]
    return Stamp(max(stamps), min(stamps))
'''

MODULE_HEAD = '''\
"""Part {part}."""

from __future__ import annotations

import msgspec

from jan_core import method

STAMP = {stamp}


'''

MODULE_SECTION = '''\
class Ask{n}(msgspec.Struct, forbid_unknown_fields=True):
    """What `many.p{part}_{n}` is asked."""

    name: str
    limit: int = 10
    tags: list[str] = []
    weights: dict[str, float] = {{}}


class Answer{n}(msgspec.Struct):
    """What `many.p{part}_{n}` answers."""

    names: list[str]
    total: float = 0.0
    complete: bool = True


def rank{n}(names: list[str], weights: dict[str, float]) -> list[str]:
    """Order names by weight, then by themselves."""
    known = [name for name in names if name in weights]
    unknown = sorted(set(names) - set(known))
    known.sort(key=lambda name: (-weights[name], name))
    return known + unknown


'''

MODULE_CLASS = '''\
class Part:
    """The methods of part {part}."""
'''

MODULE_METHOD = '''
    @method("many.p{part}_{n}")
    def do{n}(self, params: Ask{n}) -> Answer{n}:
        """Rank some tags."""
        names = rank{n}(params.tags, params.weights)[: params.limit]
        if not names:
            return Answer{n}([], complete=False)
        return Answer{n}(names, sum(params.weights.values()))
'''


class Large:
    """The extension in a folder; `save` changes it as an editor would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "many"
        self._package = self.folder / "src" / "jan_many"
        self._beside = folder / "being-written"
        self._package.mkdir(parents=True)
        self._beside.mkdir()
        names = [f"part{number:02}" for number in range(MODULES)]
        imports = "from . import (\n" + "".join(f"    {name},\n" for name in names) + ")"
        self._write(self.folder / "pyproject.toml", PROJECT)
        self._write(self._package / "__init__.py", PACKAGE.format(imports=imports, parts=", ".join(names)))
        for number in range(MODULES):
            self._write(self._path(number), self._module(number, 0))

    def lines(self) -> int:
        """Lines of code in all of it."""
        return sum(path.read_text().count("\n") for path in self._package.glob("*.py"))

    def write_aside(self, stamp: int, *, whole: bool = False) -> None:
        """Write what is saved next, aside: one module, another each time, or the `whole` of them."""
        for number in range(MODULES) if whole else [stamp % MODULES]:
            self._write(self._beside / self._path(number).name, self._module(number, stamp))

    def save(self) -> None:
        """Rename what was written aside over what it replaces, as an editor does."""
        for path in self._beside.iterdir():
            path.replace(self._package / path.name)

    def _path(self, number: int) -> Path:
        return self._package / f"part{number:02}.py"

    def _module(self, number: int, stamp: int) -> str:
        part = f"{number:02}"
        sections = "".join(MODULE_SECTION.format(part=part, n=n) for n in range(SECTIONS))
        methods = "".join(MODULE_METHOD.format(part=part, n=n) for n in range(SECTIONS))
        return MODULE_HEAD.format(part=part, stamp=stamp) + sections + MODULE_CLASS.format(part=part) + methods

    def _write(self, path: Path, text: str) -> None:
        path.write_text(text, "utf-8")
