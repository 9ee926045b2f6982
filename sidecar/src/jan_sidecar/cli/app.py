"""The tree of commands and what all of them share: global options, exit statuses, and one line for each error.

Exit status: 0 done, 1 the operation failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import errno
import importlib
import io
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from jan_core import Caller, JanError

__all__ = ["App", "Failed", "Opener", "checked_sha256", "drop_output", "hint", "pass_app", "root", "run", "wrong_usage"]

Opener = Callable[["App", bool], AbstractAsyncContextManager["Caller"]]
"""Opens a host for one command; the second argument says whether extensions that start with the application do so."""

COMMANDS = {
    "chat": ("chat:chat", "Ask a model, or talk with it."),
    "embed": ("embed:embed", "Turn texts into vectors."),
    "serve": ("serve:serve", "Serve the OpenAI-compatible API on this machine."),
    "sidecar": ("serve:sidecar", "Speak JSON-RPC on stdio, as jan-sidecar does."),
    "models": ("models:models", "Models on this machine."),
    "threads": ("threads:threads", "Stored conversations."),
    "assistants": ("assistants:assistants", "Who answers: instructions, model and parameters."),
    "registry": ("registry:registry", "The list of models that can be had."),
    "downloads": ("downloads:downloads", "Files being fetched."),
    "engines": ("engines:engines", "Builds of the inference engine."),
    "ext": ("extensions:ext", "Extensions: list, write, install, reload and mend them."),
    "remotes": ("remotes:remotes", "Engines on other machines."),
    "settings": ("settings:settings", "Read and change settings."),
    "doctor": ("system:doctor", "Check this installation and say what to do."),
    "rpc": ("system:rpc", "Call any method."),
    "schema": ("schema:schema", "Machine-readable descriptions of all methods."),
}
"""Name -> (module:attribute, one line of help). Modules are imported when their command runs."""

HINTS = {
    "model_not_found": "see what is installed: jan models list",
    "out_of_memory": "see what fits: jan models estimate MODEL",
    "thread_not_found": "see the stored threads: jan threads list",
    "assistant_not_found": "see the assistants: jan assistants list",
    "remote_not_found": "see the remote engines: jan remotes list",
    "remote_exists": "change it with: jan remotes add --replace",
    "remote_auth_failed": "give another key: jan remotes add --replace",
    "remote_key_unavailable": "give the key anew: jan remotes add --replace",
    "engine_not_found": "see the engine builds: jan engines list",
    "extension_not_found": "see them all: jan ext list",
    "extension_unavailable": "see why, and what to do: jan ext doctor",
    "reload_failed": "mend it and try again, or do without it: jan ext disable ID",
    "restart_required": "start the application again",
    "install_failed": "nothing was changed; see what is installed: jan ext list",
    "deadline_exceeded": "try again; if it stays so: jan doctor",
    "extension_reloaded": "its code was replaced meanwhile: try again",
    "invalid_generation.no_projector": "name one that does, or take one in: jan models import FILE --projector FILE",
    "no_usable_engine": "see why, and what to do: jan engines list",
    "engine_install_failed": "try again with: jan engines install",
    "engine_broken": "see what is damaged: jan engines explain",
    "model_unknown": "find one with: jan registry search WORDS",
    "download_not_found": "see the downloads: jan downloads list",
}
"""What to try next, by the stable type of an error, or by that and its reason."""

UNWRITABLE = (errno.ENOSPC, errno.EFBIG, errno.EIO, errno.EBADF, getattr(errno, "EDQUOT", errno.ENOSPC))
"""What writing to stdout fails with when nobody is at fault here."""


class Failed(Exception):
    """The operation failed; the message is for the person, the hint says what to try."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass
class App:
    """The global options, handed to every command."""

    opener: Opener
    chosen_data_dir: Path | None = None
    verbose: bool = False
    safe_mode: bool = False
    """Start only the extensions that ship with the product."""

    @property
    def data_dir(self) -> Path:
        """`--data-dir`, else `JAN_DATA_DIR`, else the platform's place for this user's data."""
        from ..runtime import data_folder

        return data_folder(self.chosen_data_dir)

    def call(self, method: str, params: Any = None, *, activate: bool = False) -> Any:
        """Open a host, call one method with progress shown, and close the host. `activate`: as in `run_session`."""
        from .session import run_session

        return run_session(self, lambda session: session.call(method, params), activate=activate)


pass_app = click.make_pass_decorator(App)


class LazyGroup(click.Group):
    """A group that knows its commands' names and help without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(f".{module}", __package__), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_) for name, (_, help_) in COMMANDS.items()])


def _version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"jan {version('jan-sidecar')}")
        ctx.exit()


class DataFolder(click.Path):
    """A folder. The empty name, as an unset variable in a script makes it, would silently be the current one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("the name is empty", param, ctx)
        try:
            Path(value).expanduser()
        except RuntimeError:
            self.fail(f"there is no such user: {value}", param, ctx)
        return super().convert(value, param, ctx)


def checked_sha256(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    """The value of an option that is a SHA-256, as sha256sum prints it, or empty."""
    text = value.strip().lower()
    if text and not re.fullmatch("[0-9a-f]{64}", text):
        raise click.BadParameter("a SHA-256 has 64 hexadecimal digits")
    return text


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--data-dir",
    type=DataFolder(file_okay=False, path_type=Path),
    envvar="JAN_DATA_DIR",
    help="Where everything is kept. Default: this user's data folder.",
)
@click.option("-v", "--verbose", is_flag=True, help="Say more on stderr; details of errors go to the log.")
@click.option("--safe-mode", is_flag=True, help="Without extensions that did not come with this program.")
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
@click.pass_obj
def root(app: App, data_dir: Path | None, verbose: bool, safe_mode: bool) -> None:
    """A local-first AI backend: models, conversations and an OpenAI-compatible API on this machine."""
    app.chosen_data_dir = data_dir
    app.verbose = verbose
    app.safe_mode = safe_mode


def run(arguments: Sequence[str], opener: Opener | None = None) -> int:
    """Run one command line and return its exit status. Never raises, never prints a traceback."""
    app = App(opener or _open)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character shows another
    try:
        status = root.main(list(arguments), prog_name="jan", obj=app, standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except click.Abort:
        drop_output()
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (BrokenPipeError, SystemExit):  # SystemExit is click's own way out of a broken pipe
        # Whoever read our output has seen enough, as in `jan … | head`: that is no failure.
        drop_output()
        return 0
    except Exception as error:
        return _report(app, error)
    return status if isinstance(status, int) else 0


def _report(app: App, error: Exception) -> int:
    from jan_core import JanError

    log = f"the log is {app.data_dir / 'logs' / 'jan.log'}"
    if isinstance(error, Failed | JanError):
        message, advice = str(error), hint(error)
        if isinstance(error, JanError) and error.type == "internal_error":
            advice = log
    elif isinstance(error, OSError) and error.errno in UNWRITABLE:
        drop_output()
        message, advice = f"cannot write: {error.strerror}", ""
    else:
        if not logging.getLogger().handlers:  # it came before the host, whose opening starts the log
            from .session import start_log

            start_log(app)
        logging.getLogger("jan_sidecar.cli").error("the command failed", exc_info=error)
        message, advice = f"internal error: {type(error).__name__}: {error}", log
    from .output import clean

    # One line, whatever was in the message; the terminal must not obey it either.
    click.echo(f"jan: {' '.join(clean(message).split())}", err=True)
    if advice:
        click.echo(f"     {advice}", err=True)
    return 1


def hint(error: Failed | JanError) -> str:
    """What to try next; empty where nothing is known."""
    if isinstance(error, Failed):
        return error.hint
    return HINTS.get(f"{error.type}.{error.data.get('reason')}") or HINTS.get(error.type, "")


def drop_output() -> None:
    """Let go of what is still to be written: Python does so at exit, and would wait for a reader that reads no more."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError, AttributeError):
        pass  # there is no stdout, or it is not a file


def _open(app: App, activate: bool) -> AbstractAsyncContextManager[Caller]:
    from .session import open_host_client

    return open_host_client(app, activate)


def wrong_usage(message: str) -> NoReturn:
    """Leave with status 2 and one line."""
    raise click.UsageError(message)
