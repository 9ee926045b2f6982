"""What a request asks of the form of its answer: tools, a tool choice, a response format, a grammar. No I/O."""

from __future__ import annotations

from typing import Any

from jan_core import InvalidParams
from jan_core.types import (
    ChatRequest,
    CompletionRequest,
    JsonFormat,
    JsonSchemaFormat,
    NamedTool,
    TextFormat,
    Tool,
)

from .client import Grammar, ModelInfo
from .markers import TOOL_CALLS, TOOL_CLOSE, TOOL_OPEN

__all__ = ["answer_grammar", "tools_offered"]

MAX_DEPTH = 100
"""JSON schemas nested deeper are refused; this is what other processes can read, not what makes sense."""
_ANY_ARGUMENTS: dict[str, Any] = {"type": "object"}


def tools_offered(request: ChatRequest) -> list[Tool] | None:
    """The tools that the model is told of. Raises InvalidParams for a choice among none."""
    if request.tool_choice == "none":
        return None
    if not request.tools:
        if request.tool_choice not in (None, "auto"):
            raise InvalidParams("there are no tools to choose from", path="$.tool_choice")
        return None
    return request.tools


def answer_grammar(request: ChatRequest | CompletionRequest, info: ModelInfo | None) -> Grammar | None:
    """The grammar of the answer. `info`: the model's, for a chat. Raises InvalidParams."""
    if not isinstance(request, ChatRequest) or info is None:
        return Grammar(gbnf=request.grammar) if request.grammar is not None else None
    schema = _response_schema(request)
    offered = tools_offered(request)
    forced = request.tool_choice == "required" or isinstance(request.tool_choice, NamedTool)
    if (schema is not None) + (request.grammar is not None) + bool(offered) > 1:
        path = "$.grammar" if request.grammar is not None else "$.response_format"
        raise InvalidParams("an answer follows one of tools, response_format and grammar", path=path)
    if request.grammar is not None:
        return Grammar(gbnf=request.grammar)
    if schema is not None:
        return Grammar(json_schema=schema, reasoning=info.reasons)
    if not offered:
        return None
    if isinstance(request.tool_choice, NamedTool):
        wanted = request.tool_choice.function.name
        offered = [tool for tool in offered if tool.function.name == wanted]
        if not offered:
            raise InvalidParams(f"there is no tool {wanted!r}", path="$.tool_choice.function.name")
    return _calls(offered, info, forced=forced, parallel=request.parallel_tool_calls is not False)


def _response_schema(request: ChatRequest) -> dict[str, Any] | None:
    match request.response_format:
        case None | TextFormat():
            return None
        case JsonFormat():
            return {"type": "object"}
        case JsonSchemaFormat(asked):
            _check_depth(asked.schema, "$.response_format.json_schema.schema")
            return asked.schema if asked.schema is not None else {"type": "object"}


def _calls(tools: list[Tool], info: ModelInfo, *, forced: bool, parallel: bool) -> Grammar | None:
    """Calls of these tools, as the model writes them: at once, or from where it begins to write one. None: where it
    begins cannot be seen.
    """
    for number, tool in enumerate(tools):
        _check_depth(tool.function.parameters, f"$.tools[{number}].function.parameters")
    exact = _call_schema(tools, info, [tool.function.parameters or _ANY_ARGUMENTS for tool in tools])
    fallback = None if forced else _call_schema(tools, info, [_ANY_ARGUMENTS] * len(tools))
    before, after, many, triggers = "", "", False, []
    match info.tools:
        case "hermes":
            before, after, many, triggers = f"{TOOL_OPEN}\n", f"\n{TOOL_CLOSE}", parallel, [TOOL_OPEN]
        case "mistral":
            before, triggers = TOOL_CALLS, [TOOL_CALLS]
            exact = _list_of(exact, parallel)
            fallback = _list_of(fallback, parallel) if fallback else None
        case "llama":
            names = [tool.function.name for tool in tools]
            triggers = [f'{{"name":{space}"{name}"' for name in names for space in (" ", "")]
    if forced:
        return Grammar(json_schema=exact, before=before, after=after, many=many, reasoning=info.reasons)
    triggers = [trigger for trigger in triggers if trigger.isascii() and trigger.isprintable()]
    if not triggers:
        return None
    return Grammar(json_schema=exact, fallback=fallback, before=before, after=after, many=many, triggers=triggers)


def _call_schema(tools: list[Tool], info: ModelInfo, arguments: list[dict[str, Any]]) -> dict[str, Any]:
    key = "parameters" if info.tools == "llama" else "arguments"
    calls = [
        {
            "properties": {"name": {"const": tool.function.name}, key: {"$ref": f"#/$defs/tool{number}"}},
            "required": ["name", key],
        }
        for number, tool in enumerate(tools)
    ]
    places = {f"tool{number}": _moved(schema, f"#/$defs/tool{number}") for number, schema in enumerate(arguments)}
    return {"anyOf": calls, "$defs": places}


def _list_of(schema: dict[str, Any], parallel: bool) -> dict[str, Any]:
    items = {"anyOf": schema["anyOf"]}
    return {"type": "array", "items": items, "minItems": 1, "$defs": schema["$defs"]} | (
        {} if parallel else {"maxItems": 1}
    )


def _moved(schema: Any, place: str) -> Any:
    """A schema whose references within itself still lead there when it stands at `place` of another."""
    if isinstance(schema, list):
        return [_moved(each, place) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: place + value[1:]
        if key == "$ref" and isinstance(value, str) and value.startswith("#")
        else _moved(value, place)
        for key, value in schema.items()
    }


def _check_depth(schema: Any, path: str) -> None:
    level = [schema]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return
    raise InvalidParams(f"the schema is nested deeper than {MAX_DEPTH} levels", path=path)
