"""Nothing of the contract goes without documentation or a test, and no test or page speaks of what is not there.

Which methods are called is read from the tests' syntax trees, not seen while they run: tests call from other processes
too (the command line, clients, isolated extensions), a recorder would only hold of a run of everything at once, and a
missing call should fail in a second. What counts is a call site: the name is an argument of `call(…)` or `stream(…)`,
of `jan("rpc", …)`, or of a helper that puts the extension's prefix before it. A comment, a docstring or a list of names
does not.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jan_core.hookspecs import hookspecs
from jan_core.host import Host
from jan_core.methods import Method
from jan_core.rpc.openrpc import document

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"
TESTS = ["tests", "sidecar/tests", "extensions/*/tests", "examples/*/tests"]
CALLS = ("call", "stream")
"""How the ways to call a method are called: those of `jan_core.Caller`."""


@pytest.fixture(scope="module")
async def host(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> Any:
    async with Host(tmp_path_factory.mktemp("data")) as opened:
        await opened.client().call("rpc.discover")
        yield opened


@pytest.fixture(scope="module")
def table(host: Host) -> dict[str, Method]:
    """Every method there is, those of the first-party extensions included."""
    return dict(host.table)


@functools.cache
def trees() -> list[tuple[Path, ast.Module]]:
    files = [file for pattern in TESTS for folder in ROOT.glob(pattern) for file in folder.rglob("*.py")]
    return [(file, ast.parse(file.read_text("utf-8"), str(file))) for file in files]


def text(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def called_name(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def helpers(tree: ast.AST) -> dict[str, str]:
    """Functions that call a method by its name without the prefix: their name, and the prefix they put before it."""
    found = {}
    for function in ast.walk(tree):
        if isinstance(function, ast.AsyncFunctionDef | ast.FunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and called_name(node) in CALLS and node.args:
                    first = node.args[0]
                    if isinstance(first, ast.JoinedStr) and len(first.values) == 2 and text(first.values[0]):
                        found[function.name] = text(first.values[0])
    return found


def call_sites(tree: ast.AST, prefixes: dict[str, str]) -> Iterator[tuple[str, int]]:
    """The names of methods that are called here, and the lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name, words = called_name(node), [text(a) for a in (*node.args, *(k.value for k in node.keywords))]
            if words and words[0] and name in CALLS:
                yield words[0], node.lineno
            if words and words[0] and name in prefixes and "." not in words[0]:
                yield prefixes[name] + words[0], node.lineno
            if "rpc" in words:
                yield from ((word, node.lineno) for word in words if word != "rpc")


@pytest.fixture(scope="module")
def called() -> dict[str, list[str]]:
    """The methods that tests call, and where."""
    found: dict[str, list[str]] = {}
    for folder in {file.parent for file, _ in trees()}:
        here = [(file, tree) for file, tree in trees() if file.parent == folder]
        prefixes = {name: prefix for _, tree in here for name, prefix in helpers(tree).items()}
        for file, tree in here:
            for name, line in call_sites(tree, prefixes):
                found.setdefault(name, []).append(f"{file.relative_to(ROOT)}:{line}")
    return found


def test_every_method_is_called_by_a_test(table: dict[str, Method], called: dict[str, list[str]]) -> None:
    assert sorted(set(table) - set(called)) == []


def test_no_test_calls_a_method_that_is_not_there(table: dict[str, Method], called: dict[str, list[str]]) -> None:
    namespaces = {name.partition(".")[0] for name in table if "." in name}
    gone = {n: at for n, at in called.items() if "." in n and n.partition(".")[0] in namespaces and n not in table}
    assert gone == {}


def test_a_name_in_a_comment_a_docstring_or_a_list_is_no_call() -> None:
    source = '''
async def test_x(client):
    """client.call("a.docstring")"""
    # await client.call("a.comment")
    names = ["a.list"]
    print("a.print")
    await client.call("a.call")
    jan("rpc", "a.rpc")
'''
    assert {name for name, _ in call_sites(ast.parse(source), {})} == {"a.call", "a.rpc"}


def test_every_method_is_documented(table: dict[str, Method]) -> None:
    page = (REFERENCE / "methods.md").read_text("utf-8")
    assert sorted(re.findall(r"^## `(\S+)`$", page, re.MULTILINE)) == sorted(table)
    for name, method in table.items():
        summary = method.summary.partition("\n\n")[0]
        assert len(summary) > 8, name
        assert summary.endswith("."), name
        for declared in method.errors:
            assert declared.__doc__, f"{name}: {declared.__name__}"


def test_every_hook_is_in_the_reference_with_its_exact_signature() -> None:
    page = (REFERENCE / "hooks.md").read_text("utf-8")
    sections = dict(re.findall(r"^## `(\w+)`\n\n    (\S.*)$", page, re.MULTILINE))
    assert list(sections) == list(hookspecs())
    for name, spec in hookspecs().items():
        shown = ast.parse(f"def {sections[name]}: ...").body[0]
        assert isinstance(shown, ast.FunctionDef)
        arguments = spec.function.__code__.co_varnames[: spec.function.__code__.co_argcount]
        assert tuple(a.arg for a in shown.args.args) == arguments
        assert all(a.annotation is not None for a in shown.args.args), name
        assert shown.returns is not None, name


def test_every_hook_says_when_it_is_called_and_what_it_gets() -> None:
    for name, spec in hookspecs().items():
        doc = spec.function.__doc__ or ""
        arguments = spec.function.__code__.co_varnames[: spec.function.__code__.co_argcount]
        assert "Called " in doc, name
        assert re.findall(r":param (\w+): \S", doc) == list(arguments), name


def implementations() -> Iterator[str]:
    """The hooks that tests implement: functions marked as such, no others."""
    for _, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                markers = [d.func if isinstance(d, ast.Call) else d for d in node.decorator_list]
                if any(getattr(m, "attr", getattr(m, "id", "")) == "hookimpl" for m in markers):
                    yield node.name


def test_every_hook_is_implemented_by_a_test() -> None:
    assert sorted(set(hookspecs()) - set(implementations())) == []


def test_every_hook_that_many_may_answer_is_called_through_its_typed_method_by_a_test() -> None:
    facade = {
        node.func.attr
        for _, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and getattr(node.func.value, "attr", getattr(node.func.value, "id", "")) == "hooks"
    }
    many = {name.removeprefix("jan_") for name, spec in hookspecs().items() if spec.mode != "single"}
    assert sorted(many - facade) == []


PAGES = sorted({ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/*/README.md"), *ROOT.glob("*/README.md")})


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_a_page_calls_a_method_is_one(page: Path, table: dict[str, Method]) -> None:
    from jan_registry.flags.known import KNOWN
    from jan_registry.settings import RegistrySettings

    namespaces = "|".join({name.partition(".")[0] for name in table if "." in name})
    said = {*KNOWN, *(f"registry.{name}" for name in RegistrySettings.__struct_fields__)}  # named like methods
    events = {event["name"] for event in document(table, title="", version="")["x-events"]}
    for name in re.findall(rf"`((?:{namespaces})\.[A-Za-z_]+)(?:`| \{{)", page.read_text("utf-8")):
        known = name in table or name in events or name in said
        assert known or Path(name).suffix in (".db", ".lock", ".json", ".toml"), name
