"""`jan registry init`, `publish`, `sign` and `rotate-keys`: whatever needs private keys, and their passphrase."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from .app import App, Failed, pass_app, wrong_usage
from .output import json_option, note, print_json
from .registry_folder import call, folder_option
from .registry_view import show_preview

__all__ = ["init", "publish", "rotate_keys", "sign"]

VARIABLE = "JAN_REGISTRY_PASSPHRASE"


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="What people call this registry.")
@click.option("--url", default="", help="Where clients will find it; for display only.")
@click.option(
    "--signers",
    multiple=True,
    metavar="ROLE=N/KEYS",
    help="e.g. root=3/5: five keys, of which three have to sign. Default: 2/3 for root and targets, 1/2 for models and "
    "revocations, else 1/1.",
)
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
    made = call(app, "init", {"folder": str(folder.absolute()), **params})
    if as_json:
        print_json(made)
        return
    keys = sum(len(files) for files in made["keys"].values())
    note(f"{folder} is made, with {keys} private keys in {folder / 'keys'}: move keys/offline to where no network is")
    note(f"clients trust its root, {made['root']}")
    note(f"SHA-256 of the root: {made['root_sha256']}")


@click.command()
@folder_option
@click.option("--dry-run", is_flag=True, help="Say what clients would see, and change nothing.")
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(["models", "featured", "flags", "revocations", "stats"]),
    metavar="COLLECTION",
    help="models, featured, flags (experiments are among them), revocations or stats; may be given several times. "
    "Default: all.",
)
@click.option("--expect", type=int, default=-1, metavar="VERSION", help="Only if the hub is at this version.")
@json_option
@pass_app
def publish(app: App, folder: Path, dry_run: bool, only: tuple[str, ...], expect: int, as_json: bool) -> None:
    """Sign the folder into the tree that clients read (public/, which the web server serves).

    The passphrase of the keys is asked for when it is needed, or taken from JAN_REGISTRY_PASSPHRASE.
    """
    params = {"folder": str(folder), "dry_run": dry_run, "only": list(only), "expect": expect}
    done = _with_passphrase(app, "publish", params)
    if as_json:
        print_json(done)
        return
    show_preview(done["preview"], dry_run)
    if not dry_run:
        note(f"version {done['preview']['version']} is published in {done['tree']}")


@click.command()
@click.argument("pending", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--keys",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="A private key (.pem), or a folder of them; may be given several times.",
)
@click.option("--show", is_flag=True, help="Only say what waits, and what it would say if it were signed.")
@json_option
@pass_app
def sign(app: App, pending: Path, keys: tuple[Path, ...], show: bool, as_json: bool) -> None:
    """Sign what waits in PENDING with keys that are kept here. Needs nothing but that folder and the keys.

    PENDING is the folder pending/ of the operator's folder, which publish and rotate-keys write to when keys are
    missing; carry it back there, and publish.
    """
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
@click.option("--key", "remove", multiple=True, metavar="ID|FILE", help="The key that goes. Default: all of the role.")
@click.option(
    "--add",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A public key that somebody else made; alone, none go. Default: as many new ones as go.",
)
@click.option("--threshold", type=click.IntRange(1, 9), default=None, help="How many of them have to sign from now on.")
@click.option("--stolen", is_flag=True, help="A thief may have published: trust nothing but the folder.")
@click.option("--renew", is_flag=True, help="The same keys (of root or targets), for another lifetime.")
@json_option
@pass_app
def rotate_keys(app: App, /, role: str, folder: Path, add: tuple[Path, ...], as_json: bool, **options: Any) -> None:
    """Give a role other keys, and publish at once. Clients follow by themselves.

    ROLE: root, targets, snapshot, timestamp, models, featured, flags, revocations or stats. The keys of root have to
    sign for another key of root, targets, snapshot or timestamp; those of targets for one of a collection.
    """
    options["remove"] = list(options["remove"])
    paths = [str(path.absolute()) for path in add]
    done = _with_passphrase(app, "rotate_keys", {"folder": str(folder), "role": role, "add": paths, **options})
    if as_json:
        print_json(done)
        return
    for file in done["files"]:
        note(f"a new key: {file}")
    note(f"{role} is signed by {'the same' if options['renew'] else 'other'} keys now, and that is published")


def _with_passphrase(app: App, method: str, params: dict[str, Any]) -> Any:
    """Call a method that opens private keys; asks for their passphrase only when one is encrypted."""
    from jan_core import RpcError

    given = os.environ.get(VARIABLE, "")
    try:
        return call(app, method, {**params, "passphrase": given})
    except RpcError as error:
        if error.type != "key_unusable" or given or "no passphrase" not in str(error.data.get("reason")):
            raise
        if sys.stdin is None or not sys.stdin.isatty():
            raise Failed(error.message, f"give the passphrase in {VARIABLE}, or call this at a terminal") from error
    typed: str = click.prompt("Passphrase of the keys", hide_input=True, err=True)
    return call(app, method, {**params, "passphrase": typed})


def _new_passphrase() -> str:
    given = os.environ.get(VARIABLE, "")
    if given:
        return given
    if sys.stdin is None or not sys.stdin.isatty():
        raise Failed(f"the private keys need a passphrase: give it in {VARIABLE}", "or, for a trial: --no-passphrase")
    typed: str = click.prompt("Passphrase for the keys", hide_input=True, confirmation_prompt=True, err=True)
    return typed
