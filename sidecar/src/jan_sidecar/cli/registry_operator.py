"""`jan registry init`, `add`, `publish` and the like: for who runs a registry. What users see of one is `registry.py`.

All work is done by the methods `registry.operator.*`; here are options, and what a person is shown.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from .app import App, Failed, checked_sha256, pass_app, wrong_usage
from .output import Column, json_option, note, print_json, print_table, size

__all__ = ["OPERATOR_COMMANDS", "folder_option", "show_status"]

VARIABLE = "JAN_REGISTRY_PASSPHRASE"
SHOWN = 5
"""So many ids of a long list."""
WARNINGS = 10
ROLES = (
    Column("role", "ROLE"),
    Column("version", "VERSION"),
    Column("expires", "EXPIRES"),
    Column("signs", "SIGNS"),
    Column("here", "KEYS HERE"),
    Column("due", "DUE"),
)


def _folder(_ctx: click.Context, _param: click.Parameter, value: Path | None) -> Path:
    folder = (value or Path()).absolute()
    if value is None and not (folder / "registry.toml").is_file():
        raise click.UsageError("there is no registry.toml here; name the operator's folder with --folder")
    return folder


def _meant(_ctx: click.Context, _param: click.Parameter, value: str) -> bool | int | str:
    """A flag's value as it is meant: true and false, whole numbers, else text."""
    if value in ("true", "false"):
        return value == "true"
    return int(value) if value.lstrip("-").isdecimal() and len(value) < 17 else value


folder_option = click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    callback=_folder,
    help="The operator's folder. Default: this one, if it has a registry.toml.",
)
where_option = click.option(
    "--where",
    multiple=True,
    metavar="CONDITION",
    help="For whom: locale=pt,pt-BR, region!=CN, os=linux, memory_total>=8000000000, app_version<0.4. All must hold.",
)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="What people call this registry.")
@click.option("--url", default="", help="Where clients will find it.")
@click.option("--signers", multiple=True, metavar="ROLE=N/KEYS", help="e.g. root=3/5: five keys, of which three sign.")
@click.option("--no-passphrase", is_flag=True, help="Leave the private keys unencrypted.")
@json_option
@pass_app
def init(
    app: App, folder: Path, name: str, url: str, signers: tuple[str, ...], no_passphrase: bool, as_json: bool
) -> None:
    """Make FOLDER an operator's folder: keys for every role, an empty hub, files to begin with.

    The passphrase of the keys is asked for, or taken from JAN_REGISTRY_PASSPHRASE.
    """
    passphrase = "" if no_passphrase else _new_passphrase()
    counts = dict(each.partition("=")[::2] for each in signers)
    params = {"name": name, "url": url, "signers": counts, "passphrase": passphrase, "unprotected": no_passphrase}
    made = _call(app, "init", {"folder": str(folder.absolute()), **params})
    if as_json:
        print_json(made)
        return
    keys = sum(len(files) for files in made["keys"].values())
    note(f"{folder} is made, with {keys} private keys in {folder / 'keys'}: move keys/offline to where no network is")
    note(f"clients trust its root, {made['root']}")
    note(f"SHA-256 of the root: {made['root_sha256']}")


@click.command()
@click.argument("model", metavar="ID")
@folder_option
@click.option("--name", default="")
@click.option("--description", default="")
@click.option("--publisher", default="")
@click.option("--license", default="")
@click.option("--tag", "tags", multiple=True)
@click.option("--params", type=click.IntRange(0), default=0, help="How many parameters it has.")
@click.option("--ctx", type=click.IntRange(0), default=0, help="Tokens of its context.")
@click.option("--url", default="", help="Where clients get the file.")
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The GGUF file itself: hashed whole and piece by piece, and read for what it says.",
)
@click.option("--size", type=click.IntRange(0), default=0, help="Bytes of the file at URL.")
@click.option("--sha256", callback=checked_sha256, default="", metavar="HEX", help="Of the file.")
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
    """Add a model, or change what is said of it. What is not named stays as it is."""
    params = {"id": model, "tags": list(tags), "file": str(file.absolute()) if file else "", "where": list(where)}
    _changed(app, "add", {"folder": str(folder), **params, **fields}, as_json)


@click.command("import")
@click.argument("source", metavar="SOURCE|FILE")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@folder_option
@click.option("--search", "text", default="", metavar="WORDS", help="Only models with these words.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True)
@click.option("--url", default="", help="Another address of SOURCE.")
@click.option("--stats", is_flag=True, help="Take downloads and likes over, too.")
@click.option("--dry-run", is_flag=True, help="Only say what would come.")
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

    Of a model that is there already, name, description, tags and conditions stay as they are written.
    """
    file = Path(source).absolute()
    origin = {"file": str(file)} if file.is_file() else {"source": source}
    done = _call(app, "import", {"folder": str(folder), "ids": list(ids), **origin, **options}, activate=True)
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
@click.option("--title", default=None)
@click.option("--priority", type=int, default=None, help="Of the lists that fit somebody, the highest is shown.")
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
    """Put models into a featured list, best first. A list that is not there is made."""
    if where and everybody:
        wrong_usage("give --where or --everybody")
    options |= {"where": list(where) if where or everybody else None, "at": at or 0}
    _changed(app, "feature", {"folder": str(folder), "slot": slot, "models": list(models), **options}, as_json)


@click.command()
@click.argument("flag", metavar="FLAG")
@click.argument("value", callback=_meant)
@folder_option
@click.option("--percent", type=click.IntRange(0, 100), default=None, help="Only for this share of all machines.")
@where_option
@click.option("--only", is_flag=True, help="For everybody, and without the rules there were.")
@click.option("--remove", is_flag=True, help="Remove the rule with this value and these conditions.")
@click.option("--salt", default=None, help="Draw the shares anew.")
@json_option
@pass_app
def flag(
    app: App, /, flag: str, value: bool | int | str, folder: Path, where: tuple[str, ...], as_json: bool, **options: Any
) -> None:
    """Set a flag: for everybody, or for those that --percent and --where name."""
    params = {"folder": str(folder), "id": flag, "value": value, "where": list(where), **options}
    _changed(app, "flag", params, as_json)


@click.group()
def experiment() -> None:
    """Experiments on what is featured."""


@experiment.command()
@click.argument("experiment", metavar="ID")
@folder_option
@json_option
@pass_app
def pause(app: App, experiment: str, folder: Path, as_json: bool) -> None:
    """Take nobody new; who takes part goes on."""
    _changed(app, "experiment", {"folder": str(folder), "id": experiment, "state": "paused"}, as_json)


@experiment.command()
@click.argument("experiment", metavar="ID")
@folder_option
@json_option
@pass_app
def end(app: App, experiment: str, folder: Path, as_json: bool) -> None:
    """End it: everybody is shown what there would be without it."""
    _changed(app, "experiment", {"folder": str(folder), "id": experiment, "state": "ended"}, as_json)


@experiment.command()
@click.argument("experiment", metavar="ID")
@folder_option
@click.option(
    "--branch",
    "branches",
    multiple=True,
    metavar="NAME[=LIST[:RATIO]]",
    help="An arm, and the list it is shown; without one: what would be shown anyway.",
)
@click.option("--percent", type=click.IntRange(0, 100), default=None, help="Who takes part, of those it is for.")
@click.option("--metric", type=click.Choice(["download", "load", "chat"]), default=None)
@click.option("--title", default=None)
@click.option("--salt", default=None)
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
    _changed(app, "experiment", {"folder": str(folder), "id": experiment, "state": "running", **options}, as_json)


@click.command()
@click.argument("what", metavar="MODEL|SHA256")
@click.option("--reason", required=True, help="Shown to everybody who has it.")
@folder_option
@json_option
@pass_app
def revoke(app: App, what: str, reason: str, folder: Path, as_json: bool) -> None:
    """Revoke a model, or a file by its SHA-256: it is neither downloaded nor loaded any more."""
    hashed = len(what) == 64 and all(c in "0123456789abcdefABCDEF" for c in what)
    named = {"sha256": what.lower()} if hashed else {"model": what}
    _changed(app, "revoke", {"folder": str(folder), "reason": reason, **named}, as_json)


@click.command()
@folder_option
@click.option("--dry-run", is_flag=True, help="Say what clients would see, and change nothing.")
@click.option("--only", multiple=True, metavar="COLLECTION", help="models, featured, flags, revocations or stats.")
@click.option("--expect", type=int, default=-1, metavar="VERSION", help="Only if the hub is at this version.")
@json_option
@pass_app
def publish(app: App, folder: Path, dry_run: bool, only: tuple[str, ...], expect: int, as_json: bool) -> None:
    """Sign the folder into the tree that clients read."""
    params = {"folder": str(folder), "dry_run": dry_run, "only": list(only), "expect": expect}
    done = _with_passphrase(app, "publish", params)
    if as_json:
        print_json(done)
        return
    _show_preview(done["preview"], dry_run)
    if not dry_run:
        note(f"version {done['preview']['version']} is published in {done['tree']}")


@click.command()
@click.argument("pending", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--keys", multiple=True, type=click.Path(exists=True, path_type=Path), help="A folder of private keys, or one."
)
@click.option("--show", is_flag=True, help="Only say what waits.")
@json_option
@pass_app
def sign(app: App, pending: Path, keys: tuple[Path, ...], show: bool, as_json: bool) -> None:
    """Sign what waits in PENDING with keys that are kept here. Needs nothing but that folder and the keys."""
    if not keys and not show:
        wrong_usage("name the keys with --keys, or see what waits with --show")
    params = {"pending": str(pending.absolute()), "keys": [str(key.absolute()) for key in keys], "show": show}
    done = _with_passphrase(app, "sign", params)
    if as_json:
        print_json(done)
        return
    for file in done["waiting"]:
        click.echo(f"{file['role']} {file['version']}, valid until {file['expires']}")
        for line in file["says"]:
            click.echo(f"  {line}")
        signed = done["signed"].get(file["file"], [])
        click.echo(f"  signed by {', '.join(key[:12] for key in file['signed_by']) or 'nobody'}")
        if signed:
            note(f"{file['file']}: {len(signed)} signature(s) added")


@click.command("rotate-keys")
@click.argument("role")
@folder_option
@click.option("--key", "remove", multiple=True, metavar="ID|FILE", help="Only this one goes. Default: all of the role.")
@click.option(
    "--add",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A public key that somebody else made. Default: as many new ones as go.",
)
@click.option("--threshold", type=click.IntRange(1, 9), default=None, help="How many of them have to sign from now on.")
@click.option("--stolen", is_flag=True, help="A thief may have published: trust nothing but the folder.")
@click.option("--renew", is_flag=True, help="The same keys (of root or targets), for another lifetime.")
@json_option
@pass_app
def rotate_keys(app: App, /, role: str, folder: Path, add: tuple[Path, ...], as_json: bool, **options: Any) -> None:
    """Give a role other keys, and publish. Clients follow by themselves."""
    options["remove"] = list(options["remove"])
    paths = [str(path.absolute()) for path in add]
    done = _with_passphrase(app, "rotate_keys", {"folder": str(folder), "role": role, "add": paths, **options})
    if as_json:
        print_json(done)
        return
    for file in done["files"]:
        note(f"a new key: {file}")
    note(f"{role} is signed by {'the same' if options['renew'] else 'other'} keys now, and that is published")


def show_status(app: App, folder: Path, as_json: bool) -> None:
    """`jan registry status --folder`: how an operator's folder stands."""
    held = _call(app, "status", {"folder": str(folder.absolute())})
    if as_json:
        print_json(held)
        return
    for problem in held["problems"]:
        note(f"problem: {_place(problem)}")
    _warn([_place(warning) for warning in held["warnings"]])
    records = ", ".join(f"{name} {count}" for name, count in held["records"].items())
    click.echo(f"{held['name']}: {records}")
    click.echo(f"published: version {held['version']}" if held["version"] else "published: nothing yet")
    for change in held["changes"]:
        click.echo(f"  to be published: {change['name']}: {_changes(change)}")
    for file in held["waiting"]:
        click.echo(f"  waits for signatures: {file['role']} {file['version']}")
    rows = []
    for role in held["roles"]:
        here = sum(bool(key["file"]) for key in role["keys"])
        rows.append(
            {
                **role,
                "signs": f"{role['threshold']} of {len(role['keys'])}",
                "here": here,
                "due": "now" if role["due"] else "",
            }
        )
    print_table(rows, ROLES, as_json=False, empty="there is no hub in it yet")


def _show_preview(preview: dict[str, Any], dry_run: bool) -> None:
    click.echo(f"Clients {'would' if dry_run else 'will'} see, as version {preview['version']} of the hub:")
    for change in preview["collections"]:
        click.echo(f"  {change['name']}: {_changes(change)}")
        delta = f", {size(change['delta_bytes'])} from the version before" if change["delta_bytes"] else ""
        click.echo(f"    {size(change['full_bytes'])} to download{delta}")
    if not preview["collections"]:
        click.echo("  nothing new")
    for title, lines in (
        ("Featured", [f"{it['id']}, {it['who']}: {_few(it['models'])}" for it in preview["featured"]]),
        ("Flags", [f"{it['id']}: {'; '.join(it['values'])}" for it in preview["flags"]]),
        (
            "Experiments",
            [f"{it['id']}, {it['state']}, {it['who']}: {'; '.join(it['branches'])}" for it in preview["experiments"]],
        ),
        ("Revoked", preview["revocations"]),
    ):
        if lines:
            click.echo(f"{title}:")
        for line in lines:
            click.echo(f"  {line}")
    _warn(preview["warnings"])
    for lack in preview["missing"]:
        note(f"missing: {lack['needs']} signature(s) for {lack['role']}, whose keys are not here")


def _warn(warnings: list[str]) -> None:
    for warning in warnings[:WARNINGS]:
        note(f"warning: {warning}")
    if len(warnings) > WARNINGS:
        note(f"and {len(warnings) - WARNINGS} warnings more; all of them: --json")


def _changes(change: dict[str, Any]) -> str:
    kinds = (("new", change["created"]), ("changed", change["updated"]), ("gone", change["deleted"]))
    said = "; ".join(f"{len(ids)} {kind}: {_few(ids)}" for kind, ids in kinds if ids)
    return said or ("as before" if change["count"] else "empty")


def _few(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more if names else "nothing"


def _place(problem: dict[str, Any]) -> str:
    where = f"{problem['file']}:{problem['line']}" if problem["line"] else problem["file"]
    return ": ".join(part for part in (where, problem["field"], problem["reason"]) if part)


def _changed(app: App, method: str, params: dict[str, Any], as_json: bool) -> None:
    done = _call(app, method, params)
    if as_json:
        print_json(done)
        return
    if done["note"]:
        note(done["note"])
    if done["files"]:
        note(f"written: {', '.join(done['files'])}; see what clients will see: jan registry publish --dry-run")
    else:
        note("it is so already")


def _call(app: App, method: str, params: dict[str, Any], *, activate: bool = False) -> Any:
    """Call a method of the operator's; what is wrong with the folder is said line by line."""
    from jan_core import RpcError

    try:
        return app.call(f"registry.operator.{method}", params, activate=activate)
    except RpcError as error:
        problems = error.data.get("problems") or []
        if error.type == "workspace_invalid" and problems:
            for problem in problems:
                note(_place(problem))
            count = len(problems)
            raise Failed(f"{count} problem{'s' if count > 1 else ''}; nothing was changed") from error
        if error.type == "missing_signatures":
            advice = "sign what waits where the keys are, then publish again: jan registry sign pending --keys DIR"
            raise Failed(error.message, advice) from error
        raise


def _with_passphrase(app: App, method: str, params: dict[str, Any]) -> Any:
    """Call a method that opens private keys; asks for their passphrase only when one is encrypted."""
    from jan_core import RpcError

    given = os.environ.get(VARIABLE, "")
    try:
        return _call(app, method, {**params, "passphrase": given})
    except RpcError as error:
        if error.type != "key_unusable" or given or "no passphrase" not in str(error.data.get("reason")):
            raise
        if sys.stdin is None or not sys.stdin.isatty():
            raise Failed(error.message, f"give the passphrase in {VARIABLE}, or call this at a terminal") from error
    typed: str = click.prompt("Passphrase of the keys", hide_input=True, err=True)
    return _call(app, method, {**params, "passphrase": typed})


def _new_passphrase() -> str:
    given = os.environ.get(VARIABLE, "")
    if given:
        return given
    if sys.stdin is None or not sys.stdin.isatty():
        raise Failed(f"the private keys need a passphrase: give it in {VARIABLE}", "or, for a trial: --no-passphrase")
    typed: str = click.prompt("Passphrase for the keys", hide_input=True, confirmation_prompt=True, err=True)
    return typed


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
