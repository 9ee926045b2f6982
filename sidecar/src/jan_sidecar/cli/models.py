"""`jan models`: what is installed, and taking files in. How models are loaded is in `loading.py`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from .app import App, checked_sha256, pass_app, wrong_usage
from .downloads_options import fetch_options, file_at, given
from .loading import configure, estimate, load, unload
from .output import Column, json_option, note, on_terminal, print_json, print_record, print_table, size

__all__ = ["models"]

COLUMNS = (
    Column("id", "MODEL"),
    Column("state", "STATE"),
    Column("size", "SIZE", size),
    Column("quantization", "QUANT"),
    Column("context_length", "CONTEXT"),
    Column("license", "LICENSE"),
    Column("error", "PROBLEM"),
)


@click.group()
def models() -> None:
    """Models on this machine."""


for command in (configure, estimate, load, unload):
    models.add_command(command)


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
def inspect(app: App, model: str, as_json: bool) -> None:
    """Read a model's file now, and show what it says."""
    record = app.call("models.inspect", {"id": model})
    if as_json:
        print_json(record)
        return
    shown = {name: value for name, value in record.items() if name not in ("model", "metadata")}
    about = dict(record["model"])
    if on_terminal():
        about["size"] = size(about["size"])
    print_record({**about, **shown}, as_json=False)


models.add_command(inspect, "show")


@models.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--id", "model_id", default="", metavar="ID", help="The model's id. Default: from the file's name.")
@click.option("--copy", is_flag=True, help="Never share disk space with FILE.")
@click.option(
    "--projector",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What turns images into embeddings for it. Default: the one beside FILE that fits.",
)
@click.option("--no-projector", is_flag=True, help="Take in no projector.")
@click.option("--for", "base", default="", metavar="MODEL", help="FILE is a LoRA adapter for this installed model.")
@json_option
@pass_app
def import_(
    app: App,
    file: Path,
    model_id: str,
    copy: bool,
    projector: Path | None,
    no_projector: bool,
    base: str,
    as_json: bool,
) -> None:
    """Take a GGUF file in: a model (of a split one, any of its files), or an adapter. The file itself stays."""
    params = {"path": str(file.absolute()), "id": model_id, "copy": copy, "base": base}
    if projector is not None or no_projector:
        params["projector"] = str(projector.absolute()) if projector else ""
    record = app.call("models.import", params)
    if base and not as_json:
        note(f"{base} has the adapter {record['adapters'][-1]['id']} now")
    else:
        _done(record, as_json)


@models.command()
@click.argument("model", metavar="MODEL|URL")
@click.option(
    "--sha256",
    callback=checked_sha256,
    default="",
    metavar="HEX",
    help="What the file at URL must hash to; else it is not checked.",
)
@click.option("--id", "model_id", default="", metavar="ID", help="The id it gets here. Default: from its names.")
@click.option("--variant", default="", metavar="ID", help="Which of the model's variants. Default: the first.")
@click.option(
    "--source", default="", metavar="ID", help="Look it up at this hub, which learns of it. See: jan registry sources"
)
@fetch_options
@json_option
@pass_app
def pull(
    app: App, /, model: str, sha256: str, model_id: str, variant: str, source: str, as_json: bool, **options: Any
) -> None:
    """Download a model of the registry, or a GGUF file from a URL, and take it in.

    Interrupted, it goes on where it was: run the same command again.

    \b
    jan models pull qwen3-8b --limit 5M
    jan models pull https://example.org/model.gguf --sha256 9f86d0...
    """
    from .pulling import pull_file, pull_model
    from .session import Session, run_session

    if sha256 and "://" not in model:
        wrong_usage("--sha256 is for a URL; the registry has its own")
    if (variant or source) and "://" in model:
        wrong_usage("--variant and --source are for a model of a hub")

    file = file_at(model, sha256) if "://" in model else None
    chosen = {"--sha256": sha256, "--id": model_id, "--variant": variant, "--source": source}
    said = [part for name, value in chosen.items() if value for part in (name, value)]
    again = shlex.join(["jan", "models", "pull", model, *said])

    async def work(session: Session) -> Any:
        if file is not None:
            return await pull_file(session, file, model_id, given(options), again)
        return await pull_model(session, model, variant, source, model_id, given(options), again)

    _done(run_session(app, work, activate=True), as_json)


@models.command()
@click.argument("model", nargs=-1, required=True)
@click.option("--adapter", default="", metavar="ID", help="Delete only this adapter of MODEL.")
@click.option("--keep-download", is_flag=True, help="Keep the files that were fetched for it.")
@json_option
@pass_app
def delete(app: App, model: tuple[str, ...], adapter: str, keep_download: bool, as_json: bool) -> None:
    """Delete models and their files, also as they were fetched, unless another model has them too."""
    from .deleting import delete_model
    from .session import Session, run_session

    async def work(session: Session) -> list[dict[str, Any]]:
        return [await delete_model(session, name, adapter, keep_download=keep_download) for name in model]

    deleted = run_session(app, work)
    if as_json:
        print_json(deleted)
    for each in () if as_json else deleted:
        freed = f"; {size(each['freed'])} are free" if each["freed"] else ""
        note(f"{each['id']} is deleted{freed}")


models.add_command(delete, "rm")


def _done(record: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(record)
    else:
        note(f"{record['id']} is installed; talk with it: jan chat -m {record['id']}")
