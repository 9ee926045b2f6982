"""`jan models pull` and `rm`: which files are fetched together, what the model is told of them, what is removed again.

The downloads are real; the registry and the models stand in, so that a split model with a projector needs no gigabytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jan_sidecar.cli.app import App, run

from jan_core import Caller, hookimpl, method, methods_of
from jan_core.host import Host
from jan_core.loader import installed
from jan_core.testing import InlineSource


class Query(msgspec.Struct):
    id: str = ""
    variant: str = ""
    source: str = ""
    adapter: str = ""


class House:
    """A registry with one model, and a shelf of models that remembers what it was told."""

    def __init__(self) -> None:
        self.files: list[dict[str, Any]] = []
        self.imports: list[dict[str, Any]] = []
        self.models: list[dict[str, Any]] = []

    @hookimpl
    def jan_methods(self) -> list[Any]:
        return methods_of(self)

    @method("registry.resolve")
    async def resolve(self, params: Query) -> dict[str, Any]:
        """As the real one."""
        return {"variant": params.variant or "q4", "files": self.files}

    @method("models.list")
    async def list(self, params: Query) -> dict[str, Any]:
        """As the real one."""
        return {"models": self.models}

    @method("models.import")
    async def take_in(self, params: dict[str, Any]) -> dict[str, Any]:
        """As the real one, as far as it is told."""
        self.imports.append(params)
        model = {"id": params["id"], "path": params["path"], "size": 1, "hashes": [*params["hashes"].values()]}
        self.models.append(model)
        return model

    @method("models.delete")
    async def delete(self, params: Query) -> dict[str, Any]:
        """As the real one."""
        self.models = [model for model in self.models if model["id"] != params.id]
        return {}


@pytest.fixture
def house() -> House:
    return House()


@pytest.fixture
def jan(house: House, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """`jan(arguments…)`: status, stdout and stderr of a command in this house."""

    @asynccontextmanager
    async def opener(app: App, activate: bool) -> AsyncIterator[Caller]:
        kept = [source for source in installed() if source.id == "download"]
        async with Host(
            tmp_path / "data", sources=[*kept, InlineSource("house", house, ["registry.", "models."])]
        ) as host:
            yield host.client("cli")

    def call(*arguments: str) -> tuple[int, str, str]:
        status = run(arguments, opener)
        told = capsys.readouterr()
        return status, told.out, told.err

    return call


def file_of(server: Any, name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "url": f"{server.url}/{name}", "size": len(server.content), **more}


def test_the_parts_of_a_model_and_its_projector_are_one_group(jan: Any, house: House, file_server: Any) -> None:
    parts = [file_of(file_server, f"owl-0000{n}-of-00002.bin", sha256=file_server.sha256) for n in (2, 1)]
    house.files = [*parts, file_of(file_server, "mmproj-owl.bin", sha256=file_server.sha256)]
    status, _, err = jan("models", "pull", "org/owl", "--limit", "500M", "--priority", "3")
    assert status == 0, err
    records = json.loads(jan("downloads", "list", "--json")[1])
    assert len(records) == 3
    assert len({record["group"] for record in records}) == 1
    assert {(record["limit"], record["priority"]) for record in records} == {(500_000_000, 3)}
    assert sorted(record["role"] for record in records) == ["projector", "weights", "weights"]
    [told] = house.imports
    assert told["path"].endswith("-owl-00001-of-00002.bin"), "the first part"
    assert Path(told["path"].replace("-00001-", "-00002-")).is_file(), "the other parts lie beside it"
    assert told["projector"].endswith("-mmproj-owl.bin")
    assert set(told["hashes"].values()) == {file_server.sha256}
    assert (told["unchecked"], told["origin"]) == (False, "org/owl")


def test_a_model_that_nobody_could_check_is_marked_so(jan: Any, house: House, file_server: Any) -> None:
    status, _, err = jan("models", "pull", f"{file_server.url}/owl.bin")
    assert status == 0, err
    assert house.imports[0]["unchecked"] is True
    assert list(house.imports[0]["hashes"].values()) == [file_server.sha256]


def test_a_part_that_cannot_be_had_fails_the_whole_and_says_how_to_go_on(
    jan: Any, house: House, file_server: Any
) -> None:
    gone = {"name": "missing.gguf", "url": f"{file_server.url}/missing.gguf", "sha256": "0" * 64}
    house.files = [file_of(file_server, "owl.bin", sha256=file_server.sha256), gone]
    status, out, err = jan("models", "pull", "org/owl", "--variant", "q 8")
    assert (status, out) == (1, "")
    assert err.splitlines()[0].startswith("jan: missing.gguf: ")
    assert err.splitlines()[1].endswith("go on with: jan models pull org/owl --variant 'q 8'")
    assert house.imports == []
    assert all(record["path"] == "" for record in json.loads(jan("downloads", "list", "--json")[1]))


def test_what_another_model_needs_stays_when_one_is_removed(jan: Any, house: House, file_server: Any) -> None:
    assert jan("models", "pull", f"{file_server.url}/owl.bin", "--id", "owl")[0] == 0
    house.models.append({"id": "twin", "path": "/nowhere", "size": 1, "hashes": [file_server.sha256]})
    [gone] = json.loads(jan("models", "rm", "owl", "--json")[1])
    assert gone["downloads"] == []
    [record] = json.loads(jan("downloads", "list", "--json")[1])
    _, out, err = jan("models", "rm", "twin", "--json")
    assert json.loads(out)[0]["downloads"] == [record["id"]], err
    assert not Path(record["path"]).exists()
    assert hashlib.sha256(file_server.content).hexdigest() == record["actual_sha256"]
