"""In which order extensions come up, and who waits for whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from jan_core import Context, Empty, hookimpl, method, methods_of
from jan_core.host import Host
from jan_core.testing import InlineSource


def sources(order: list[str], *ids: str, slow: str = "", go: anyio.Event | None = None) -> list[InlineSource]:
    def made(id: str) -> type:
        class Plugin:
            @hookimpl
            async def jan_activate(self, ctx: Context) -> None:
                order.append(id)
                if id == slow and go is not None:
                    await go.wait()

            @hookimpl
            def jan_methods(self) -> list[Any]:
                return methods_of(self)

            @method(f"{id}.word")
            async def word(self, params: Empty) -> str:
                "Answer."
                return id

        return Plugin

    return [InlineSource(id, made(id), [f"{id}."]) for id in ids]


async def test_what_somebody_calls_comes_up_before_what_only_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jan_core.lifecycle.TURN", 10.0)
    order: list[str] = []

    class Wanted:
        @hookimpl
        async def jan_activate(self, ctx: Context) -> None:
            for _ in range(2000):  # time enough for others, if they did not wait
                await anyio.lowlevel.checkpoint()
            order.append("wanted")

        @hookimpl
        def jan_methods(self) -> list[Any]:
            return methods_of(self)

        @method("wanted.word")
        async def word(self, params: Empty) -> str:
            "Answer."
            return "here"

    wanted = InlineSource("wanted", Wanted, ["wanted."])
    async with Host(tmp_path, sources=[*sources(order, "a", "b", "c"), wanted]) as host:
        host.activate_startup_soon()
        with anyio.fail_after(10):
            assert await host.client().call("wanted.word") == "here"
            await host.activate_startup()
    assert order == ["wanted", "a", "b", "c"]


@pytest.mark.parametrize("slow", ["a", "b", "c"])
async def test_one_that_takes_long_to_start_keeps_no_other_from_it(tmp_path: Path, slow: str) -> None:
    order: list[str] = []
    go = anyio.Event()
    async with Host(tmp_path, sources=sources(order, "a", "b", "c", slow=slow, go=go)) as host:
        async with anyio.create_task_group() as group:
            group.start_soon(host.activate_startup)
            with anyio.fail_after(10):
                for id in {"a", "b", "c"} - {slow}:
                    assert await host.client().call(f"{id}.word") == id
            go.set()
    assert sorted(order) == ["a", "b", "c"]


async def test_a_host_that_ends_while_extensions_start_ends(tmp_path: Path) -> None:
    order: list[str] = []
    with anyio.fail_after(10):
        async with Host(tmp_path, sources=sources(order, "a", "b", slow="a", go=anyio.Event())) as host:
            host.activate_startup_soon()
            while not order:
                await anyio.lowlevel.checkpoint()
