"""The conversation at the terminal: reading lines, commands with a slash, answers that Ctrl-C stops."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import anyio
import click

from jan_core import JanError

from .app import Failed, hint
from .output import clean, note
from .session import Session
from .turn import Conversation, Printer, remark

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.key_binding import KeyBindings

    from .pictures import Picture

__all__ = ["converse"]

HELP = """\
/new             begin a new conversation
/model [ID]      show or choose the model
/system [TEXT]   give instructions for the conversation
/image PATH [TEXT]
                 ask about a picture; it is looked at once, later answers know only what was said of it
/exit            leave (as Ctrl-D)
Alt-Enter begins a new line; so does Enter between \"\"\" and \"\"\". Ctrl-C stops an answer."""
QUOTES = '"""'


class LineDropped(Exception):
    """Ctrl-C at the prompt."""


async def converse(session: Session, options: dict[str, Any], *, stream: bool) -> None:
    """Read, answer, repeat, until Ctrl-D or /exit."""
    conversation = Conversation(session, **options)
    lines = _prompt(session, conversation)
    kept = "nothing is kept" if conversation.incognito else "stored on this machine"
    note(f"A conversation, {kept}. /help shows the commands, Ctrl-D leaves.")
    while True:
        try:
            line = await lines.prompt_async(handle_sigint=False, set_exception_handler=False)
        except LineDropped:
            continue
        except EOFError:
            return
        text = _unquoted(line).strip()
        if not text:
            continue
        if text.split(maxsplit=1)[0] == "/image":
            await _about_picture(session, conversation, text.removeprefix("/image").strip(), stream=stream)
        elif text.startswith("/"):
            if not await _command(conversation, text):
                return
        else:
            await _turn(session, conversation, text, stream=stream)


async def _turn(
    session: Session, conversation: Conversation, question: str, pictures: Sequence[Picture] = (), *, stream: bool
) -> None:
    printer = Printer(session)
    result: dict[str, Any] | None = None
    with anyio.CancelScope() as answering, session.interrupts.stopping(answering.cancel, whole=False):
        try:
            result = await conversation.ask(question, printer if stream else None, pictures)
            if not stream:
                printer(result["message"]["content"])
        except (JanError, Failed) as error:
            printer.end()
            advice = hint(error)
            note(f"{error}{f' ({advice})' if advice else ''}")
    printer.end()
    if result is not None:
        remark(result)
    if answering.cancelled_caught:
        note("(stopped)")
        session.interrupts.count = 0


async def _about_picture(session: Session, conversation: Conversation, argument: str, *, stream: bool) -> None:
    """`/image`: nothing of it comes to an engine unless the file can be read and begins as a picture does."""
    from .pictures import DESCRIBE, read_pictures, split_path

    if not argument:
        note("usage: /image PATH [TEXT]; a PATH with spaces is put in quotes")
        return
    try:
        path, question = split_path(argument)
        pictures = read_pictures([path])
    except (Failed, ValueError) as error:
        note(str(error))
        return
    await _turn(session, conversation, question or DESCRIBE, pictures, stream=stream)


async def _command(conversation: Conversation, text: str) -> bool:
    """Carry out a command. False: leave."""
    name, _, argument = text.partition(" ")
    argument = argument.strip()
    match name:
        case "/exit" | "/quit" | "/bye":
            return False
        case "/help" | "/?":
            click.echo(HELP)
        case "/new":
            conversation.restart()
            note("A new conversation.")
        case "/model" if argument:
            conversation.model = argument
            note(f"The next answers come from {argument}.")
        case "/model":
            note(f"model: {conversation.model or 'the default one'}")
        case "/system" if argument:
            conversation.system = argument
            note("From the next question on.")
        case "/system":
            note("usage: /system TEXT")
        case _:
            note(f"there is no command {clean(name)}; /help shows them")
    return True


def _unquoted(line: str) -> str:
    text = line.strip()
    if len(text) >= 2 * len(QUOTES) and text.startswith(QUOTES) and text.endswith(QUOTES):
        return text[len(QUOTES) : -len(QUOTES)]
    return line


def _prompt(session: Session, conversation: Conversation) -> PromptSession[str]:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import FileHistory, History, InMemoryHistory

    history: History = InMemoryHistory()
    if not conversation.incognito:
        path = session.app.data_dir / "chat_history"
        # Made here so that it is nobody else's to read from the first line on.
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        history = FileHistory(str(path))
    return PromptSession(
        "> ",
        multiline=True,
        prompt_continuation="  ",
        history=history,
        key_bindings=_keys(),
        interrupt_exception=LineDropped,
        eof_exception=EOFError,
    )


def _keys() -> KeyBindings:
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()

    @keys.add("enter")
    def _enter(event: KeyPressEvent) -> None:
        text = event.current_buffer.text.strip()
        quoted = text.startswith(QUOTES)
        if quoted and (len(text) < 2 * len(QUOTES) or not text.endswith(QUOTES)):
            event.current_buffer.insert_text("\n")
        else:
            event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys
