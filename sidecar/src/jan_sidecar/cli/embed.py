"""`jan embed`: texts in, vectors out, a line each."""

from __future__ import annotations

import sys
from typing import Any

import click

from jan_core import JanError

from .app import App, Failed, pass_app, wrong_usage
from .chat import read_stdin
from .output import json_option, print_json

__all__ = ["embed"]


@click.command()
@click.argument("text", nargs=-1)
@click.option("-m", "--model", default="", metavar="ID", help="The model. Default: the installation's.")
@click.option("--dimensions", type=click.IntRange(min=1), help="Keep so many numbers, brought to length 1 again.")
@click.option(
    "--pooling",
    type=click.Choice(["mean", "cls", "last", "rank"]),
    help="How the vectors of a text's tokens become one. Default: as the model says.",
)
@json_option
@pass_app
def embed(app: App, /, text: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Turn texts into vectors of length 1.

    Each TEXT is one; without any, each line of stdin is. Prints one vector a line, as a JSON array of numbers, in the
    order of the texts; with --json one object as OpenAI's API has it. A model that generates can be used, too.
    """
    texts = list(text) or _lines()
    place = "TEXT {}" if text else "line {} of stdin"
    for number, each in enumerate(texts, 1):
        if not each.strip():
            raise Failed(f"{place.format(number)} is empty: it has no vector")
    params = {"input": texts, "stream": True} | {name: value for name, value in options.items() if value is not None}
    from .session import Session, run_session

    async def work(session: Session) -> None:
        import anyio.lowlevel
        import msgspec

        from .turn import Printer

        printer, kept = Printer(session), []
        with session.progress() as progress, progress.otherwise("waiting for the model"):
            async with session.caller.stream("embeddings.create", params, progress=progress) as stream:
                async for item in stream:
                    await anyio.lowlevel.checkpoint_if_cancelled()
                    if as_json:
                        kept.append(item)
                        continue
                    progress.close()
                    printer(msgspec.json.encode(item["embedding"]).decode("ascii") + "\n")
                result = await stream.result()
        if as_json:
            print_json({**result, "data": kept})

    try:
        run_session(app, work)
    except JanError as error:
        index = error.data.get("index")  # counted from 0
        if not isinstance(index, int):
            raise
        raise Failed(error.message, f"that is {place.format(index + 1)}") from None


def _lines() -> list[str]:
    """The lines of stdin."""
    if sys.stdin is None or sys.stdin.isatty():
        wrong_usage("give a TEXT, or lines on stdin")
    lines = [line.removesuffix("\r") for line in read_stdin(sys.stdin.buffer).split("\n")]
    if not lines[-1]:  # behind the last line feed
        lines.pop()
    if not lines:
        wrong_usage("there is no line on stdin")
    return lines
