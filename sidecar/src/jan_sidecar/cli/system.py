"""`jan ext`, `jan doctor`, `jan rpc`, `jan schema`: the host itself."""

from __future__ import annotations

import sys
from typing import Any

import click

from .app import App, pass_app, wrong_usage
from .output import Column, clean, json_option, print_json, print_table

__all__ = ["doctor", "ext", "rpc", "schema"]

EXTENSIONS = (
    Column("id", "EXTENSION"),
    Column("version", "VERSION"),
    Column("state", "STATE"),
    Column("problem", "PROBLEM"),
)
STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.group()
def ext() -> None:
    """Extensions."""


@ext.command("list")
@json_option
@pass_app
def list_extensions(app: App, as_json: bool) -> None:
    """Show the installed extensions, their state, and what went wrong with them."""
    from .session import run_session

    records = run_session(app, lambda session: session.call("extensions.list"), activate=True)["extensions"]
    if not as_json:
        for record in records:
            failure = record.get("failure")
            record["problem"] = f"{failure['stage']}: {failure['message']}" if failure else ""
    print_table(records, EXTENSIONS, as_json=as_json, empty="no extensions are installed beside this program")


@click.command()
@json_option
@pass_app
def doctor(app: App, as_json: bool) -> int:
    """Check this installation and say what to do. Status 1 when something fails."""
    findings = app.call("system.doctor")["findings"]
    if as_json:
        print_json(findings)
    else:
        for finding in findings:
            status = click.style(finding["status"].ljust(4), fg=STYLES.get(finding["status"]))
            click.echo(f"{status}  {clean(finding['check'])}: {clean(finding['message'])}")
            if finding["status"] != "ok" and finding.get("advice"):
                click.echo(f"      {clean(finding['advice'])}")
    return 1 if any(finding["status"] == "fail" for finding in findings) else 0


@click.command()
@click.argument("method")
@click.argument("params", required=False, metavar="[JSON]")
@click.option("--stream", "streaming", is_flag=True, help="Print each stream item as a line, then the result.")
@pass_app
def rpc(app: App, method: str, params: str | None, streaming: bool) -> None:
    """Call any method and print its result. JSON is its params; - reads them from stdin."""
    import msgspec

    from .session import Session, run_session

    try:
        text = sys.stdin.buffer.read() if params == "-" else (params or "{}").encode()
        decoded: Any = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError) as error:
        wrong_usage(f"the params are not JSON: {error}")
    except RecursionError:
        wrong_usage("the params are nested too deeply")

    async def work(session: Session) -> Any:
        if not streaming:
            return await session.call(method, decoded)
        with session.progress() as progress:
            async with session.caller.stream(method, decoded, progress=progress) as stream:
                async for item in stream:
                    progress.close()
                    click.echo(msgspec.json.encode(item))
                return await stream.result()

    print_json(run_session(app, work))


@click.group()
def schema() -> None:
    """Machine-readable descriptions of all methods."""


@schema.command()
@pass_app
def openrpc(app: App) -> None:
    """Print the OpenRPC document of everything that can be called."""
    print_json(app.call("rpc.discover"))
