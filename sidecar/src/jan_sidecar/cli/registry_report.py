"""`jan registry report`: what the roll-out of the model list on this machine has come to."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from .app import App, pass_app
from .output import Column, json_option, note, print_json, print_record, print_table

__all__ = ["report"]

COLUMNS = (Column("name", "WHAT"), Column("dynamic", "DYNAMIC"), Column("builtin", "BUILT-IN"), Column("note", ""))
CRITERIA = (Column("mark", ""), Column("name", "NEXT STEP NEEDS"), Column("value", "SEEN"), Column("bound", "NEEDED"))
DEVIATIONS = (Column("kind", "DIFFERENCE"), Column("id", "MODEL"), Column("what", "WHAT"))
DECISIONS = (
    Column("at", "DECIDED AT"),
    Column("step", "PHASE"),
    Column("reason", "WHY"),
    Column("replayed", "AGAIN"),
    Column("detail", ""),
)
SHOWN = 10


def _micros(value: int) -> str:
    return f"{value / 1000:.2f} ms" if value >= 0 else "-"


SERVED = (("answers", str), ("errors", str), ("p50", _micros), ("p95", _micros))


@click.command()
@click.option("--replay", is_flag=True, help="Make every stored decision again and compare; exit 1 when one differs.")
@click.option("--html", type=click.Path(path_type=Path), help="Write a page with plots to this file.")
@click.option("--export", type=click.Path(path_type=Path), help="Write counts without any identifier to this file.")
@json_option
@pass_app
def report(app: App, replay: bool, html: Path | None, export: Path | None, as_json: bool) -> None:
    """Say what the roll-out of the list has come to: phases, latency, coverage, conflicts, decisions.

    Nothing is sent anywhere: what --html and --export write is for whoever you give it to.
    """
    wanted = {"replay": replay, "html": html is not None, "export": export is not None}
    answer = app.call("registry.report", wanted, activate=True)
    if html is not None:
        _write(html, answer["html"])
    if export is not None:
        import msgspec

        _write(export, msgspec.json.format(msgspec.json.encode(answer["export"])).decode() + "\n")
    if as_json:
        print_json({name: value for name, value in answer.items() if name not in ("html", "export")})
    else:
        _show(answer)
    if replay and answer["replayed"]["differs"]:
        sys.exit(1)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror or error}") from None
    note(f"written: {path}")


def _show(answer: dict[str, Any]) -> None:
    pairs, syncs = answer["pairs"], answer["syncs"]
    print_record(
        {
            "phase": answer["phase"],
            "since": answer["since"],
            "why": f"{answer['level']}: {answer['reason']}",
            "syncs": f"{syncs['ok']} good, {syncs['unreachable']} unanswered, {syncs['refused']} refused",
            "coverage": _share(pairs["coverage"]),
            "conflicts": pairs["conflicts"],
            "age": f"{pairs['age']} s" if pairs["age"] >= 0 else "",
        },
        as_json=False,
    )
    arms = {arm["arm"]: arm for arm in answer["arms"]}
    dynamic, builtin = arms["dynamic"], arms["builtin"]
    rows = [
        {"name": name, "dynamic": show(dynamic[name]), "builtin": show(builtin[name]), "note": "served"}
        for name, show in SERVED
    ]
    for rank in ("p50", "p95"):
        both = {arm: _micros(pairs[f"{arm}_{rank}"]) for arm in ("dynamic", "builtin")}
        rows.append({"name": rank, **both, "note": "to the same questions"})
    print_table(rows, COLUMNS, as_json=False, empty="")
    gate = answer["gate"]
    criteria = [
        {
            "mark": "met" if criterion["met"] else "open",
            "name": criterion["name"],
            "value": criterion["value"] if criterion["value"] >= 0 else "nothing yet",
            "bound": f"{criterion['bound']} {criterion['threshold']}",
        }
        for criterion in gate["criteria"]
    ]
    print_table(criteria, CRITERIA, as_json=False, empty=f"the gate would {gate['action']}: {gate['reason']}")
    print_table(pairs["examples"], DEVIATIONS, as_json=False, empty="the newest comparison shows no difference")
    decisions = [
        {**line, "step": " > ".join(dict.fromkeys((line["from_phase"], line["to_phase"])))}
        for line in answer["decisions"][:SHOWN]
    ]
    print_table(decisions, DECISIONS, as_json=False, empty="nothing was decided yet")
    if (replayed := answer["replayed"]) is not None:
        note(
            f"{replayed['same']} decisions come out the same again, {replayed['differs']} differ, "
            f"{replayed['unknown']} are not replayable"
        )


def _share(value: int) -> str:
    return f"{value / 100:g} %" if value >= 0 else ""
