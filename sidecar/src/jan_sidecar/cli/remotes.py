"""`jan remotes`: engines on other machines, and whether requests may go to them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from .app import App, Failed, pass_app, wrong_usage
from .output import Column, json_option, note, print_json, print_record, print_table

__all__ = ["remotes"]

LARGEST_KEY = 4096
COLUMNS = (
    Column("id", "ENGINE"),
    Column("base_url", "ADDRESS"),
    Column("models", "MODELS", lambda models: ", ".join(models)),
    Column("key", "KEY IN"),
)


@click.group()
def remotes() -> None:
    """Engines on other machines."""


@remotes.command("list")
@json_option
@pass_app
def list_(app: App, as_json: bool) -> None:
    """Show the remote engines. Their keys are never shown."""
    answer = app.call("remotes.list")
    if as_json:
        print_json(answer)
        return
    records = [{**remote, "models": list(remote.get("models", ()))} for remote in answer["remotes"]]
    print_table(records, COLUMNS, as_json=False, empty="none; add one with: jan remotes add ID URL")
    if answer["remotes"] and answer["kept_here"]:
        note(f"nothing is sent to them: {answer['kept_here']}")


@remotes.command()
@click.argument("engine", metavar="ID")
@click.argument("url")
@click.option("-m", "--model", "models", multiple=True, metavar="NAME", help="One it may be asked for. Default: any.")
@click.option("--key-stdin", is_flag=True, help="Read the key from stdin. Default: ask for it at the terminal.")
@click.option("--no-key", is_flag=True, help="It wants no key, or keeps the one it has.")
@click.option("--ca-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Trust only these.")
@click.option("--proxy", default="", metavar="URL", help="Reach it through this HTTP proxy.")
@click.option("--context", type=click.IntRange(0, 2**31 - 1), default=0, help="Tokens its models take.")
@click.option("--on-this-machine", is_flag=True, help="It runs here and hands nothing on: it counts as local.")
@click.option("--replace", is_flag=True, help="Change the engine of that id.")
@json_option
@pass_app
def add(
    app: App,
    /,
    engine: str,
    url: str,
    models: tuple[str, ...],
    key_stdin: bool,
    no_key: bool,
    ca_file: Path | None,
    replace: bool,
    as_json: bool,
    **more: Any,
) -> None:
    """Add an OpenAI-compatible endpoint, whose URL is what /chat/completions comes behind.

    Ask one of its models with: jan chat -m ID/MODEL. The key is asked for, or read from stdin: never give it as an
    argument, where every program on this machine can read it.
    """
    if key_stdin and no_key:
        wrong_usage("give --key-stdin or --no-key")
    key = None if no_key else _key(engine, from_stdin=key_stdin)
    remote = {"id": engine, "base_url": url, "models": list(models), **more}
    if ca_file:
        remote["ca_file"] = str(ca_file.absolute())
    added = app.call("remotes.add", {"remote": remote, "key": key, "replace": replace})
    if as_json:
        print_json(added)
        return
    kept = {"keyring": ", its key is in the keyring", "file": ", its key is in a file that only you can read"}
    where = kept.get(added.get("key", ""), " without a key")
    note(f"{engine} is added{where}; see whether it answers: jan remotes test {engine}")


@remotes.command("rm")
@click.argument("engine", metavar="ID", nargs=-1, required=True)
@pass_app
def remove(app: App, engine: tuple[str, ...]) -> None:
    """Remove remote engines, and their keys."""
    from .session import Session, run_session

    async def work(session: Session) -> None:
        for id in engine:
            await session.call("remotes.remove", {"id": id})
            note(f"{id} is removed")

    run_session(app, work)


@remotes.command()
@click.argument("engine", metavar="ID")
@json_option
@pass_app
def test(app: App, engine: str, as_json: bool) -> None:
    """Ask an engine for its models: whether it can be reached, and takes the key. No text of yours goes along."""
    print_record(app.call("remotes.test", {"id": engine}), as_json=as_json)


def _key(engine: str, *, from_stdin: bool) -> str | None:
    """The key, from wherever it leaves no trace; None: there is none."""
    if from_stdin:
        given = "" if sys.stdin is None else sys.stdin.read(LARGEST_KEY + 2)
        if len(given.strip()) > LARGEST_KEY:
            raise Failed(f"the key is longer than {LARGEST_KEY} characters")
        if not given.strip():
            raise Failed("there is no key on stdin", "give --no-key if the engine wants none")
        return given.strip()
    if sys.stdin is None or not sys.stdin.isatty():
        return None
    typed: str = click.prompt(
        f"Key of {engine} (empty: none)", default="", hide_input=True, show_default=False, err=True
    )
    return typed.strip() or None
