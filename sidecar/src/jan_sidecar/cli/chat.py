"""`jan chat`: one question and its answer, or a conversation at the terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from .app import App, Failed, pass_app, wrong_usage
from .output import json_option, note, on_terminal, print_json

if TYPE_CHECKING:
    from .pictures import Picture

__all__ = ["chat", "read_stdin"]

LARGEST_INPUT = 16 * 1024 * 1024
"""Bytes read from stdin at most: beyond it no model's context window reaches."""


@click.command()
@click.argument("prompt", nargs=-1)
@click.option(
    "-m",
    "--model",
    default="",
    metavar="ID",
    help="The model. Default: the assistant's, else the installation's.",
)
@click.option("--assistant", default="", metavar="ID", help="Who answers (jan assistants list).")
@click.option("--thread", metavar="ID", help="Go on with this stored thread.")
@click.option("--incognito", is_flag=True, help="Keep nothing: neither the conversation nor the input history.")
@click.option("--sensitive", is_flag=True, help="Nothing of it leaves this machine, whatever the policy.")
@click.option("--system", default="", metavar="TEXT", help="Instructions for this conversation.")
@click.option("--temperature", type=click.FloatRange(0, 5), help="0: always the likeliest word.")
@click.option("--top-p", type=click.FloatRange(0, 1))
@click.option("--top-k", type=click.IntRange(0, 1_000_000))
@click.option("--min-p", type=click.FloatRange(0, 1))
@click.option("--repeat-penalty", type=click.FloatRange(0, 10, min_open=True))
@click.option("--max-tokens", type=click.IntRange(0, 2**31 - 1), help="Longest answer.")
@click.option("--seed", type=click.IntRange(-(2**53), 2**53), help="The same seed gives the same answer.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End the answer before this text. Can be repeated.")
@click.option(
    "--image",
    "images",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Ask about this picture (PNG, JPEG, GIF, BMP), which is looked at once. Can be repeated.",
)
@click.option("--no-stream", is_flag=True, help="Print the answer when it is whole.")
@json_option
@pass_app
def chat(
    app: App,
    /,
    prompt: tuple[str, ...],
    model: str,
    assistant: str,
    thread: str | None,
    incognito: bool,
    sensitive: bool,
    system: str,
    images: tuple[Path, ...],
    no_stream: bool,
    as_json: bool,
    **sampling: Any,
) -> None:
    """Ask a model, or talk with it.

    With PROMPT, or with input from a pipe, one question is answered and nothing is stored, unless --thread says where.
    With both, the input is put below PROMPT. Without either, a conversation begins; it is stored unless --incognito.
    With --image, the model is asked about the pictures: for what they show, if nothing else.
    """
    if thread and incognito:
        wrong_usage("--thread is stored and --incognito is not: give one of them")
    if thread and assistant:
        wrong_usage("the thread has its assistant already: give --thread or --assistant")
    if thread and sensitive:
        wrong_usage("the thread is as sensitive as it was made: give --thread or --sensitive")
    parameters = {name: value for name, value in sampling.items() if value not in (None, ())}
    if "stop" in parameters:
        parameters["stop"] = list(parameters["stop"])
    piped = None if sys.stdin is None or sys.stdin.isatty() else read_stdin(sys.stdin.buffer)
    options = {
        "thread_id": thread,
        "assistant": assistant,
        "model": model,
        "system": system,
        # One question is kept nowhere, which does not make it a secret.
        "sensitivity": "sensitive" if sensitive or incognito else "normal",
        "parameters": parameters,
    }
    if prompt or piped is not None or images:
        from .pictures import DESCRIBE, read_pictures

        pictures = read_pictures(images)
        parts = [" ".join(prompt).strip(), (piped or "").strip()]
        question = "\n\n".join(part for part in parts if part) or (DESCRIBE if pictures else "")
        if not question:
            wrong_usage("the prompt is empty")
        once = {**options, "incognito": thread is None}
        _one_answer(app, question, pictures, once, no_stream=no_stream, as_json=as_json)
        return
    if as_json:
        wrong_usage("--json needs a PROMPT or input from a pipe")
    if not on_terminal():
        wrong_usage("a conversation needs a terminal; give a PROMPT or input from a pipe")
    from .repl import converse
    from .session import run_session

    run_session(
        app,
        lambda session: converse(session, {**options, "incognito": incognito}, stream=not no_stream),
        activate=True,
    )


def _one_answer(
    app: App, question: str, pictures: Sequence[Picture], options: dict[str, Any], *, no_stream: bool, as_json: bool
) -> None:
    from .session import Session, run_session
    from .turn import Conversation, Printer, remark

    async def work(session: Session) -> None:
        conversation = Conversation(session, **options)
        if as_json:
            result = await conversation.ask(question, None, pictures)
            print_json(_answer(result, options["thread_id"]))
            remark(result)
            return
        printer = Printer(session)
        try:
            result = await conversation.ask(question, None if no_stream else printer, pictures)
            if no_stream:
                printer(result["message"]["content"])
        finally:
            printer.end()
        remark(result)

    run_session(app, work, activate=True)


def _answer(result: dict[str, Any], thread_id: str | None) -> dict[str, Any]:
    message = result["message"]
    answer = {
        "content": message["content"],
        "model": message.get("model", ""),
        "usage": result["usage"],
        "finish_reason": message.get("finish_reason"),
    }
    if message.get("tool_calls"):
        answer["tool_calls"] = message["tool_calls"]
    return {**answer, "thread_id": thread_id} if thread_id else answer


def read_stdin(source: BinaryIO) -> str:
    """All of stdin as text. What is not UTF-8 is replaced, and the person is told. Raises Failed when too long."""
    data = source.read(LARGEST_INPUT + 1)
    if len(data) > LARGEST_INPUT:
        raise Failed(f"the input is longer than {LARGEST_INPUT >> 20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("utf-8-sig", "replace")
        note(f"note: the input is not UTF-8; what could not be read was replaced ({text.count(chr(0xFFFD))} places)")
        return text
