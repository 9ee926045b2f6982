"""Says hello, counts how often, and keeps a guest book: each thing an extension can do, once."""

import asyncio
from typing import Annotated

from msgspec import Meta, Struct

from jan_core import Call, Context, Empty, Event, JanError, Method, hookimpl, method, methods_of


class Settings(Struct):
    """`greeting`: how to begin."""

    greeting: str = "Hello"


class Greet(Struct, forbid_unknown_fields=True):
    name: Annotated[str, Meta(max_length=100)] = "world"


class Greeting(Struct):
    text: str
    count: int


class Place(Struct):
    text: str


class NobodyThere(JanError):
    """There is nobody to greet."""

    code, type = -32090, "nobody_there"


class Memory(Struct):
    """What one generation hands to the next. Fields need defaults: older code may not have known them."""

    count: int = 0


class HelloExtension:
    """One instance lives from activation to retirement; keep state on it, not in globals."""

    def __init__(self) -> None:
        self.memory = Memory()

    @hookimpl
    async def jan_activate(self, ctx: Context) -> None:
        self.ctx = ctx
        self.guests: asyncio.Queue[str] = asyncio.Queue()
        self.book = (ctx.data_dir / "guests.txt").open("a", encoding="utf-8")
        ctx.on_dispose(self.book.close)
        ctx.tasks.start_soon(self.write_guests)

    async def write_guests(self) -> None:
        while True:
            name = await self.guests.get()
            print(name, file=self.book, flush=True)

    @hookimpl
    def jan_settings(self) -> type[Settings]:
        return Settings

    @hookimpl
    def jan_methods(self) -> list[Method]:
        return methods_of(self)

    @method("hello.greet", errors=[NobodyThere])
    async def greet(self, params: Greet) -> Greeting:
        """Greet somebody by name."""
        if not params.name.strip():
            raise NobodyThere("give a name to greet")
        self.memory.count += 1
        self.guests.put_nowait(params.name)
        self.ctx.emit("hello.greeted", {"name": params.name})
        return Greeting(f"{self.ctx.settings.greeting}, {params.name}!", self.memory.count)

    @method("hello.spell", item=str)
    async def spell(self, params: Greet, call: Call) -> Greeting:
        """Send a name letter by letter."""
        for letter in params.name:
            await call.send(letter)
        return Greeting(params.name, self.memory.count)

    @method("hello.place")
    async def place(self, params: Empty) -> Place:
        """Say where we are."""
        info = await self.ctx.call("system.info")
        return Place(f"on {info['platform']}, as process {info['pid']}")

    @hookimpl
    async def jan_event(self, event: Event) -> None:
        if event.name == "settings.changed" and event.data["extension"] == self.ctx.id:
            self.ctx.log.info("the greeting is now %r", self.ctx.settings.greeting)

    @hookimpl
    def jan_export_state(self) -> Memory:
        return self.memory

    @hookimpl
    def jan_restore_state(self, state: Memory) -> None:
        self.memory = state
