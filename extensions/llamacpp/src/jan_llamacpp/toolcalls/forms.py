"""The ways in which models write tool calls, as their chat templates teach them. A table, and who is in which row.

An answer's calls are one or more blocks; a block is `begin`, a call (or several with `comma` between them), and `end`.
A call has the slots `{name}` and `{id}`, and one of these for its arguments:

* `{object}`: a JSON object that says the name, too (`keys`),
* `{arguments}`: a JSON object, where it ends is found by reading it,
* `{parameters}`: any number of `parameter`, whose `{value}` is a text. It ends at the first text that comes after it in
  `parameter`; what it means is told by the tool's schema.

White space in the table is what models write; any other is read as well. What is not here: Python's own notation (LFM2,
some of Llama 3.2 and 4), Gemma 4's, DeepSeek 3.2's, and Functionary 3.2's `>>>`. Those calls stay text.
"""

from __future__ import annotations

import re

from msgspec import Struct

__all__ = ["CHANNEL", "END", "FORMS", "MESSAGE", "START", "Form", "form_of"]

CHANNEL, MESSAGE, START, END = "<|channel|>", "<|message|>", "<|start|>", "<|end|>"
"""Of answers in channels (`harmony.py`)."""

_TOKEN = re.compile(r"</?[^<>{}=\s]+>|\[[A-Z_]+\]")


class Form(Struct, frozen=True):
    """One row. `signs`: a template has this form if it holds all texts of one of them.

    `comma` None: each call has a block of its own. `channels`: answers are in channels, of which a call is one, and the
    answer's last (see `harmony.py`). `bare`: an answer may also begin with a call without `begin`; then
    only the names of tools make it one.
    """

    signs: tuple[tuple[str, ...], ...]
    call: str
    begin: tuple[str, ...] = ()
    comma: str | None = None
    end: str = ""
    parameter: str = ""
    keys: tuple[str, str] = ("name", "arguments")
    bare: bool = False
    channels: bool = False

    def halves(self) -> tuple[str, str, str]:
        """What stands before a call's arguments, which kind they are, and what stands after them."""
        slot = next(slot for slot in ("{object}", "{arguments}", "{parameters}") if slot in self.call)
        before, _, after = self.call.partition(slot)
        return before, slot, after

    def markers(self) -> frozenset[str]:
        """The texts in it that may be control tokens of a vocabulary."""
        written = [*self.begin, self.call, self.parameter, self.end, *([START, END] if self.channels else [])]
        return frozenset(_TOKEN.findall(" ".join(written)))


FORMS: dict[str, Form] = {
    "harmony": Form(  # gpt-oss
        (("<|channel|>analysis<|message|>",),),
        call="<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>{arguments}",
        channels=True,
    ),
    "qwen-coder": Form(  # Qwen 3 Coder, Qwen 3.5, Nemotron 3, Step 3.5
        (("<tool_call>", "<function=", "<parameter="),),
        begin=("<tool_call>\n",),
        call="<function={name}>\n{parameters}</function>",
        parameter="<parameter={key}>\n{value}\n</parameter>\n",
        end="\n</tool_call>",
    ),
    "seed": Form(
        (("<seed:tool_call>",),),
        begin=("<seed:tool_call>\n",),
        call="<function={name}>\n{parameters}</function>",
        parameter="<parameter={key}>{value}</parameter>\n",
        end="\n</seed:tool_call>",
    ),
    "minimax": Form(  # M2
        (("<minimax:tool_call>",),),
        begin=("<minimax:tool_call>\n",),
        call='<invoke name="{name}">\n{parameters}</invoke>',
        comma="\n",
        parameter='<parameter name="{key}">{value}</parameter>\n',
        end="\n</minimax:tool_call>",
    ),
    "glm-tight": Form(  # GLM 4.7
        (("<arg_key>", "</arg_key><arg_value>"),),
        call="<tool_call>{name}{parameters}</tool_call>",
        comma="",
        parameter="<arg_key>{key}</arg_key><arg_value>{value}</arg_value>",
    ),
    "glm": Form(  # GLM 4.5 and 4.6, Ling 3, Laguna
        (("<arg_key>",),),
        call="<tool_call>{name}\n{parameters}</tool_call>",
        parameter="<arg_key>{key}</arg_key>\n<arg_value>{value}</arg_value>\n",
    ),
    "mistral-id": Form(  # Mistral Small 3.2
        (("[TOOL_CALLS]", "[CALL_ID]"),),
        call="[TOOL_CALLS]{name}[CALL_ID]{id}[ARGS]{arguments}",
        comma="",
    ),
    "mistral-args": Form(  # Ministral 3, Devstral, Magistral
        (("[TOOL_CALLS]", "[ARGS]"),),
        call="[TOOL_CALLS]{name}[ARGS]{arguments}",
        comma="",
    ),
    "mistral": Form(  # 7B 0.3, Nemo, Small 3.1
        (("[TOOL_CALLS]",),),
        begin=("[TOOL_CALLS]", "["),
        call="{object}",
        comma=",",
        end="]",
    ),
    "deepseek-r1": Form(  # and its distillations, V3
        (("<｜tool▁calls▁begin｜>", "```json"),),
        begin=("<｜tool▁calls▁begin｜>",),
        call="<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{arguments}\n```<｜tool▁call▁end｜>",
        comma="\n",
        end="<｜tool▁calls▁end｜>",
    ),
    "deepseek": Form(  # V3.1
        (("<｜tool▁calls▁begin｜>",),),
        begin=("<｜tool▁calls▁begin｜>",),
        call="<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{arguments}<｜tool▁call▁end｜>",
        comma="",
        end="<｜tool▁calls▁end｜>",
    ),
    "kimi": Form(  # K2
        (("<|tool_calls_section_begin|>",),),
        begin=("<|tool_calls_section_begin|>",),
        call="<|tool_call_begin|>functions.{name}:{id}<|tool_call_argument_begin|>{arguments}<|tool_call_end|>",
        comma="",
        end="<|tool_calls_section_end|>",
    ),
    "command-r": Form(  # R7B, A
        (("<|START_ACTION|>",),),
        begin=("<|START_ACTION|>", "["),
        call="{object}",
        comma=",",
        end="]<|END_ACTION|>",
        keys=("tool_name", "parameters"),
    ),
    "granite": Form(  # 3, and Phi 4 mini
        (("<|tool_call|>",),),
        begin=("<|tool_call|>", "["),
        call="{object}",
        comma=",",
        end="]",
    ),
    "nemotron": Form(
        (("<TOOLCALL>",),),
        begin=("<TOOLCALL>", "["),
        call="{object}",
        comma=",",
        end="]</TOOLCALL>",
    ),
    "apriel": Form(
        (("<tool_calls>[",),),
        begin=("<tool_calls>", "["),
        call="{object}",
        comma=",",
        end="]</tool_calls>",
    ),
    "functools": Form(
        (("functools[",),),
        begin=("functools", "["),
        call="{object}",
        comma=",",
        end="]",
    ),
    "functionary": Form(
        (("<function=", "</function>"),),
        call="<function={name}>{arguments}</function>",
        comma="",
    ),
    "hermes": Form(  # Hermes, Qwen 2.5 and 3, Granite 4, and most others
        (("<tool_call>",),),
        begin=("<tool_call>\n",),
        call="{object}",
        end="\n</tool_call>",
    ),
    "llama": Form(  # 3.1 to 3.3
        (("<|python_tag|>",), ('"parameters": dictionary',)),
        begin=("<|python_tag|>",),
        call="{object}",
        comma=";",
        keys=("name", "parameters"),
        bare=True,
    ),
}


def form_of(template: str | None) -> str:
    """Which form a model's chat template teaches; `hermes` where it says nothing."""
    for id, form in FORMS.items():
        if any(all(text in (template or "") for text in sign) for sign in form.signs):
            return id
    return "hermes"
