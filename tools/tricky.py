"""An OpenRPC document full of what generators stumble over. Types are generated from it too, and compiled in the
tests of the clients, so that what first-party methods do not need yet is known to work."""

from __future__ import annotations

from typing import Any

__all__ = ["DOCUMENT"]


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: dict[str, Any], required: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), **more}


_NULL = {"type": "null"}
_TEXT = {"type": "string"}
_SHAPES = {
    "anyOf": [_ref("odd-one.Circle"), _ref("odd-one.Square")],
    "discriminator": {
        "propertyName": "kind",
        "mapping": {"circle": "#/components/schemas/odd-one.Circle", "self": "#/components/schemas/odd-one.Square"},
    },
}

SCHEMAS: dict[str, Any] = {
    "odd-one.Keywords": _object(
        {
            "type": _TEXT,
            "@id": {"type": "string", "default": "me@home"},
            "ref": _TEXT,
            "self": _TEXT,
            "class": _TEXT,
            "camelCase": _TEXT,
            "with-dash": _TEXT,
            "with_dash": _TEXT,
            "2nd": _TEXT,
            "fn": {"type": "integer"},
            "größe": {"type": "integer"},
        },
        ("type", "self"),
        description='Ends a comment: */ and quotes: " \\',
    ),
    "odd-one.String": _object({"value": _TEXT}, ("value",)),
    "odd-one.Option": {"enum": ["none", "some"], "description": "Hides nothing of the language."},
    "odd-one.Tree": _object(
        {
            "label": _TEXT,
            "left": {"anyOf": [_ref("odd-one.Tree"), _NULL], "default": None},
            "right": _ref("odd-one.Tree"),
            "children": {"type": "array", "items": _ref("odd-one.Tree")},
            "by_name": {"type": "object", "additionalProperties": _ref("odd-one.Tree")},
        },
        ("label",),
    ),
    "odd-one.Circle": _object({"kind": {"const": "circle"}, "radius": {"type": "number"}}, ("kind", "radius")),
    "odd-one.Square": _object({"kind": {"enum": ["self"]}, "of": _SHAPES}, ("kind",)),
    "odd-one.Drawing": _object(
        {
            "shape": {"anyOf": [_SHAPES, _NULL]},
            "shapes": {"type": "array", "items": _SHAPES},
            "state": {"enum": ["new", "in use", "Other", "3d", "", 'é\u2028"\\', "😀"]},
            "at": {"type": "array", "prefixItems": [{"type": "number"}, {"type": "integer"}], "minItems": 2},
            "size": {"type": ["integer", "null"], "minimum": 0},
            "level": {"enum": [1, 2, 3]},
            "note": {"anyOf": [_TEXT, _NULL]},
            "when": {"type": "string", "format": "date-time", "default": "now"},
            "any": {},
            "either": {"oneOf": [{"type": "boolean"}, {"type": "integer"}, {"type": "array", "items": _TEXT}]},
            "inner": _object({"x": {"type": "number"}}, ("x",)),
            "nothing": _NULL,
        },
        ("shape", "state"),
    ),
    "odd-one.DrawingState": _object({"taken": {"type": "boolean"}}),
    "odd-one.Loose": {"type": "object", "additionalProperties": True, **_object({"a": _TEXT})},
    "default.Text": _TEXT,
    "default.Number": {"type": "number"},
    **{f"{owner}.Note": _object({"of": _ref("default.Text")}, ("of",)) for owner in ("methods", "serde_json", "std")},
}


def _method(name: str, owner: str, params: Any, result: Any, item: Any = None, **more: Any) -> dict[str, Any]:
    stream = {} if item is None else {"x-stream": {"notification": "$/stream", "schema": item}}
    result = {"name": "result", "schema": result}
    return {"name": name, "params": [], "result": result, "x-extension": owner, "x-params": params, **stream, **more}


DOCUMENT: dict[str, Any] = {
    "openrpc": "1.3.2",
    "info": {"title": "tricky", "version": "0"},
    "methods": [
        _method("odd.keywords", "odd-one", _ref("odd-one.Keywords"), _ref("odd-one.Keywords")),
        _method("odd.draw", "odd-one", _ref("odd-one.Drawing"), _ref("odd-one.Drawing"), _SHAPES),
        _method("odd.grow", "odd-one", _ref("odd-one.Tree"), {"type": "array", "items": _ref("odd-one.Tree")}),
        _method("odd.state", "odd-one", _ref("odd-one.Loose"), _ref("odd-one.DrawingState")),
        _method("odd.words", "odd-one", _object({"a": _ref("odd-one.String")}, ("a",)), _ref("odd-one.Option")),
        _method("odd.nothing", "odd-one", _object({}, additionalProperties=False), _NULL),
        _method("default.text", "default", _object({"of": _ref("default.Number")}), _ref("default.Text")),
        _method("methods.take_note", "methods", _ref("methods.Note"), _ref("serde_json.Note")),
        _method("methods.takeNote", "methods", _ref("methods.Note"), _ref("std.Note")),
    ],
    "components": {"schemas": SCHEMAS},
    "x-events": [
        {"name": "odd.drawn", "x-extension": "odd-one", "schema": _SHAPES},
        {"name": "default.said", "x-extension": "default", "schema": _ref("default.Text")},
    ],
    "x-errors": [
        {"code": -32020, "message": "Of one\nextension.", "data": {"type": "self"}, "retryable": False},
        {"code": -32020, "message": "Of another.", "data": {"type": "other"}, "retryable": True},
    ],
}
