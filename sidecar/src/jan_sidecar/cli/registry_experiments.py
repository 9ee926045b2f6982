"""`jan registry experiments`: how experiments on what is featured stand, and taking part in them or not.

Counts are given to an operator by hand, as a file of sums; this command sends nothing anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from .app import App, Failed, pass_app, wrong_usage
from .output import Column, clean, json_option, note, print_json, print_table

__all__ = ["experiments"]

COLUMNS = (
    Column("experiment", "EXPERIMENT"),
    Column("branch", "BRANCH"),
    Column("enrolled", "ENROLLED"),
    Column("exposed", "SHOWN"),
    Column("settled", "WEEK OVER"),
    Column("converted", "DID IT"),
    Column("difference", "DIFFERENCE (95 %)"),
    Column("verdict", "VERDICT"),
)
_LARGEST = 64 * 1024 * 1024


@click.command()
@click.option(
    "--merge",
    "files",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    metavar="FILE",
    help="Add what --export wrote on other machines: a file, or a folder of them. May be repeated.",
)
@click.option("--only-merged", is_flag=True, help="Leave out what was counted on this machine.")
@click.option("--export", is_flag=True, help="Print this machine's counts: sums, and nothing that tells who it is.")
@click.option("--join", nargs=2, metavar="EXPERIMENT BRANCH", help="See what a branch shows. It does not count then.")
@click.option("--leave", metavar="EXPERIMENT", help="Leave one experiment for good.")
@click.option("--opt-in/--opt-out", "take_part", default=None, help="Take part in experiments from now on, or in none.")
@json_option
@pass_app
def experiments(
    app: App,
    files: tuple[Path, ...],
    only_merged: bool,
    export: bool,
    join: tuple[str, str] | None,
    leave: str | None,
    take_part: bool | None,
    as_json: bool,
) -> None:
    """Say how experiments on what is featured stand, here or with other machines' counts."""
    changes = [join is not None, leave is not None, take_part is not None]
    if sum(changes) > 1 or (any(changes) and (files or export)):
        wrong_usage("one of --join, --leave, --opt-in and --opt-out at a time, without --merge and --export")
    if join is not None:
        app.call("registry.join", {"experiment": join[0], "branch": join[1]}, activate=True)
        note(f"this machine is in {join[0]} now and is shown what {join[1]} shows")
    elif leave is not None:
        app.call("registry.leave", {"experiment": leave}, activate=True)
        note(f"this machine has left {leave}")
    elif take_part is not None:
        app.call("settings.set", {"extension": "registry", "values": {"experiments": take_part}}, activate=True)
        note("this machine takes part in experiments" if take_part else "this machine takes part in no experiment")
    else:
        merge = [each for path in files for each in _read(path)]
        answer = app.call("registry.experiments", {"merge": merge, "here": not only_merged}, activate=True)
        if export:
            print_json(answer["own"])
        elif as_json:
            print_json(answer)
        else:
            _show(answer)


def _show(answer: dict[str, Any]) -> None:
    print_table(
        [row for report in answer["experiments"] for row in _rows(report)],
        COLUMNS,
        as_json=False,
        empty="the list has no experiments",
    )
    for report in answer["experiments"]:
        if report["status"] == "enrolled":
            how = "by choice" if report["reason"] == "opt-in" else "by lot"
            note(f"{report['experiment']}: this machine is in {report['branch']}, {how}")
        else:
            note(f"{report['experiment']}: this machine is not in it ({report['reason']})")
        if report["stop"]:
            note(
                f"{report['experiment']}: stop it: its branches are not as large as they should be"
                f" (p = {report['mismatch_p']:.2g}), so that its outcomes mean nothing"
            )
    if not answer["enabled"]:
        note("this machine takes part in no experiment; change it with: jan registry experiments --opt-in")


def _rows(report: dict[str, Any]) -> Iterator[dict[str, Any]]:
    compared = {each["branch"]: each for each in report["comparisons"]}
    for branch in report["branches"]:
        done = branch.get("converted", {}).get(report["metric"], 0)
        row = branch | {"experiment": report["experiment"], "converted": f"{done} {report['metric']}"}
        if (comparison := compared.get(branch["branch"])) is None:
            row |= {"difference": "", "verdict": "control"}
        else:
            row |= {"difference": _difference(comparison), "verdict": comparison["verdict"]}
        yield row


def _difference(comparison: dict[str, Any]) -> str:
    if comparison["difference"] is None:
        return ""
    ends = f"{comparison['low'] * 100:+.1f} to {comparison['high'] * 100:+.1f}"
    return f"{comparison['difference'] * 100:+.1f} % ({ends}), p = {comparison['p']:.2g}"


def _read(path: Path) -> list[Any]:
    """The counts in a file, or in all `*.json` of a folder."""
    import msgspec

    if path.is_dir():
        return [each for file in sorted(path.glob("*.json")) for each in _read(file)]
    try:
        if path.stat().st_size > _LARGEST:
            raise Failed(f"{clean(str(path))} is larger than {_LARGEST >> 20} MiB")
        found = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise Failed(f"{clean(str(path))} cannot be read: {error.strerror or error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Failed(f"{clean(str(path))} is not JSON", "write it with: jan registry experiments --export") from None
    if isinstance(found, dict):  # a whole answer, as --json prints it
        found = found.get("own")
    if not isinstance(found, list):
        raise Failed(f"{clean(str(path))} holds no counts", "write it with: jan registry experiments --export")
    return found
