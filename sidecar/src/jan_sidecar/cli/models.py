"""`jan models`: what is installed, taking files in, and what a running server has loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .app import App, Failed, pass_app, wrong_usage
from .output import Column, json_option, note, print_json, print_record, print_table, size

__all__ = ["models"]

COLUMNS = (
    Column("id", "MODEL"),
    Column("state", "STATE"),
    Column("size", "SIZE", size),
    Column("quantization", "QUANT"),
    Column("context_length", "CONTEXT"),
    Column("license", "LICENSE"),
)


@click.group()
def models() -> None:
    """Models on this machine."""


@models.command("list")
@json_option
@pass_app
def list_(app: App, as_json: bool) -> None:
    """Show the installed models."""
    records = [{"state": "available", **record} for record in app.call("models.list")["models"]]
    print_table(records, COLUMNS, as_json=as_json, empty="no models yet; take one in with: jan models import FILE")


@models.command()
@click.argument("model")
@json_option
@pass_app
def show(app: App, model: str, as_json: bool) -> None:
    """Show what a model's file says about it."""
    record = app.call("models.inspect", {"id": model})
    if as_json:
        print_json(record)
        return
    shown = {name: value for name, value in record.items() if name not in ("model", "metadata")}
    print_record({**record["model"], **shown}, as_json=False)


@models.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--id", "model_id", default="", metavar="ID", help="The model's id. Default: from the file's name.")
@click.option("--copy", is_flag=True, help="Never share disk space with FILE.")
@json_option
@pass_app
def import_(app: App, file: Path, model_id: str, copy: bool, as_json: bool) -> None:
    """Take a GGUF file in. The file itself stays where it is."""
    _done(app.call("models.import", {"path": str(file.absolute()), "id": model_id, "copy": copy}), as_json)


@models.command()
@click.argument("model", metavar="MODEL|URL")
@click.option("--sha256", default="", metavar="HEX", help="What the file at URL must hash to; else it is not checked.")
@click.option("--id", "model_id", default="", metavar="ID", help="The id it gets here. Default: from the file's name.")
@json_option
@pass_app
def pull(app: App, model: str, sha256: str, model_id: str, as_json: bool) -> None:
    """Download a model of the registry, or a GGUF file from a URL, and take it in.

    Interrupted, it goes on where it was: run the same command again.
    """
    from .downloads import fetch, fetch_file
    from .session import Session, run_session

    if sha256 and "://" not in model:
        wrong_usage("--sha256 is for a URL; the registry has its own")

    async def work(session: Session) -> Any:
        if "://" in model:
            record = await fetch(session, model, sha256)
        else:
            files = (await session.call("registry.resolve", {"id": model}))["files"]
            if len(files) != 1:
                raise Failed(f"{model} is made of {len(files)} files, which cannot be taken in yet")
            record = await fetch_file(session, files[0])
        return await session.call("models.import", {"path": record["path"], "id": model_id})

    _done(run_session(app, work), as_json)


@models.command("rm")
@click.argument("model", nargs=-1, required=True)
@pass_app
def remove(app: App, model: tuple[str, ...]) -> None:
    """Delete models and their files."""
    from .session import Session, run_session

    async def work(session: Session) -> None:
        for name in model:
            await session.call("models.delete", {"id": name})
            note(f"{name} is deleted")

    run_session(app, work)


def _server_options(command: Any) -> Any:
    command = click.option(
        "--server",
        default="http://127.0.0.1:1337",
        show_default=True,
        metavar="URL",
        help="The running jan serve.",
    )(command)
    return click.option(
        "--api-key-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Where the server's key is.",
    )(command)


@models.command()
@click.argument("model")
@_server_options
def load(model: str, server: str, api_key_file: Path | None) -> None:
    """Load a model in the running server now, rather than at its first request."""
    _ask_server(server, api_key_file, model, "load")
    note(f"{model} is loaded")


@models.command()
@click.argument("model")
@_server_options
def unload(model: str, server: str, api_key_file: Path | None) -> None:
    """Free a model's memory in the running server."""
    _ask_server(server, api_key_file, model, "unload")
    note(f"{model} is unloaded")


def _done(record: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(record)
    else:
        note(f"{record['id']} is installed; talk with it: jan chat -m {record['id']}")


def _ask_server(server: str, api_key_file: Path | None, model: str, verb: str) -> None:
    """A model lives in the process that serves it: loading is asked of that process, over its own API."""
    import os
    from urllib.parse import quote

    import httpx

    headers = {}
    if api_key_file is not None:
        try:
            keys = [line.strip() for line in api_key_file.read_text("ascii").splitlines()]
        except OSError as error:
            raise Failed(f"cannot read the key file {api_key_file}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise Failed(f"the key file {api_key_file} holds more than ASCII letters, digits and signs") from None
        headers["Authorization"] = f"Bearer {next((k for k in keys if k and not k.startswith('#')), '')}"
    url = f"{server.rstrip('/').removesuffix('/v1')}/v1/models/{quote(os.fsencode(model), safe='')}/{verb}"
    try:
        # Loading a large model takes as long as it takes; only the connection has a limit.
        answer = httpx.post(url, json={}, headers=headers, timeout=httpx.Timeout(5, read=None), trust_env=False)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, ValueError):
        raise Failed(f"{server!r} is not a URL") from None
    except httpx.HTTPError as error:
        raise Failed(f"no server answers at {server}: {error}", "start one with: jan serve") from None
    if answer.is_error:
        try:
            message = str(answer.json()["error"]["message"])
        except (ValueError, KeyError, TypeError):
            message = f"{server} answered with status {answer.status_code}"
        raise Failed(message, "see what is installed: jan models list" if answer.status_code == 404 else "")
