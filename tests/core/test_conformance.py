"""What an author is told: each rule broken once, and the one sentence that names it."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import anyio
import msgspec
import pytest
from jan_sidecar.scaffold import new_project

from jan_core import Call, Caller, Context, Empty, JanError, hookimpl, method, methods_of
from jan_core.testing import InlineSource, assert_extension_conforms


class Text(msgspec.Struct, forbid_unknown_fields=True):
    text: str = ""


class Fine:
    """Nothing is wrong with it. Each extension below differs in one thing."""

    @hookimpl
    def jan_activate(self, ctx: Context) -> None:
        self.ctx = ctx

    @hookimpl
    def jan_methods(self) -> Any:
        return methods_of(self)

    @method("test.echo")
    async def echo(self, params: Text) -> Text:
        """The text as it came."""
        return params


class OddHook(Fine):
    @hookimpl
    def jan_no_such_hook(self) -> None: ...


class KeywordOnly(Fine):
    @hookimpl
    async def jan_event(self, *, event: Any) -> None: ...


class Raises(Fine):
    @hookimpl
    def jan_activate(self, ctx: Context) -> None:
        raise RuntimeError("no luck")


class NoDefault(Fine):
    class Settings(msgspec.Struct):
        name: str

    @hookimpl
    def jan_settings(self) -> Any:
        return self.Settings


class BadDefault(Fine):
    class Settings(msgspec.Struct):
        level: Annotated[int, msgspec.Meta(ge=1)] = 0

    @hookimpl
    def jan_settings(self) -> Any:
        return self.Settings


class Opaque:
    """No schema can say what this is."""


class OpaqueSettings(Fine):
    class Settings(msgspec.Struct):
        thing: Opaque = msgspec.field(default_factory=Opaque)

    @hookimpl
    def jan_settings(self) -> Any:
        return self.Settings


class Undocumented(Fine):
    @method("test.bare")
    async def bare(self, params: Text) -> Text:
        return params


class Elsewhere(Fine):
    @method("other.echo")
    async def other(self, params: Text) -> Text:
        """Outside of its own names."""
        return params


class LooseParams(Fine):
    @method("test.loose")
    async def loose(self, params: dict[str, int]) -> Text:
        """Takes anything."""
        return Text()


class LooseResult(Fine):
    @method("test.loose")
    async def loose(self, params: Text) -> Any:
        """Gives anything."""
        return 1


class OpaqueResult(Fine):
    @method("test.opaque")
    async def opaque(self, params: Text) -> Opaque:
        """Gives what nobody can read."""
        raise Quarrel("never")


class Quarrel(JanError):
    """There is a quarrel."""

    code, type = -32098, "quarrel"


class Foreign(JanError):
    """Its code belongs to somebody else."""

    code, type = -32601, "foreign"


class UndeclaredError(Fine):
    @method("test.quarrel")
    async def quarrel(self, params: Text) -> Text:
        """Ends with an error it keeps quiet about."""
        raise Quarrel("no")


class ForeignCode(Fine):
    @method("test.foreign", errors=[Foreign])
    async def foreign(self, params: Text) -> Text:
        """Takes the code of another error."""
        return params


class Breaks(Fine):
    @method("test.parse")
    async def parse(self, params: Text) -> Text:
        """Trusts its params."""
        return Text(str(int(params.text or "0")))


class Stubborn(Fine):
    @method("test.stubborn")
    async def stubborn(self, params: Empty) -> Empty:
        """Goes on although it was cancelled."""
        while not over.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue
        return Empty()


class Blocks(Fine):
    @hookimpl
    async def jan_activate(self, ctx: Context) -> None:
        time.sleep(0.4)  # noqa: ASYNC251 (what is tested)


class Prints(Fine):
    @method("test.print")
    async def speak(self, params: Empty) -> Empty:
        """Speaks on the client's channel."""
        print("hello there")
        return Empty()


class Writes(Fine):
    @hookimpl
    def jan_activate(self, ctx: Context) -> None:
        os.write(1, b"past Python")


class ExportsOnly(Fine):
    @hookimpl
    def jan_export_state(self) -> Any:
        return {"a": 1}


class StateOfObjects(Fine):
    @hookimpl
    def jan_export_state(self) -> Any:
        return {"it": Opaque()}

    @hookimpl
    def jan_restore_state(self, state: Any) -> None: ...


class RefusesState(StateOfObjects):
    @hookimpl
    def jan_export_state(self) -> Any:
        return {"a": 1}

    @hookimpl
    def jan_restore_state(self, state: Any) -> None:
        raise KeyError("b")


class Fickle(Fine):
    made = 0

    @hookimpl
    def jan_methods(self) -> Any:
        Fickle.made += 1
        return methods_of(self)[: 1 + Fickle.made % 2]

    @method("test.sometimes")
    async def sometimes(self, params: Text) -> Text:
        """There every other time."""
        return params


class LeavesThread(Fine):
    @hookimpl
    def jan_activate(self, ctx: Context) -> None:
        threading.Thread(target=over.wait, name="forgotten", daemon=True).start()


class LeavesHandler(Fine):
    @hookimpl
    def jan_activate(self, ctx: Context) -> None:
        logging.getLogger("forgotten").addHandler(logging.NullHandler())


class LeavesTask(Fine):
    @hookimpl
    async def jan_activate(self, ctx: Context) -> None:
        self.task = asyncio.create_task(asyncio.Event().wait(), name="forgotten")
        kept.append(self.task)


class TaskFails(Fine):
    @hookimpl
    def jan_activate(self, ctx: Context) -> None:
        async def work() -> None:
            raise OSError("the disk is gone")

        ctx.tasks.start_soon(work)


class DeactivationFails(Fine):
    @hookimpl
    def jan_deactivate(self, ctx: Context) -> None:
        raise RuntimeError("cannot stop")


class DisposerFails(Fine):
    @hookimpl
    def jan_activate(self, ctx: Context) -> None:
        def dispose() -> None:
            raise RuntimeError("cannot undo")

        ctx.on_dispose(dispose)


class EndsSlowly(Fine):
    @hookimpl
    async def jan_deactivate(self, ctx: Context) -> None:
        await anyio.sleep(1.2)


over = threading.Event()
kept: list[Any] = []

BROKEN = {
    OddHook: "it does not start: validate: .*jan_no_such_hook",
    KeywordOnly: "it does not start: validate: .*keyword-only",
    Raises: r"it does not start: activate: RuntimeError: no luck \(.*test_conformance.py:\d+\)",
    NoDefault: "it does not start: settings: .*has none for: name",
    BadDefault: "a default of its settings Settings does not fit its own type: .*>= 1",
    OpaqueSettings: "its settings Settings have a type that no schema can describe",
    Undocumented: "it does not start: validate: .*test.bare: .*needs a docstring",
    Elsewhere: "it does not start: validate: .*other.echo is outside of what the manifest claims",
    LooseParams: r"test.loose takes dict\[str, int\]; params are a msgspec.Struct",
    LooseResult: "test.loose has no type for its result",
    OpaqueResult: "test.opaque has a type that no schema can describe",
    UndeclaredError: "test.quarrel ends with 'quarrel' on {}, which it does not declare",
    ForeignCode: "test.foreign declares Foreign with code -32601",
    Breaks: r'test.parse breaks on {"text":"\\u0000"}: ValueError: .*\(.*test_conformance.py:\d+\); narrow the type',
    Stubborn: "test.stubborn does not end when its caller cancels it",
    Blocks: r"Blocks.jan_activate blocked the event loop for 0.\d+ s \(.*test_conformance.py:\d+\)",
    Prints: r"it wrote 'hello there\\n.*' to standard output",
    Writes: "it wrote 'past Python.*' to standard output",
    ExportsOnly: "it has jan_export_state and no jan_restore_state",
    StateOfObjects: "it cannot be reloaded: .*export: .*not plain data",
    RefusesState: "it cannot be reloaded: .*'b'",
    Fickle: r"reloading changed its methods from \['test.*\] to \['test.*\] though its code is the same",
    LeavesThread: "the thread 'forgotten' is still running",
    LeavesHandler: "NullHandler .* is still attached to a logger",
    LeavesTask: "the task 'forgotten' is still running",
    TaskFails: "it failed while it was serving: task: OSError: the disk is gone",
    DeactivationFails: "RuntimeError: cannot stop",
    DisposerFails: "an error was logged while it ended: a disposer failed: RuntimeError: cannot undo",
    EndsSlowly: r"it took \d.\d s to end; 1 s is allowed",
}


@pytest.mark.parametrize("extension", BROKEN, ids=lambda kind: kind.__name__)
async def test_a_broken_rule_is_named_in_one_sentence(extension: type, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("ANSWER_LIMIT", "CANCEL_LIMIT", "SETTLE_LIMIT"):
        monkeypatch.setattr(f"jan_core.testing.conformance.{limit}", 0.5)
    over.clear()
    source = InlineSource("test", extension, ["test."])
    try:
        with pytest.raises(AssertionError, match="is not what a host expects") as caught, anyio.fail_after(30):
            await assert_extension_conforms(source)
    finally:
        over.set()
        for task in kept:
            task.cancel()
        logging.getLogger("forgotten").handlers.clear()
    _, *sentences = str(caught.value).split("\n  - ")
    matching = [s for s in sentences if re.search(BROKEN[extension], s)]
    assert matching, sentences
    assert not any("\n" in s for s in sentences)


async def test_an_extension_that_keeps_the_rules_passes() -> None:
    await assert_extension_conforms(Fine)
    await assert_extension_conforms(Fine())


class Streams(Fine):
    """Answers for ever, which is nobody's fault, and reaches out, which is not done in tests."""

    @method("test.forever", item=int)
    async def forever(self, params: Empty, call: Call) -> Empty:
        """Counts until its caller has had enough."""
        n = 0
        while True:
            await call.send(n := n + 1)

    @method("test.reach")
    async def reach(self, params: Empty) -> Empty:
        """Would change the world."""
        raise AssertionError("it was called")


async def test_endless_streams_are_cancelled_and_uncalled_methods_are_not_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jan_core.testing.conformance.ANSWER_LIMIT", 0.05)
    await assert_extension_conforms(Streams, uncalled=["test.reach"])
    with pytest.raises(AssertionError, match=r"it has no method test.wrong that could be left uncalled"):
        await assert_extension_conforms(Fine, uncalled=["test.wrong"])


# -- projects ----------------------------------------------------------------------------------------------------------

Project = Callable[[str, str, str], Path]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A scaffolded project with one text of one file replaced."""

    def make(file: str, old: str, new: str) -> Path:
        new_project("tried", tmp_path / "tried")
        path = tmp_path / "tried" / file
        text = path.read_text("utf-8")
        assert old in text
        path.write_text(text.replace(old, new), "utf-8")
        return tmp_path / "tried"

    return make


PLUGIN = "src/jan_tried/plugin.py"


@pytest.mark.parametrize(
    ("file", "old", "new", "sentence"),
    [
        ("pyproject.toml", 'id = "tried" ', 'id = "other" ', "entry point"),
        ("pyproject.toml", ">=1.0,<2", ">=2", "the manifest is refused: tried requires host API >=2"),
        ("pyproject.toml", 'methods = ["tried."]', 'methods = ["rpc."]', "reaches into 'rpc.' of core"),
        (PLUGIN, "from .shapes import", "from jan_tried.shapes import", "use a relative import"),
        (PLUGIN, '"""Greets', 'raise SystemExit(3)\n"""Greets', "it does not start: import: SystemExit"),
        (
            PLUGIN,
            "        self.ctx = ctx\n",
            "        self.ctx = ctx\n        import logging\n"
            '        logging.getLogger("forgotten").addFilter(self.jan_export_state)\n',
            "after its end tried@g1: .*jan_export_state is still attached to logger 'forgotten'",
        ),
    ],
    ids=["id", "requires-core", "prefix", "self-import", "exit", "leak"],
)
async def test_what_is_wrong_with_a_project_is_named(
    project: Project, file: str, old: str, new: str, sentence: str
) -> None:
    try:
        with pytest.raises(AssertionError, match=sentence):
            await assert_extension_conforms(project(file, old, new))
    finally:
        logging.getLogger("forgotten").filters.clear()


async def test_an_extension_for_a_process_of_its_own_is_looked_at_in_this_one(project: Project) -> None:
    await assert_extension_conforms(project("pyproject.toml", 'isolation = "none"', 'isolation = "process"'))


# -- the fixtures ------------------------------------------------------------------------------------------------------


class TestAnotherExtension:
    """A test names what it is about by overriding the fixture `extension`."""

    @pytest.fixture
    def extension(self) -> type:
        return Fine

    async def test_the_caller_reaches_it_and_the_host_has_nothing_else(self, caller: Caller, host: Any) -> None:
        assert await caller.call("test.echo", {"text": "hi"}) == {"text": "hi"}
        assert [e["id"] for e in (await caller.call("extensions.list"))["extensions"]] == ["test"]


AUTHORS = """
async def test_it_is_the_project_around_this_file(caller, tmp_path, host):
    assert (await caller.call("tried.greet"))["text"] == "Hello, world!"
    assert host.data_dir.is_relative_to(tmp_path)
"""


def test_the_extension_under_test_is_the_project_around_the_test(project: Project, run_pytest: Any) -> None:
    folder = project("README.md", "Greets", "Greets")
    (folder / "tests" / "test_more.py").write_text(AUTHORS)
    assert "1 passed" in run_pytest(folder, "tests/test_more.py")


def test_without_a_project_the_author_is_told_what_to_do(tmp_path: Path, run_pytest: Any) -> None:
    (tmp_path / "test_lost.py").write_text("def test_lost(extension): pass")
    said = run_pytest(tmp_path, "test_lost.py")
    assert "say which extension is tested with a fixture `extension`" in " ".join(said.split())


@pytest.fixture
def run_pytest() -> Callable[..., str]:
    """pytest in a process of its own, as an author runs it."""

    def run(folder: Path, *arguments: str) -> str:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
        return done.stdout + done.stderr

    return run


class Liar:
    @hookimpl
    def jan_methods(self) -> list[Any]:
        return methods_of(self)

    @method("liar.count")
    async def count(self, params: Empty) -> int:
        """Count."""
        return "three"  # type: ignore[return-value]


async def test_a_result_that_is_not_what_was_annotated_is_told() -> None:
    with pytest.raises(AssertionError, match=r"liar.count returns something else than its annotation says: .*`int`"):
        await assert_extension_conforms(Liar)
