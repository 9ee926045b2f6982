"""`jan ext install` and what undoes it: the packages of extensions that did not come with this program.

What is installed is shown and agreed to before any code of it runs. A running application on the same data folder
takes it over when it starts again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from .app import App, Failed, pass_app, wrong_usage
from .output import Column, clean, json_option, note, print_json, print_table

__all__ = ["install", "overlays", "repair", "undo", "uninstall"]

ADVICE = {
    "build": "a package needs a wheel; build one from its source: uv build",
    "conflict": "nothing was changed; ask for a version that fits, or remove what is in the way: jan ext list",
    "network": "connect and try again, or install from a folder of wheels: --offline --find-links DIR",
    "refused": "nothing was changed",
    "smoke": "nothing was changed; what it printed is in the log",
    "storage": "nothing was changed; the data folder must be writable, on a disk with some space",
    "uv": "nothing was changed",
}
"""What to do, by the reason of a refusal."""

COLUMNS = (
    Column("number", "SET"),
    Column("state", "STATE"),
    Column("made", "MADE", lambda made: datetime.fromtimestamp(made).strftime("%Y-%m-%d %H:%M")),
    Column("requirements", "INSTALLED", ", ".join),
    Column("problem", "PROBLEM"),
)


@click.command()
@click.argument("source", metavar="NAME|PATH|WHEEL")
@click.option("-y", "--yes", is_flag=True, help="Agree to what it declares, without being asked. For scripts.")
@click.option("--index-url", metavar="URL", default="", help="A package index that is asked first.")
@click.option(
    "--find-links",
    metavar="DIR",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder with wheels. May be given more than once.",
)
@click.option("--offline", is_flag=True, help="Use no network: only those folders, and what was fetched before.")
@json_option
@pass_app
def install(
    app: App, source: str, yes: bool, index_url: str, find_links: tuple[Path, ...], offline: bool, as_json: bool
) -> None:
    """Install or update an extension: a package's NAME (also NAME[extra]>=1), a project's folder, or a wheel.

    It is tried in a process of its own first. What this program has is never replaced.
    """
    from .session import Session, run_session

    if not yes and not _can_ask():
        wrong_usage(f"nobody is there to agree to what it declares; in a script say: jan ext install {source} --yes")
    query = {
        "source": _place(source),
        "indexUrl": index_url,
        "findLinks": [str(folder.absolute()) for folder in find_links],
        "offline": offline,
    }
    with _explained(source):
        # Two hosts, one after the other: while the person reads and thinks, none is kept waiting.
        offer = run_session(app, lambda session: session.call("extensions.inspect", query))
        if offer["packages"]:
            _show(offer)
            if not yes and not click.confirm("Install it?", err=True):
                raise Failed("nothing was installed")
        agreed = sorted({permission for extension in offer["extensions"] for permission in extension["permissions"]})

        async def work(session: Session) -> Any:
            return await session.call("extensions.install", {**query, "permissions": agreed})

        change = run_session(app, work)
    if not offer["packages"]:
        kept = f"{source} was there already, and stays as it was asked for now"
        _report(change, kept, as_json, undone=f"{source} is installed already")
    elif as_json:
        print_json(change)
    else:
        for extension in offer["extensions"]:
            about = f"{extension['id']} {extension['version']}"
            note(f"{about} is installed; what runs already has it when it starts again")


@click.command()
@click.argument("id")
@click.option("--purge", is_flag=True, help="Delete its data folder too.")
@json_option
@pass_app
def uninstall(app: App, id: str, purge: bool, as_json: bool) -> None:
    """Remove an installed extension and what only it needed. Its data stays, unless told otherwise."""
    with _explained(id):
        change = app.call("extensions.uninstall", {"id": id, "purge": purge})
    _report(change, f"{id} is removed" + (" with its data" if purge else ""), as_json)


@click.command()
@json_option
@pass_app
def undo(app: App, as_json: bool) -> None:
    """Go back to what was installed before the last installation or removal."""
    with _explained(""):
        change = app.call("extensions.undo")
    _report(change, "the installed extensions are as they were before", as_json)


@click.command()
@click.option("-y", "--yes", is_flag=True, help="Agree to what newer versions declare.")
@click.option("--offline", is_flag=True, help="Use no network: only what was fetched before.")
@json_option
@pass_app
def repair(app: App, yes: bool, offline: bool, as_json: bool) -> None:
    """Fetch all installed extensions anew: after an update of Python or this program, or when files are damaged."""
    from jan_core import RpcError

    params: dict[str, Any] = {"offline": offline}
    with _explained(""):
        try:
            change = app.call("extensions.repair", params)
        except RpcError as error:
            if error.data.get("reason") != "consent" or not (yes or _can_ask()):
                raise
            if not yes and not click.confirm(f"{clean(error.message)}. Agree?", err=True):
                raise Failed("nothing was changed") from None
            change = app.call("extensions.repair", {**params, "permissions": error.data["permissions"]})
    _report(change, "the installed extensions were fetched anew", as_json)


@click.command()
@json_option
@pass_app
def overlays(app: App, as_json: bool) -> None:
    """Show the sets of installed packages: the one that serves, and the one to go back to."""
    rows = app.call("extensions.overlays")["overlays"]
    print_table(rows, COLUMNS, as_json=as_json, empty="nothing is installed beside this program")


def _place(source: str) -> str:
    """A path as an absolute one, anything else as it is; like pip, a bare word is a name and no folder."""
    if "://" in source:
        return source
    if os.sep in source or "/" in source or source in (".", "..") or source.endswith((".whl", ".tar.gz", ".zip")):
        return os.path.abspath(os.path.expanduser(source))  # noqa: PTH100, PTH111 (pathlib's raise for odd names)
    return source


def _can_ask() -> bool:
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


def _show(offer: dict[str, Any]) -> None:
    for extension in offer["extensions"]:
        note(f"{extension['id']} {extension['version']}, of the package {extension['package']}")
        declared = ", ".join(" ".join(one.split()) for one in extension["permissions"]) or "nothing"
        note(f"  declares to use: {declared}")
    changes = [_change(package) for package in offer["packages"]]
    note(f"  packages beside this program's: {', '.join(changes)}")
    note("  What it declares is for you to know; nothing confines its code, which runs with your rights.")


def _change(package: dict[str, Any]) -> str:
    if package["change"] == "removed":
        return f"{package['name']} {package['before']} goes"
    before = package.get("before")
    return f"{package['name']} {package['version']}" + (f" instead of {before}" if before else "")


def _report(change: dict[str, Any], done: str, as_json: bool, *, undone: str = "nothing was changed") -> None:
    if as_json:
        print_json(change)
    else:
        note(done if change["changed"] else undone)


@contextmanager
def _explained(source: str) -> Iterator[None]:
    """A refusal, with what to do about it."""
    from jan_core import RpcError

    try:
        yield
    except RpcError as error:
        if error.type != "install_failed":
            raise
        reason = error.data.get("reason", "")
        advice = ADVICE.get(reason, "")
        a_name = source and _place(source) == source
        if a_name and reason in ("not_found", "network", "refused") and Path(source).exists():
            advice = f"for the folder of that name say: jan ext install .{os.sep}{source}"
        raise Failed(error.message, advice) from None
