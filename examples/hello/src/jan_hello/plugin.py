"""Says hello, and counts how often."""

from typing import Annotated

from msgspec import Meta, Struct

from jan_core import Call, Context, JanError, Method, hookimpl, method, methods_of


class HelloSettings(Struct):
    """`greeting`: how to begin."""

    greeting: str = "Hello"


class Greet(Struct, forbid_unknown_fields=True):
    name: Annotated[str, Meta(max_length=100)] = "world"


class Greeting(Struct):
    text: str
    count: int


class NobodyThere(JanError):
    """There is nobody to greet."""

    code, type = -32090, "nobody_there"


class HelloExtension:
    """One instance lives from activation to retirement; keep state on it, not in globals."""

    def __init__(self) -> None:
        self.count = 0

    @hookimpl
    def jan_activate(self, ctx: Context) -> None:
        self.ctx = ctx

    @hookimpl
    def jan_settings(self) -> type[HelloSettings]:
        return HelloSettings

    @hookimpl
    def jan_methods(self) -> list[Method]:
        return methods_of(self)

    @method("hello.greet", errors=[NobodyThere])
    async def greet(self, params: Greet) -> Greeting:
        """Greet somebody by name."""
        if not params.name.strip():
            raise NobodyThere("give a name to greet")
        self.count += 1
        self.ctx.emit("hello.greeted", {"name": params.name})
        return Greeting(f"{self.ctx.settings.greeting}, {params.name}!", self.count)

    @method("hello.spell", item=str)
    async def spell(self, params: Greet, call: Call) -> Greeting:
        """Send a name letter by letter."""
        for letter in params.name:
            await call.send(letter)
        return Greeting(params.name, self.count)
