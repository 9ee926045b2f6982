"""`jan models`: what is installed, taking files in, and what a running server has loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .app import HINTS, App, Failed, pass_app, wrong_usage
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


def _load_options(command: Any) -> Any:
    """How a model is loaded: the same options for `estimate`, `configure` and `load`."""
    for option in (
        click.option("--n-ctx", type=click.IntRange(64, 2**30), help="Tokens one request may take."),
        click.option("--parallel", type=click.IntRange(1, 256), help="Requests answered at the same time."),
        click.option("--kv-type", type=click.Choice(["f16", "q8_0", "q4_0"]), help="Elements of the KV cache."),
        click.option("--threads", type=click.IntRange(1, 512), help="Of the processor."),
        click.option("--gpu-layers", "n_gpu_layers", type=click.IntRange(-1, 1024), help="Layers on GPUs; -1: all."),
        click.option("--mmap/--no-mmap", default=None, help="Map the file, or read it."),
        click.option("--repack/--no-repack", default=None, help="Rewrite weights for this processor, or not."),
        click.option("--adapter", "adapters", multiple=True, metavar="ID[=SCALE]", help="Apply this LoRA adapter."),
    ):
        command = option(command)
    return command


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Of the options of a load, those that were given, as the methods want them."""
    given = {name: value for name, value in options.items() if value is not None and name != "adapters"}
    if adapters := [_adapter(text) for text in options["adapters"]]:
        given["adapters"] = adapters
    return given


def _adapter(text: str) -> dict[str, Any]:
    name, _, scale = text.partition("=")
    try:
        return {"id": name, "scale": float(scale)} if scale else {"id": name}
    except ValueError:
        wrong_usage(f"--adapter {text}: {scale!r} is no number")


@models.command()
@click.argument("model")
@_load_options
@json_option
@pass_app
def estimate(app: App, /, model: str, as_json: bool, **options: Any) -> None:
    """Show what a model would take of this computer's memory, and the longest context that fits."""
    record = app.call("models.estimate", {"id": model, **_given(options)})
    if as_json:
        print_json(record)
        return
    rows = [_place(place) for place in record["memory"]]
    print_table(rows, ESTIMATE_COLUMNS, as_json=False, empty="")
    longest, asked = record["max_n_ctx"], record["n_ctx"]
    which = "it was made for" if record["fits"] and asked > longest else "the longest that fits has"
    note(
        f"{model} {'fits' if record['fits'] else 'does not fit'} with a context of {asked} tokens; "
        + (f"{which} {longest}" if longest else "no context fits")
    )
    for reason in record["reasons"]:
        note(f"chosen: {reason}")
    if record["rough"]:
        note("this kind of model is estimated roughly")


def _place(place: dict[str, Any]) -> dict[str, Any]:
    parts = place["parts"]
    step = sum(parts.get(name, 0) for name in ("compute", "scratch", "output"))
    weights = sum(parts.get(name, 0) for name in ("weights", "repacked", "projector", "adapters"))
    return {**place, "weights": weights, "cache": parts.get("cache", 0), "step": step, "base": parts.get("base", 0)}


ESTIMATE_COLUMNS = (
    Column("device", "WHERE"),
    Column("weights", "WEIGHTS", size),
    Column("cache", "CACHE", size),
    Column("step", "STEP", size),
    Column("base", "PROCESS", size),
    Column("needed", "NEEDED", size),
    Column("free", "FREE", size),
    Column("fits", "FITS", lambda fits: "yes" if fits else "no"),
)


@models.command()
@click.argument("model")
@_load_options
@json_option
@pass_app
def configure(app: App, /, model: str, as_json: bool, **options: Any) -> None:
    """Keep how a model is loaded from now on. Without options: as is chosen for it."""
    given = _given(options)
    record = app.call("models.configure", {"id": model, "options": given})
    if as_json:
        print_json(record)
    else:
        kept = ", ".join(f"{name} {value}" for name, value in given.items() if name != "adapters")
        kept += "".join(f", adapter {adapter['id']}" for adapter in given.get("adapters", ()))
        note(f"{model} is loaded with {kept.strip(', ')}" if given else f"{model} is loaded as is chosen for it")


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
@click.option("--sha256", default="", metavar="HEX", help="What the file at URL must hash to; else it is not checked.")
@click.option("--id", "model_id", default="", metavar="ID", help="The id it gets here. Default: from the file's name.")
@json_option
@pass_app
def pull(app: App, model: str, sha256: str, model_id: str, as_json: bool) -> None:
    """Download a model of the registry, or a GGUF file from a URL, and take it in.

    Interrupted, it goes on where it was: run the same command again.
    """
    from .downloads import fetch, fetch_file
    from .session import Session, run_session

    if sha256 and "://" not in model:
        wrong_usage("--sha256 is for a URL; the registry has its own")

    async def work(session: Session) -> Any:
        if "://" in model:
            record = await fetch(session, model, sha256)
        else:
            files = (await session.call("registry.resolve", {"id": model}))["files"]
            # The files of a split model, and its projector, are taken in from beside the first.
            ordered = sorted(files, key=lambda file: ("mmproj" in file["name"], file["name"]))
            records = [await fetch_file(session, file) for file in ordered]
            record = records[0]
        return await session.call("models.import", {"path": record["path"], "id": model_id})

    _done(run_session(app, work), as_json)


@models.command()
@click.argument("model", nargs=-1, required=True)
@click.option("--adapter", default="", metavar="ID", help="Delete only this adapter of MODEL.")
@pass_app
def delete(app: App, model: tuple[str, ...], adapter: str) -> None:
    """Delete models and their files."""
    from .session import Session, run_session

    async def work(session: Session) -> None:
        for name in model:
            await session.call("models.delete", {"id": name, "adapter": adapter})
            note(f"{adapter or name} is deleted")

    run_session(app, work)


models.add_command(delete, "rm")


def _server_options(command: Any) -> Any:
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


@models.command()
@click.argument("model")
@_load_options
@click.option("--pin", is_flag=True, help="Keep it until it is unloaded.")
@click.option("--force", is_flag=True, help="Also when it does not fit the free memory.")
@_server_options
@json_option
def load(
    model: str, server: str, api_key_file: Path | None, pin: bool, force: bool, as_json: bool, **options: Any
) -> None:
    """Load a model in the running server now, rather than at its first request."""
    params = _given(options) | ({"pin": True} if pin else {}) | ({"force": True} if force else {})
    record = _ask_server(server, api_key_file, model, "load", params)
    if as_json:
        print_json(record)
        return
    needed = sum(place["needed"] for place in record.get("memory", []))
    note(f"{model} is loaded" + (f"; it takes about {size(needed)}" if needed else ""))
    for reason in record.get("chosen", []):
        note(f"chosen: {reason}")


@models.command()
@click.argument("model")
@_server_options
def unload(model: str, server: str, api_key_file: Path | None) -> None:
    """Free a model's memory in the running server."""
    _ask_server(server, api_key_file, model, "unload", {})
    note(f"{model} is unloaded")


def _done(record: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(record)
    else:
        note(f"{record['id']} is installed; talk with it: jan chat -m {record['id']}")


def _ask_server(
    server: str, api_key_file: Path | None, model: str, verb: str, params: dict[str, Any]
) -> dict[str, Any]:
    """A model lives in the process that serves it: loading is asked of that process, over its own API."""
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
