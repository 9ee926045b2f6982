"""A server that runs already: where it is, and how a command asks it for something over its own API.

Models live in the process that serves them, so what is loaded is that process's to change, and not this one's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .app import HINTS, Failed

__all__ = ["ask_server", "server_options"]


def server_options(command: Any) -> Any:
    """Which server is asked, and where its key is: `server` and `api_key_file`."""
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


def ask_server(server: str, api_key_file: Path | None, model: str, verb: str, params: dict[str, Any]) -> dict[str, Any]:
    """Have the server do `verb` (`load`, `unload`) with a model, and return its answer. Raises Failed."""
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
        answer = httpx.post(url, json=params, headers=headers, timeout=httpx.Timeout(5, read=None), trust_env=False)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, ValueError):
        raise Failed(f"{server!r} is not a URL") from None
    except httpx.HTTPError as error:
        raise Failed(f"no server answers at {server}: {error}", "start one with: jan serve") from None
    if answer.is_error:
        try:
            told = answer.json()["error"]
            message, kind = str(told["message"]), str(told["code"])
        except (ValueError, KeyError, TypeError):
            message, kind = f"{server} answered with status {answer.status_code}", ""
        raise Failed(message, HINTS.get(kind, ""))
    record: dict[str, Any] = answer.json() if answer.content else {}
    return record
