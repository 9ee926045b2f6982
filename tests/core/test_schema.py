"""The OpenRPC document: its names do not depend on what else is installed, and it is what the specification says."""

from __future__ import annotations

import json
import re
import types
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import jsonschema
import jsonschema_specifications
import msgspec
import pytest
import referencing.jsonschema
from msgspec import Struct

from jan_core import Empty, JanError, method, methods_of
from jan_core.host import Host
from jan_core.methods import Method
from jan_core.rpc.openrpc import document
from jan_core.schema import rust, typescript
from jan_core.types import ChatMessage

T = TypeVar("T")
META = json.loads((Path(__file__).parent / "openrpc-meta-schema.json").read_text("utf-8"))


def struct(name: str, module: str, **fields: Any) -> type[Struct]:
    return msgspec.defstruct(name, list(fields.items()), module=module)


def serve(name: str, params: Any, result: Any, **more: Any) -> Method:
    """A method, as a handler with these annotations would be."""

    async def handler(self: Any, params: Any) -> Any:
        """Do it."""

    handler.__annotations__ = {"params": params, "return": result}
    owner = types.SimpleNamespace()
    kind = type("Owner", (), {"handler": method(name, **more)(handler)})
    owner = kind()
    return methods_of(owner)[0]


def table(**owners: list[Method]) -> dict[str, Method]:
    return {m.name: replace(m, owner=owner) for owner, methods in owners.items() for m in methods}


def described(found: dict[str, Method]) -> dict[str, Any]:
    return document(found, title="test", version="1")


def references(value: Any) -> set[str]:
    return set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(value)))


def validate(found: dict[str, Any]) -> None:
    """Check a document against the meta-schema that the OpenRPC project publishes, and each schema in it as such."""
    # Where the meta-schema refers to that of JSON Schema, the dialect that the document is written in counts.
    schema = {"$ref": jsonschema.Draft202012Validator.META_SCHEMA["$id"]}
    pointed_at = {"definitions": {"JSONSchemaObject": {"properties": {"$ref": {"type": "string"}}}}}
    draft7 = referencing.jsonschema.DRAFT7
    registry: Any = jsonschema_specifications.REGISTRY.with_resources(
        [
            ("https://meta.json-schema.tools", draft7.create_resource(schema)),
            ("https://meta.json-schema.tools/", draft7.create_resource(pointed_at)),
        ]
    )
    jsonschema.Draft7Validator(META, registry=registry).validate(found)
    for schema in found["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def thing(module: str, **fields: Any) -> list[Method]:
    kind = struct("Thing", module, **fields)
    return [serve(f"{module.partition('.')[0]}.make", kind, kind)]


def test_two_extensions_may_use_one_name_and_a_third_changes_nothing() -> None:
    alpha, beta, gamma = thing("alpha.shapes", a=int), thing("beta.shapes", b=int), thing("gamma.shapes", c=int)
    one, two, three = (
        described(table(alpha=alpha)),
        described(table(alpha=alpha, beta=beta)),
        described(table(alpha=alpha, beta=beta, gamma=gamma)),
    )
    assert set(one["components"]["schemas"]) >= {"alpha.Thing"}
    assert set(three["components"]["schemas"]) >= {"alpha.Thing", "beta.Thing", "gamma.Thing"}
    for fewer, more in ((one, two), (two, three)):
        assert fewer["components"]["schemas"].items() <= more["components"]["schemas"].items()
        assert [m for m in more["methods"] if m in fewer["methods"]] == fewer["methods"]
    assert references(three) <= set(three["components"]["schemas"])


def test_generated_code_keeps_its_names_when_another_extension_comes() -> None:
    alone = described(table(alpha=thing("alpha.shapes", a=int)))
    beside = described(table(alpha=thing("alpha.shapes", a=int), beta=thing("beta.shapes", b=int)))
    for generate in (typescript, rust):
        assert set(generate(alone).splitlines()) <= set(generate(beside).splitlines())


def test_a_type_keeps_its_name_over_a_reload() -> None:
    first, second = thing("alpha.shapes", a=int), thing("alpha@g2.shapes", a=int)
    assert described(table(alpha=first))["components"] == described(table(alpha=second))["components"]


def test_two_types_of_one_name_in_one_extension_get_their_module_in_between() -> None:
    near, far = struct("Thing", "alpha@g3.near", a=int), struct("Thing", "alpha@g3.far.away", b=int)
    found = described(table(alpha=[serve("alpha.make", near, far)]))
    assert set(found["components"]["schemas"]) >= {"alpha.near.Thing", "alpha.far.away.Thing"}
    assert found["methods"][0]["x-params"] == {"$ref": "#/components/schemas/alpha.near.Thing"}
    assert "interface NearThing" in typescript(found)
    assert "pub struct FarAwayThing" in rust(found)


def test_a_type_of_the_core_is_one_type_whoever_uses_it() -> None:
    alpha, beta = serve("alpha.say", ChatMessage, Empty), serve("beta.say", ChatMessage, Empty)
    found = described(table(alpha=[alpha], beta=[beta]))
    assert [m["x-params"]["$ref"] for m in found["methods"]] == ["#/components/schemas/core.ChatMessage"] * 2


def test_generic_types_are_named_with_their_arguments() -> None:
    class Page(Struct, Generic[T]):
        items: list[T]

    found = described(table(alpha=[serve("alpha.swap", Page[int], Page[str])]))
    assert set(found["components"]["schemas"]) >= {"alpha.Page_int", "alpha.Page_str"}
    assert references(found) <= set(found["components"]["schemas"])


def test_a_method_of_another_process_is_described_as_that_process_says() -> None:
    near, far = thing("alpha.shapes", a=int), thing("beta.shapes", b=int)
    told = serve("beta.ask", ChatMessage, Empty, item=int, events={"beta.asked": Empty})
    whole = described(table(alpha=near, beta=[*far, told]))
    child = described(table(beta=[*far, told]))
    remote = [
        replace(m, params=Any, result=Any, item=Any if m.item else None, events={}, described=child)
        for m in (*far, told)
    ]
    assert described(table(alpha=near, beta=remote)) == whole
    assert typescript(described(table(alpha=near, beta=remote))) == typescript(whole)


def test_methods_events_and_errors_are_described() -> None:
    class Sad(JanError):
        """It is sad."""

        code, type = -32091, "sad"

    class Ask(Struct):
        """A question."""

        mood: Literal["good", "bad"]
        loud: bool = False

    @method("alpha.ask", item=int, errors=[Sad], events={"alpha.asked": Ask})
    async def ask(self: Any, params: Ask) -> str:
        """Ask.

        Politely.
        """
        return ""

    ask.__annotations__ = {"params": Ask, "return": str}
    owner = type("Owner", (), {"ask": ask})()
    found = described(table(alpha=methods_of(owner)))
    (described_method,) = found["methods"]
    assert described_method == {
        "name": "alpha.ask",
        "summary": "Ask.",
        "description": "Politely.",
        "paramStructure": "by-name",
        "params": [
            {"name": "mood", "required": True, "schema": {"enum": ["bad", "good"]}},
            {"name": "loud", "required": False, "schema": {"type": "boolean", "default": False}},
        ],
        "result": {"name": "result", "schema": {"type": "string"}},
        "errors": [{"code": -32091, "message": "It is sad.", "data": {"type": "sad"}}],
        "x-extension": "alpha",
        "x-params": {"$ref": "#/components/schemas/alpha.Ask"},
        "x-stream": {"notification": "$/stream", "schema": {"type": "integer"}},
    }
    event = {"name": "alpha.asked", "schema": {"$ref": "#/components/schemas/alpha.Ask"}, "x-extension": "alpha"}
    assert event in found["x-events"]
    assert {"code": -32091, "message": "It is sad.", "data": {"type": "sad"}, "retryable": False} in found["x-errors"]
    validate(found)


async def test_the_whole_house_is_a_valid_document_without_loose_ends(tmp_path: Path) -> None:
    async with Host(tmp_path) as host:
        found = await host.client().call("rpc.discover")
    validate(found)
    assert references(found) == set(found["components"]["schemas"])
    for described_method in found["methods"]:  # "The Errors MUST have unique error codes"
        codes = [error["code"] for error in described_method["errors"]]
        assert len(codes) == len(set(codes)), described_method["name"]
    names = {event["name"] for event in found["x-events"]}
    assert names >= {"extensions.changed", "extensions.reloadFailed", "settings.changed", "downloads.changed"}


@pytest.mark.parametrize(
    "break_it",
    [
        lambda found: found.pop("info"),
        lambda found: found.update(openrpc="9.9.9"),
        lambda found: found["methods"][0].pop("name"),
        lambda found: found["methods"][0]["params"].append({"name": "no schema"}),
        lambda found: found["components"]["schemas"].update(bad={"type": "no such type"}),
    ],
)
def test_the_validator_sees_what_is_wrong(break_it: Any) -> None:
    found = described(table(alpha=thing("alpha.shapes", a=int)))
    validate(found)
    break_it(found)
    with pytest.raises((jsonschema.ValidationError, jsonschema.SchemaError)):
        validate(found)
