"""OpenAI's tools: the functions a model may ask for, and the calls it makes. Calling them is the client's business."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

__all__ = [
    "FunctionCall",
    "FunctionDelta",
    "NamedFunction",
    "NamedTool",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolChoice",
    "ToolFunction",
]


class FunctionCall(Struct):
    """A call the model asks for; `arguments` is a JSON text, as OpenAI has it."""

    name: str
    arguments: str = "{}"


class ToolCall(Struct):
    id: str
    function: FunctionCall
    type: str = "function"
    index: int = 0


class FunctionDelta(Struct, omit_defaults=True):
    """What a chunk adds to a call: its name, once, and the next part of its arguments."""

    name: str | None = None
    arguments: str | None = None


class ToolCallDelta(Struct, omit_defaults=True):
    """What a chunk adds to call `index` of an answer. `id`, `type` and the name come with its first part only."""

    index: int
    function: FunctionDelta
    id: str | None = None
    type: str | None = None


class ToolFunction(Struct, omit_defaults=True):
    """A function the model may ask for. `parameters`: a JSON schema of its arguments (an object)."""

    name: Annotated[str, Meta(min_length=1, max_length=256)]
    description: str = ""
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Struct):
    function: ToolFunction
    type: str = "function"


class NamedFunction(Struct):
    name: str


class NamedTool(Struct, tag_field="type", tag="function"):
    """The one function that must be called."""

    function: NamedFunction


ToolChoice = Literal["none", "auto", "required"] | NamedTool
"""`auto`: the model may call tools; `required`: it must call at least one."""
