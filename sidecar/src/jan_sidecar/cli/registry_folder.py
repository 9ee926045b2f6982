"""What the operator's commands of `jan registry` have in common: which folder, calling, and saying what was done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .app import App, Failed
from .output import note, print_json

__all__ = ["call", "changed", "folder_option", "place", "where_option"]


def _folder(_ctx: click.Context, _param: click.Parameter, value: Path | None) -> Path:
    folder = (value or Path()).absolute()
    if value is None and not (folder / "registry.toml").is_file():
        raise click.UsageError("there is no registry.toml here; name the operator's folder with --folder")
    return folder


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


def call(app: App, method: str, params: dict[str, Any], *, activate: bool = False) -> Any:
    """Call a method of the operator's; what is wrong with the folder is said line by line."""
    from jan_core import RpcError

    try:
        return app.call(f"registry.operator.{method}", params, activate=activate)
    except RpcError as error:
        problems = error.data.get("problems") or []
        if error.type == "workspace_invalid" and problems:
            for problem in problems:
                note(place(problem))
            count = len(problems)
            raise Failed(f"{count} problem{'s' if count > 1 else ''}; nothing was changed") from error
        if error.type == "missing_signatures":
            advice = "sign what waits where the keys are, then publish again: jan registry sign pending --keys DIR"
            raise Failed(error.message, advice) from error
        raise


def changed(app: App, method: str, params: dict[str, Any], as_json: bool) -> None:
    """Make an edit, and say which files it wrote."""
    done = call(app, method, params)
    if as_json:
        print_json(done)
        return
    if done["note"]:
        note(done["note"])
    if done["files"]:
        note(f"written: {', '.join(done['files'])}; see what clients will see: jan registry publish --dry-run")
    else:
        note("it is so already")


def place(problem: dict[str, Any]) -> str:
    """A problem on one line: file, line, field and reason."""
    where = f"{problem['file']}:{problem['line']}" if problem["line"] else problem["file"]
    return ": ".join(part for part in (where, problem["field"], problem["reason"]) if part)
