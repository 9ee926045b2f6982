"""`jan serve` and `jan sidecar`: the two ways other programs reach this one."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from .app import App, Failed, drop_output, pass_app, wrong_usage
from .output import note

__all__ = ["serve", "sidecar"]


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=1337, show_default=True, help="0 takes any free one.")
@click.option(
    "--api-key-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keys that clients must send, one a line. Needed to listen beyond this machine.",
)
@click.option("--allow-host", multiple=True, metavar="NAME", help="Serve this Host name too. Can be repeated.")
@click.option(
    "--allow-origin",
    multiple=True,
    metavar="ORIGIN",
    help="Let this web page use the API (CORS). Can be repeated.",
)
@pass_app
def serve(
    app: App,
    host: str,
    port: int,
    api_key_file: Path | None,
    allow_host: tuple[str, ...],
    allow_origin: tuple[str, ...],
) -> None:
    """Serve the OpenAI-compatible API on this machine.

    Clients of the OpenAI API work when their base URL is http://127.0.0.1:1337/v1. Ctrl-C stops: answers under way get
    10 seconds to finish; a second Ctrl-C does not wait.
    """
    from ..http.access import AccessError
    from ..http.server import Listening, ServeError, ServeOptions
    from ..http.server import serve as run_server
    from .session import Session, run_session

    if not app.verbose:
        logging.getLogger("jan_sidecar.http").setLevel(logging.WARNING)  # requests are logged for who asks only
    options = ServeOptions(host, port, api_key_file, allow_host, allow_origin)

    def listening(where: Listening) -> None:
        try:
            for warning in where.warnings:
                note(f"warning: {warning}")
            click.echo(f"Serving on {where.url}/v1")
        except OSError:  # nobody reads what this prints; clients are served all the same
            drop_output()

    async def work(session: Session) -> None:
        import asyncio

        import anyio

        stop = asyncio.Event()
        with anyio.CancelScope() as at_once:

            def on_interrupt() -> None:
                at_once.cancel() if stop.is_set() else stop.set()

            with session.interrupts.stopping(on_interrupt):
                await run_server(session.caller, options, stop=stop, on_listening=listening)

    try:
        run_session(app, work, activate=True)
    except AccessError as error:
        wrong_usage(str(error))
    except ServeError as error:
        raise Failed(str(error)) from None


@click.command()
@pass_app
def sidecar(app: App) -> int:
    """Speak JSON-RPC on stdio, as jan-sidecar does: for programs that start this one."""
    from ..stdio import main

    arguments = ["--data-dir", str(app.data_dir)]
    arguments += ["--verbose"] * app.verbose + ["--safe-mode"] * app.safe_mode
    return main(arguments)
