"""`jan doctor`, `jan rpc`: the host itself."""

from __future__ import annotations

import sys
from typing import Any

import click

from .app import App, pass_app, wrong_usage
from .output import clean, json_option, print_json

__all__ = ["decoded", "doctor", "rpc"]

STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}


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
    from .session import Session, run_session

    given = decoded(params)

    async def work(session: Session) -> Any:
        import msgspec

        if not streaming:
            return await session.call(method, given)
        with session.progress() as progress:
            async with session.caller.stream(method, given, progress=progress) as stream:
                async for item in stream:
                    progress.close()
                    click.echo(msgspec.json.encode(item))
                return await stream.result()

    print_json(run_session(app, work, activate=True))


def decoded(params: str | None) -> Any:
    """Params as a person gives them: JSON, nothing at all, or - for stdin. Leaves with status 2 when they are not."""
    import msgspec

    try:
        text = sys.stdin.buffer.read() if params == "-" else (params or "{}").encode()
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError) as error:
        wrong_usage(f"the params are not JSON: {error}")
    except RecursionError:
        wrong_usage("the params are nested too deeply")
