"""An extension's project on disk, for tests that edit it."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

PYPROJECT = """
[project]
name = "jan-{id}"
version = "1.0"
dependencies = {dependencies}

[project.entry-points."jan.extensions"]
{id} = "jan_{id}.plugin:Plugin"

[tool.jan.extension]
id = "{id}"
requires-core = ">=1.0,<2"
activation = "{activation}"
methods = ["{id}."]
"""

PLUGIN = """
from jan_core import Call, Context, Empty, Event, hookimpl, method, methods_of
from msgspec import Struct
from . import words


class Plugin:
    @hookimpl
    def jan_activate(self, ctx: Context) -> None:
        self.ctx = ctx

    @hookimpl
    def jan_methods(self):
        return methods_of(self)

    @method("{id}.word")
    async def word(self, params: Empty) -> str:
        "The word of this generation."
        return words.WORD

    @method("{id}.stream", item=str)
    async def stream(self, params: Empty, call: Call) -> str:
        "Send the word, wait to be told, send what a late import finds."
        from .late import LATE
        await call.send(words.WORD)
        await self.ctx.call("gate.wait")
        from . import words as again
        await call.send(again.WORD)
        return LATE

    # -- more --
"""


class Project:
    """`folder` holds an extension `id`, whose module `words` says `WORD`."""

    def __init__(self, folder: Path, id: str = "sample", *, activation: str = "startup") -> None:
        self.id, self.folder = id, folder / f"{id} ü"
        self.code = self.folder / "src" / f"jan_{id}"
        self.code.mkdir(parents=True)
        self.activation = activation
        self.dependencies: list[str] = []
        self.write_manifest()
        self.write("__init__.py", "")
        self.write("late.py", "LATE = 'late v1'\n")
        self.say("v1")
        self.plugin()

    def write_manifest(self, **changes: str) -> None:
        text = PYPROJECT.format(id=self.id, activation=self.activation, dependencies=self.dependencies)
        for old, new in changes.items():
            text = text.replace(old, new)
        (self.folder / "pyproject.toml").write_text(text, encoding="utf-8")

    def write(self, name: str, text: str) -> None:
        """As editors do: a temporary file, renamed."""
        path = self.code / name
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)

    def say(self, word: str) -> None:
        self.write("words.py", f"WORD = {word!r}\n")

    def plugin(self, more: str = "", **changes: str) -> None:
        """The plugin module, with `more` in its class."""
        text = PLUGIN.replace("{id}", self.id)
        text = text.replace("    # -- more --\n", "".join(f"    {line}\n" for line in dedent(more).splitlines()))
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        self.write("plugin.py", text)
