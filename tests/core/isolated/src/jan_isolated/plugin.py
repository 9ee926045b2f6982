"""The sample extension for a process of its own: it tells its test what happens in it, and it can be rude."""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from typing import Annotated, Any, Literal

import msgspec

from jan_core import Call, Context, Empty, Event, RpcError, hookimpl, method
from jan_core.types import ChatMessage, ChatRequest, InferenceRequest

from .sample import Number, Sample, Text


class Taste(msgspec.Struct):
    sugar: Annotated[int, msgspec.Meta(ge=0, le=9)] = 1


class Tea(msgspec.Struct, rename="camel"):
    """How the tea is made."""

    kind: Literal["black", "green"] = "black"
    minutes_drawn: Annotated[float, msgspec.Meta(gt=0)] = 3.0
    taste: Taste = msgspec.field(default_factory=Taste)
    guests: list[str] = msgspec.field(default_factory=lambda: ["Ada"])
    note: str | None = None


class Asking(msgspec.Struct):
    method: str
    params: Any = None


class Told:
    """An `anyio.Event` whose being set the host hears of."""

    def __init__(self, owner: Isolated, name: str) -> None:
        self._owner, self._name, self._event = owner, name, asyncio.Event()

    def set(self) -> None:
        self._event.set()
        self._owner.ctx.emit("test.observed", {"name": self._name, "sent": self._owner.sent})

    async def wait(self) -> None:
        await self._event.wait()


class Isolated(Sample):
    ctx: Context

    def __init__(self) -> None:
        super().__init__()
        self.running = self.cancelled = self.release = None  # type: ignore[assignment]
        self.heard: list[str] = []
        self.state: dict[str, Any] | None = None

    @hookimpl
    def jan_settings(self) -> type[msgspec.Struct]:
        return Tea

    @hookimpl
    async def jan_activate(self, ctx: Context) -> None:
        self.ctx = ctx
        self.running = Told(self, "running")  # type: ignore[assignment]
        self.cancelled = Told(self, "cancelled")  # type: ignore[assignment]
        self.release = Told(self, "release")  # type: ignore[assignment]
        ctx.on_dispose(lambda: ctx.log.warning("disposed of"))
        if (ctx.data_dir / "refuse").exists():
            raise RuntimeError("it refuses to start")
        if (ctx.data_dir / "die").exists():
            os._exit(5)

    @hookimpl
    async def jan_deactivate(self) -> None:
        self.ctx.log.warning("deactivated")
        if (self.ctx.data_dir / "stay").exists():
            time.sleep(1000)  # noqa: ASYNC251 (what it must not do)

    @hookimpl
    def jan_export_state(self) -> Any:
        if (self.ctx.data_dir / "die").exists():
            os._exit(5)
        return self.state

    @hookimpl
    def jan_restore_state(self, state: dict[str, Any]) -> None:
        self.state = state

    @hookimpl
    async def jan_event(self, event: Event) -> None:
        self.heard.append(event.name)

    @hookimpl(tryfirst=True)
    async def jan_before_inference(self, request: InferenceRequest) -> InferenceRequest | None:
        if request.chat.model == "crash":
            os._exit(6)
        if request.chat.model == "broken":
            raise ValueError("the cup is broken")
        request.chat.model += " with tea"
        return request

    @method("test.until")
    async def until(self, params: Text) -> None:
        """Wait for one of the sample's events."""
        await getattr(self, params.text).wait()

    @method("test.let")
    async def let(self, params: Empty) -> None:
        """Release what waits."""
        self.release.set()

    @method("test.count", item=Number)
    async def count(self, params: Number, call: Call) -> Number:
        """Send the numbers below `value`, and tell how many it were."""
        try:
            return await super().count(params, call)
        finally:
            self.cancelled.set()

    @method("rude.pid")
    def pid(self, params: Empty) -> int:
        """The process this runs in."""
        return os.getpid()

    @method("rude.module")
    def module(self, params: Empty) -> str:
        """The name this is imported under."""
        return type(self).__module__

    @method("rude.loud")
    def loud(self, params: Text) -> None:
        """Print and log."""
        print(params.text, flush=True)
        os.write(1, b"raw " + params.text.encode() + b"\n")
        subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
        self.ctx.log.warning("logged %s", params.text)

    @method("rude.exit")
    async def leave(self, params: Number) -> None:
        """End the process."""
        os._exit(params.value)

    @method("rude.segfault")
    async def segfault(self, params: Empty) -> None:
        """Read where nothing is."""
        ctypes.string_at(0)

    @method("rude.kill")
    async def kill(self, params: Empty) -> None:
        """What the kernel does when there is no memory."""
        os.kill(os.getpid(), signal.SIGKILL)

    @method("rude.block")
    async def block(self, params: Empty) -> None:
        """Block the event loop, having said so."""
        self.running.set()
        await asyncio.sleep(0.01)
        time.sleep(1000)  # noqa: ASYNC251 (what it must not do)

    @method("rude.spin")
    async def spin(self, params: Empty) -> None:
        """Hold the interpreter's lock: no thread of this process runs any more."""
        self.running.set()
        await asyncio.sleep(0.05)
        re.match(r"(a*)*b", "a" * 60)

    @method("rude.scribble")
    async def scribble(self, params: Empty) -> None:
        """Write where nobody asked it to."""
        for descriptor in range(3, 4096):
            try:
                os.write(descriptor, b"no message at all\n")
            except OSError:
                continue
        await asyncio.sleep(1000)

    @method("rude.close")
    async def close(self, params: Empty) -> None:
        """Close what is not its own."""
        os.closerange(3, 4096)
        await asyncio.sleep(1000)

    @method("rude.emit_large")
    def emit_large(self, params: Number) -> None:
        """Emit an event with so many characters."""
        self.ctx.emit("test.flood", "x" * params.value)

    @method("rude.flood")
    async def flood(self, params: Number) -> int:
        """Emit events as fast as it can."""
        for value in range(params.value):
            self.ctx.emit("test.flood", {"value": value, "text": "x" * 200})
            if not value % 100:
                await asyncio.sleep(0)
        return params.value

    @method("rude.offspring")
    def offspring(self, params: Empty) -> int:
        """Start a process that would outlive this one."""
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"]).pid

    @method("rude.task")
    async def task(self, params: Empty) -> None:
        """Let a background task fail."""

        async def fail() -> None:
            raise LookupError("no tea left")

        self.ctx.tasks.start_soon(fail)

    @method("rude.leave_loop")
    async def leave_loop(self, params: Text) -> None:
        """End the event loop by a task or a callback that is not of the context, beside threads that stay."""
        loop = asyncio.get_running_loop()
        threading.Thread(target=time.sleep, args=(1000,)).start()
        loop.run_in_executor(None, time.sleep, 1000)

        async def leave() -> None:
            sys.exit(3)

        if params.text == "task":
            self.left = asyncio.create_task(leave())
        elif params.text == "callback":
            loop.call_soon(sys.exit, 3)
        else:
            loop.call_soon(loop.stop)
        await asyncio.sleep(1000)

    @method("rude.exhaust")
    async def exhaust(self, params: Empty) -> None:
        """A callback on the event loop finds no memory."""

        def fail() -> None:
            raise MemoryError

        asyncio.get_running_loop().call_soon(fail)
        await asyncio.sleep(1000)

    @method("rude.shut")
    async def shut(self, params: Empty) -> None:
        """Close what it prints to, and spoil the way on which it asks the host."""
        sys.stdout.close()
        sys.stderr.close()
        os.write(int(sys.argv[2]), b"no message at all\n")
        await asyncio.sleep(1000)

    @method("rude.interrupt")
    def interrupt(self, params: Empty) -> int:
        """Interrupt a process that was started here; its exit status."""
        code = "import time; print(flush=True); time.sleep(1000)"
        command = [sys.executable, "-c", code]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.send_signal(signal.SIGINT)
            try:
                return process.wait(5)
            finally:
                process.kill()

    @method("rude.size")
    def size(self, params: Text) -> int:
        """How long a text is."""
        return len(params.text)

    @method("rude.large", item=Text)
    async def large(self, params: Number, call: Call) -> None:
        """Send an item of so many characters."""
        await call.send(Text("x" * params.value))

    @method("rude.ask_large")
    async def ask_large(self, params: Number) -> str:
        """Call a method with so many characters; the type of its error, with that error's own."""
        try:
            await self.ctx.call("rude.size", {"text": "x" * params.value})
        except RpcError as error:
            return f"{type(error).__name__} {error.type}"
        return ""

    @method("rude.settings")
    def settings(self, params: Empty) -> Tea:
        """The settings as they are here."""
        tea: Tea = self.ctx.settings
        return tea

    @method("rude.notice")
    async def notice(self, params: Text) -> None:
        """Return when the note in the settings is this one."""
        self.running.set()
        while self.ctx.settings.note != params.text:  # noqa: ASYNC110 (settings are read, not waited for)
            await asyncio.sleep(0.005)

    @method("rude.late", deadline=0.1)
    async def late(self, params: Empty) -> None:
        """Take longer than it may."""
        await asyncio.sleep(1000)

    @method("rude.keep")
    def keep_state(self, params: Text) -> None:
        """Something to hand over."""
        self.state = {"text": params.text, "bytes": params.text.encode()}

    @method("rude.kept")
    def kept_state(self, params: Empty) -> list[Any]:
        """What was handed over, and this generation's number."""
        state = self.state or {}
        return [state.get("text"), isinstance(state.get("bytes"), bytes), self.ctx.generation]

    @method("rude.heard")
    def heard_events(self, params: Empty) -> list[str]:
        """The events that came."""
        return self.heard

    @method("rude.ask")
    async def ask(self, params: Asking) -> Any:
        """Call a method of somebody else's."""
        return await self.ctx.call(params.method, params.params)

    @method("rude.sum")
    async def total(self, params: Asking) -> int:
        """Add up the items of a stream, asking something else between any two of them."""
        total = 0
        async with self.ctx.stream(params.method, params.params, item=Number) as stream:
            async for item in stream:
                await self.ctx.call("ping")
                total += item.value
            await stream.result()
        return total

    @method("rude.hold")
    async def hold(self, params: Asking) -> None:
        """Read one item of a stream, and no more until released."""
        async with self.ctx.stream(params.method, params.params) as stream:
            async for _ in stream:
                self.running.set()
                await self.release.wait()
                return

    @method("rude.sent")
    def sent_so_far(self, params: Empty) -> int:
        """How many items the sample has sent."""
        return self.sent

    @method("rude.hooks")
    async def hooks(self, params: Text) -> list[Any]:
        """Call hooks of the whole house: a pipeline and a broadcast."""
        asked = InferenceRequest(ChatRequest(model=params.text, messages=[ChatMessage("user", "tea?")]))
        request = await self.ctx.hooks.before_inference(asked)
        engines = await self.ctx.hooks.inference_engines()
        return [request.chat.model, [(o.extension, len(o.value or [])) for o in engines.outcomes]]

    @method("rude.http")
    async def http(self, params: Empty) -> str:
        """The client of this process."""
        return type(self.ctx.http).__name__
