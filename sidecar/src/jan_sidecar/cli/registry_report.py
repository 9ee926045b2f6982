"""`jan registry report` and `fleet`: what the roll-out of the model list has come to, on this machine and on many."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from .app import App, Failed, pass_app
from .output import Column, json_option, note, print_json, print_record, print_table

__all__ = ["fleet", "print_criteria", "report"]

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
VERDICTS = (
    Column("day", "UNTIL"),
    Column("units", "UNITS"),
    Column("action", "DO"),
    Column("percent", "PERCENT"),
    Column("reason", "WHY"),
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


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--margin", type=click.IntRange(1, 5000), help="Failures per 10,000 that are too many. Default: 100.")
@click.option("--steps", metavar="PERCENT,…", help="Steps of the roll-out. Default: 5,25,50,100.")
@json_option
@pass_app
def fleet(app: App, folder: Path, margin: int | None, steps: str | None, as_json: bool) -> None:
    """Judge a roll-out from the exports in FOLDER that people handed in (`jan registry report --export`).

    Says how many machines may be served the dynamic list now; raise the percentage with `jan registry flag`.
    """
    params: dict[str, Any] = {"folder": str(folder.absolute())}
    if margin is not None:
        params["margin"] = margin
    if steps is not None:
        try:
            params["steps"] = [int(step) for step in steps.split(",")]
        except ValueError:
            raise click.BadParameter("percentages with commas between them", param_hint="--steps") from None
    answer = app.call("registry.operator.fleet", params, activate=True)
    if as_json:
        print_json(answer)
        return
    for skipped in answer["skipped"]:
        note(f"not used: {skipped}")
    rows = [
        {**verdict, **_period(period)} for verdict, period in zip(answer["verdicts"], answer["periods"], strict=True)
    ]
    print_table(rows, VERDICTS, as_json=False, empty="there is no export of a whole day in this folder")
    note(f"{answer['machines']} exports; {answer['percent']} % of machines may be served the dynamic list")


def _period(period: dict[str, Any]) -> dict[str, str]:
    """The day's last moment, and failures of units in both arms."""
    day = datetime.fromtimestamp(period["at"], UTC).strftime("%Y-%m-%d %H:%M")
    control, candidate = ({"units": 0, "failed": 0} | period.get(arm, {}) for arm in ("control", "candidate"))
    arms = (f"{arm['failed']}/{arm['units']}" for arm in (candidate, control))
    return {"day": day, "units": " beside ".join(arms)}


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Failed(f"{path} cannot be written: {error.strerror or error}") from None
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
            "conflicts": pairs["conflicts"] if pairs["coverage"] >= 0 else "nothing compared yet",
            "age": _span(pairs["age"]) if pairs["age"] >= 0 else "",
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
    print_criteria(gate["criteria"])
    note(f"the gate would now {gate['action']}: {gate['reason']}")
    compared = pairs["coverage"] >= 0
    none = "the newest comparison shows no difference" if compared else "the two lists were not compared yet"
    print_table(pairs["examples"], DEVIATIONS, as_json=False, empty=none)
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


def print_criteria(criteria: list[dict[str, Any]]) -> None:
    """What the next step of the roll-out needs, as a table; of the last step, which needs nothing, none."""
    rows = [
        {
            "mark": "met" if criterion["met"] else "open",
            "name": criterion["name"],
            "value": _amount(criterion["name"], criterion["value"]),
            "bound": f"{criterion['bound']} {_amount(criterion['name'], criterion['threshold'])}",
        }
        for criterion in criteria
    ]
    if rows:
        print_table(rows, CRITERIA, as_json=False, empty="")


def _amount(name: str, value: int) -> str:
    """A criterion's number in its unit."""
    if value < 0:
        return "nothing compared yet"
    if name.startswith(("span", "age")):
        return _span(value)
    if name.startswith("p95"):
        return _micros(value)
    return _share(value) if name == "coverage" else f"{value:,}"


def _span(seconds: int) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds} s"


def _share(value: int) -> str:
    return f"{value / 100:g} %" if value >= 0 else ""
