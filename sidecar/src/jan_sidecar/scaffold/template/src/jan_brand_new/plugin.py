"""Greets people by name, and counts them."""

from jan_core import Context, Event, Method, hookimpl, method, methods_of

from .shapes import Greet, Greeting, Memory, Settings  # relative: a reload needs it so


class BrandNewExtension:
    """One instance lives from activation to retirement: keep state on it, not in globals."""

    def __init__(self) -> None:
        self.memory = Memory()

    @hookimpl
    def jan_activate(self, ctx: Context) -> None:
        self.ctx = ctx

    @hookimpl
    def jan_settings(self) -> type[Settings]:
        return Settings

    @hookimpl
    def jan_methods(self) -> list[Method]:
        return methods_of(self)

    @method("brand_new.greet")
    async def greet(self, params: Greet) -> Greeting:
        """Greet somebody by name."""
        self.memory.greeted += 1
        return Greeting(f"{self.ctx.settings.greeting}, {params.name}!", self.memory.greeted)

    @hookimpl
    async def jan_event(self, event: Event) -> None:
        if event.name == "settings.changed" and event.data["extension"] == self.ctx.id:
            self.ctx.log.info("the greeting is now %r", event.data["values"]["greeting"])

    @hookimpl
    def jan_export_state(self) -> Memory:
        return self.memory

    @hookimpl
    def jan_restore_state(self, state: Memory) -> None:
        self.memory = state
