"""The method table, and what a handler must look like to get into it."""

from __future__ import annotations

from typing import Any

import pytest

from jan_core import Empty, method, methods_of
from jan_core.methods import MethodTable


class Base:
    @method("a.one")
    async def one(self, params: Empty) -> int:
        """One."""
        return 1


class Child(Base):
    @method("a.two")
    async def two(self, params: Empty) -> int:
        """Two."""
        return 2


def named(owner: str, *objects: Any) -> Any:
    from dataclasses import replace

    return [replace(m, owner=owner) for m in methods_of(*objects)]


def test_methods_of_finds_inherited_handlers_and_their_types() -> None:
    found = {m.name: m for m in methods_of(Child())}
    assert set(found) == {"a.one", "a.two"}
    assert (found["a.two"].params, found["a.two"].result, found["a.two"].takes_call) == (Empty, int, False)


def test_a_name_is_served_by_one_extension_and_a_clash_changes_nothing() -> None:
    table = MethodTable()
    table.replace("x", named("x", Base()))
    before = dict(table)
    with pytest.raises(ValueError, match="one is served by x"):
        table.replace("y", named("y", Base()))
    assert dict(table) == before


def test_replacing_takes_out_what_is_no_longer_contributed() -> None:
    table = MethodTable()
    table.replace("x", named("x", Child()))
    table.replace("x", named("x", Base()))
    assert set(table) == {"a.one"}
    table.replace("x", [])
    assert len(table) == 0


class Untyped:
    @method("a.bad")
    async def bad(self, params):  # type: ignore[no-untyped-def]
        """No types."""


class Greedy:
    @method("a.bad")
    async def bad(self, params: Empty, call: Any, more: int) -> int:
        """Three parameters."""
        return 0


@pytest.mark.parametrize("owner", [Untyped(), Greedy()])
def test_a_handler_without_a_fitting_signature_is_refused_with_what_it_should_be(owner: Any) -> None:
    with pytest.raises(TypeError, match=r"a handler is \(params: P\) -> R"):
        methods_of(owner)
