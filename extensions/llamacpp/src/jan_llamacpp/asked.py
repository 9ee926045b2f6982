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
from .toolcalls import FORMS, call_rules, text_rules, triggers_of

__all__ = ["answer_grammar", "formatted", "tools_offered"]

MAX_DEPTH = 100
"""JSON schemas nested deeper are refused; this is what other processes can read, not what makes sense."""


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
    if request.grammar is not None:
        if offered or schema is not None:
            raise InvalidParams(
                "an answer that follows a grammar has no tools and no response_format", path="$.grammar"
            )
        return Grammar(gbnf=request.grammar)
    if offered:
        return _calls(request, offered, info, schema)
    if schema is None:
        return None
    before, begin, rules = text_rules(FORMS[info.tools])
    gbnf = f"root ::= {before} {begin} answer\n{rules}"
    return Grammar(gbnf=gbnf, schemas={"answer": schema}, reasoning=info.reasons)


def formatted(request: ChatRequest) -> bool:
    """Whether an answer that is no call is JSON."""
    return isinstance(request.response_format, JsonFormat | JsonSchemaFormat)


def _response_schema(request: ChatRequest) -> dict[str, Any] | None:
    match request.response_format:
        case None | TextFormat():
            return None
        case JsonFormat():
            return {"type": "object"}
        case JsonSchemaFormat(asked):
            _check_depth(asked.schema, "$.response_format.json_schema.schema")
            return asked.schema if asked.schema is not None else {"type": "object"}


def _calls(request: ChatRequest, tools: list[Tool], info: ModelInfo, schema: dict[str, Any] | None) -> Grammar | None:
    """Calls of these tools, as the model writes them: at once where they are wanted, else from where it begins to write
    one. With a response format the answer is calls or JSON of `schema`. None: where a call begins cannot be seen.
    """
    for number, tool in enumerate(tools):
        _check_depth(tool.function.parameters, f"$.tools[{number}].function.parameters")
    if isinstance(request.tool_choice, NamedTool):
        wanted = request.tool_choice.function.name
        tools = [tool for tool in tools if tool.function.name == wanted]
        if not tools:
            raise InvalidParams(f"there is no tool {wanted!r}", path="$.tool_choice.function.name")
    form = FORMS[info.tools]
    offered = {tool.function.name: tool.function.parameters for tool in tools}
    rules = call_rules(form, offered, parallel=request.parallel_tool_calls is not False)
    before, begin, more = text_rules(form)
    if request.tool_choice == "required" or isinstance(request.tool_choice, NamedTool):
        gbnf = f"root ::= {before} calls\n{rules.gbnf}{more}"
        return Grammar(gbnf=gbnf, schemas=rules.schemas, reasoning=info.reasons)
    if schema is not None:
        return Grammar(
            gbnf=f"root ::= {before} (calls | {begin} answer)\n{rules.gbnf}{more}",
            schemas=rules.schemas | {"answer": schema},
            fallback=rules.fallback,
            reasoning=info.reasons,
        )
    triggers = triggers_of(form, list(offered))
    if not triggers:
        return None
    return Grammar(
        gbnf=f"root ::= calls\n{rules.gbnf}", schemas=rules.schemas, fallback=rules.fallback, triggers=triggers
    )


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
