"""How models are loaded: `jan models estimate`, `configure`, `load` and `unload`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .app import App, pass_app, wrong_usage
from .output import Column, json_option, note, print_json, print_table, size
from .running import ask_server, server_options

__all__ = ["configure", "estimate", "load", "unload"]

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


@click.command()
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


@click.command()
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


@click.command()
@click.argument("model")
@_load_options
@click.option("--pin", is_flag=True, help="Keep it until it is unloaded.")
@click.option("--force", is_flag=True, help="Also when it does not fit the free memory.")
@server_options
@json_option
def load(
    model: str, server: str, api_key_file: Path | None, pin: bool, force: bool, as_json: bool, **options: Any
) -> None:
    """Load a model in the running server now, rather than at its first request."""
    params = _given(options) | ({"pin": True} if pin else {}) | ({"force": True} if force else {})
    record = ask_server(server, api_key_file, model, "load", params)
    if as_json:
        print_json(record)
        return
    needed = sum(place["needed"] for place in record.get("memory", []))
    note(f"{model} is loaded" + (f"; it takes about {size(needed)}" if needed else ""))
    for reason in record.get("chosen", []):
        note(f"chosen: {reason}")


@click.command()
@click.argument("model")
@server_options
def unload(model: str, server: str, api_key_file: Path | None) -> None:
    """Free a model's memory in the running server."""
    ask_server(server, api_key_file, model, "unload", {})
    note(f"{model} is unloaded")


def _place(place: dict[str, Any]) -> dict[str, Any]:
    parts = place["parts"]
    step = sum(parts.get(name, 0) for name in ("compute", "scratch", "output"))
    weights = sum(parts.get(name, 0) for name in ("weights", "repacked", "projector", "adapters"))
    return {**place, "weights": weights, "cache": parts.get("cache", 0), "step": step, "base": parts.get("base", 0)}
