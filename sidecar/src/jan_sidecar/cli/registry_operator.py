"""`jan registry add`, `feature`, `flag` and the like: edits of an operator's folder. What users see is `registry.py`.

All work is done by the methods `registry.operator.*`; here are options, and what a person is shown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .app import App, Failed, checked_sha256, pass_app, wrong_usage
from .output import json_option, note, print_json
from .registry_folder import call, changed, folder_option, where_option
from .registry_keys import init, publish, rotate_keys, sign
from .registry_view import show_status

__all__ = ["OPERATOR_COMMANDS", "show_status"]


def _meant(_ctx: click.Context, _param: click.Parameter, value: str) -> bool | int | str:
    """A flag's value as it is meant: true and false, whole numbers, else text."""
    if value in ("true", "false"):
        return value == "true"
    return int(value) if value.lstrip("-").isdecimal() and len(value) < 17 else value


def _reason(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    """Why something is revoked: people whose model does not load any more read nothing else."""
    if not 1 <= len(value.strip()) <= 500:
        raise click.BadParameter("say why, in 1 to 500 characters")
    return value.strip()


@click.command()
@click.argument("model", metavar="ID")
@folder_option
@click.option("--name", default="", help="What people see. Default: what the file says, else the last part of ID.")
@click.option("--description", default="", help="A sentence or two on what it is good for.")
@click.option("--publisher", default="", help="Who made it.")
@click.option("--license", default="", help="Its licence, e.g. apache-2.0.")
@click.option("--tag", "tags", multiple=True, help="A word to find it by; may be given several times.")
@click.option("--params", type=click.IntRange(0), default=0, help="How many parameters it has.")
@click.option("--ctx", type=click.IntRange(0), default=0, help="Tokens of its context.")
@click.option("--url", default="", help="Where clients get the file from; also with --file.")
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The GGUF file itself: hashed whole and piece by piece, and read for what it says.",
)
@click.option("--size", type=click.IntRange(0), default=0, help="Bytes of the file at --url.")
@click.option("--sha256", callback=checked_sha256, default="", metavar="HEX", help="The SHA-256 of the file at --url.")
@click.option("--variant", default="", help="Which variant the file is. Default: its quantization.")
@where_option
@json_option
@pass_app
def add(
    app: App,
    /,
    model: str,
    folder: Path,
    tags: tuple[str, ...],
    file: Path | None,
    where: tuple[str, ...],
    as_json: bool,
    **fields: Any,
) -> None:
    """Add a model to the operator's folder, or change what it says of it. What is not named stays as it is.

    ID is yours to choose, as OWNER/NAME, in lower-case letters. A model with several files is added file by file.
    """
    params = {"id": model, "tags": list(tags), "file": str(file.absolute()) if file else "", "where": list(where)}
    changed(app, "add", {"folder": str(folder), **params, **fields}, as_json)


@click.command("import")
@click.argument("source", metavar="SOURCE|FILE")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@folder_option
@click.option("--search", "text", default="", metavar="WORDS", help="Only models with these words.")
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="At most so many models."
)
@click.option("--url", default="", help="Another address of SOURCE, as of a mirror.")
@click.option("--stats", is_flag=True, help="Take downloads and likes over, too.")
@click.option("--dry-run", is_flag=True, help="Only say what would come; with --json, which models.")
@json_option
@pass_app
def import_(
    app: App,
    /,
    source: str,
    ids: tuple[str, ...],
    folder: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Take models over from another hub (huggingface, jan-catalogue, …), or from a copy of Jan's catalogue in FILE.

    Takes the models with these IDs, else those that --search finds, else the first --limit of them. The hubs there are:
    jan registry sources.

    Of a model that is there already, name, description, tags and conditions stay as they are written.
    """
    file = Path(source).absolute()
    origin = {"file": str(file)} if file.exists() and not file.is_dir() else {"source": source}
    done = call(app, "import", {"folder": str(folder), "ids": list(ids), **origin, **options}, activate=True)
    if as_json:
        print_json(done)
        return
    for skipped in done["skipped"]:
        note(f"left out: {skipped['id']}: {skipped['reason']}")
    for remark in done["notes"]:
        note(f"note: {remark}")
    would = "would be " if options["dry_run"] else ""
    counts = (f"{len(done['added'])} {would}added", f"{len(done['updated'])} {would}updated")
    note(f"{', '.join(counts)}, {done['unchanged']} as before, {len(done['skipped'])} left out")


@click.command()
@click.argument("slot", metavar="LIST")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@folder_option
@click.option("--at", type=click.IntRange(1), default=None, help="The place of the first of them. Default: the end.")
@click.option("--remove", is_flag=True, help="Take them off the list.")
@click.option("--only", is_flag=True, help="The list is these and no others.")
@click.option("--title", default=None, help="What people see above the list.")
@click.option("--priority", type=int, default=None, help="Of the lists that are for somebody, the highest is shown.")
@where_option
@click.option("--everybody", is_flag=True, help="The list is for everybody again.")
@json_option
@pass_app
def feature(
    app: App,
    /,
    slot: str,
    models: tuple[str, ...],
    folder: Path,
    at: int | None,
    where: tuple[str, ...],
    everybody: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Put models into a featured list, best first. A list that is not there is made.

    LIST is its id; the list for everybody is called default.
    """
    if where and everybody:
        wrong_usage("give --where or --everybody")
    options |= {"where": list(where) if where or everybody else None, "at": at or 0}
    changed(app, "feature", {"folder": str(folder), "slot": slot, "models": list(models), **options}, as_json)


@click.command()
@click.argument("flag", metavar="FLAG")
@click.argument("value", callback=_meant)
@folder_option
@click.option("--percent", type=click.IntRange(0, 100), default=None, help="Only for this share of all machines.")
@where_option
@click.option("--only", is_flag=True, help="For everybody: drop what was said for some only.")
@click.option("--remove", is_flag=True, help="Drop what was said for some: this value with these --where.")
@click.option("--salt", default=None, help="Any word: with another one, other machines are in the share.")
@json_option
@pass_app
def flag(
    app: App, /, flag: str, value: bool | int | str, folder: Path, where: tuple[str, ...], as_json: bool, **options: Any
) -> None:
    """Set a flag: for everybody, or for those that --percent and --where name.

    VALUE is true, false, a whole number or text. What was said last for some is tried first on each machine.
    """
    params = {"folder": str(folder), "id": flag, "value": value, "where": list(where), **options}
    changed(app, "flag", params, as_json)


@click.group()
def experiment() -> None:
    """Experiments on what is featured: start, pause and end them."""


@experiment.command()
@click.argument("experiment", metavar="ID")
@folder_option
@click.option(
    "--branch",
    "branches",
    multiple=True,
    metavar="NAME[=LIST[:RATIO]]",
    help="A group of machines, and the list they are shown; without LIST, what they would see anyway. RATIO: its "
    "share. Give two at least.",
)
@click.option("--percent", type=click.IntRange(0, 100), default=None, help="Who takes part, of those it is for.")
@click.option(
    "--metric",
    type=click.Choice(["download", "load", "chat"]),
    default=None,
    help="What counts as a success: a featured model is downloaded, loaded, or talked with.",
)
@click.option("--title", default=None, help="What it is about, for people.")
@click.option("--salt", default=None, help="Any word: with another one, other machines are drawn.")
@where_option
@json_option
@pass_app
def start(
    app: App,
    /,
    experiment: str,
    folder: Path,
    branches: tuple[str, ...],
    where: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Begin an experiment, or go on with a paused one."""
    arms = []
    for branch in branches:
        name, _, rest = branch.partition("=")
        slot, _, ratio = rest.partition(":")
        if ratio and not ratio.isdecimal():
            wrong_usage(f"the ratio of {name} must be a whole number")
        arms.append({"id": name, "slot": slot, "ratio": int(ratio or 1)})
    options |= {"branches": arms, "where": list(where) if where else None}
    changed(app, "experiment", {"folder": str(folder), "id": experiment, "state": "running", **options}, as_json)


@experiment.command()
@click.argument("experiment", metavar="ID")
@folder_option
@json_option
@pass_app
def pause(app: App, experiment: str, folder: Path, as_json: bool) -> None:
    """Take nobody new; who takes part goes on."""
    changed(app, "experiment", {"folder": str(folder), "id": experiment, "state": "paused"}, as_json)


@experiment.command()
@click.argument("experiment", metavar="ID")
@folder_option
@json_option
@pass_app
def end(app: App, experiment: str, folder: Path, as_json: bool) -> None:
    """End it: everybody is shown what there would be without it."""
    changed(app, "experiment", {"folder": str(folder), "id": experiment, "state": "ended"}, as_json)


@click.command()
@click.argument("what", metavar="MODEL|SHA256")
@click.option("--reason", required=True, callback=_reason, help="Why; shown to everybody who has it.")
@click.option("--unknown", is_flag=True, help="Also a model that is neither in the folder nor published.")
@folder_option
@json_option
@pass_app
def revoke(app: App, what: str, reason: str, unknown: bool, folder: Path, as_json: bool) -> None:
    """Revoke a model, or a file by its SHA-256: it is neither downloaded nor loaded any more.

    Takes effect on clients when it is published: jan registry publish.
    """
    from jan_core import RpcError

    hashed = len(what) == 64 and all(c in "0123456789abcdefABCDEF" for c in what)
    named = {"sha256": what.lower()} if hashed else {"model": what}
    try:
        changed(app, "revoke", {"folder": str(folder), "reason": reason, "unknown": unknown, **named}, as_json)
    except RpcError as error:
        if error.data.get("reason") != "unknown_model":
            raise
        raise Failed(error.message, "nothing was changed; if it is meant, give --unknown") from error


OPERATOR_COMMANDS: tuple[click.Command, ...] = (
    init,
    add,
    import_,
    feature,
    flag,
    experiment,
    revoke,
    publish,
    sign,
    rotate_keys,
)
