"""Whether the records of a folder fit one another, and what clients have seen already.

Pure. A problem keeps a folder from being published; a warning is for a person to think about.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from ..collections import Constraint, Experiment, Flag, Record, Revocation, Rule, Slot
from ..flags.known import KNOWN, fit
from ..targeting import FIELDS, OPERATORS
from .answers import Problem
from .workspace import Entry, Workspace

__all__ = ["review"]

_NOT_AFTER = {"running": (), "paused": (), "ended": ("running", "paused")}
"""State -> states that do not follow it."""


def review(held: Workspace, published: Mapping[str, Experiment] | None = None) -> None:
    """Add to the folder's problems and warnings. `published`: the experiments that clients have been told of, by id."""
    for _, entry in _all(held, "models"):
        held.problems += _model(held, entry, entry.value)
        held.warnings += _model_doubts(entry, entry.value)
    for _, entry in _all(held, "featured"):
        held.problems += _slot(held, entry, entry.value)
        held.warnings += _slot_doubts(held, entry, entry.value)
    for _, entry in _all(held, "flags"):
        if isinstance(entry.value, Flag):
            held.problems += _flag(entry, entry.value)
            if entry.value.id not in KNOWN:
                held.warnings.append(entry.problem("id", "this program reads no flag of that name"))
        else:
            held.problems += _experiment(held, entry, entry.value)
    for _, entry in _all(held, "revocations"):
        held.warnings += _revocation_doubts(held, entry, entry.value)
    for id, entry in _all(held, "stats"):
        if id not in held.entries["models"]:
            held.warnings.append(entry.problem(id, "there is no such model"))
    held.problems += _changed(held, published or {})
    held.warnings += _whole(held)


def _all(held: Workspace, collection: str) -> list[tuple[str, Entry]]:
    return sorted(held.entries[collection].items())


def _model(held: Workspace, entry: Entry, model: Record) -> Iterator[Problem]:
    yield from _target(entry, "target", model.target)
    successor = model.deprecated.replaced_by if model.deprecated else ""
    if successor and (successor == model.id or successor not in held.entries["models"]):
        yield entry.problem("deprecated.replaced_by", f"there is no other model {successor}")
    for number, file in enumerate(model.files):
        if file.pieces and not (held.folder / file.pieces.target).is_file():
            yield entry.problem(f"files[{number}].pieces", f"there is no {file.pieces.target}")


def _model_doubts(entry: Entry, model: Record) -> Iterator[Problem]:
    for number, file in enumerate(model.files):
        where = f"files[{number}]"
        if not file.sha256:
            yield entry.problem(where, "has no sha256, so that nobody can tell whether the right file came")
        if not file.sources:
            yield entry.problem(where, "has no source, so that it cannot be downloaded")
        for place, source in enumerate(file.sources):
            if source.kind == "hf" and not re.fullmatch("[0-9a-f]{40}", source.rev):
                yield entry.problem(f"{where}.sources[{place}].rev", "is no commit: what it names may change")
    used = {index for variant in model.variants for index in variant.files}
    for number in range(len(model.files)):
        if model.variants and number not in used:
            yield entry.problem(f"files[{number}]", "belongs to no variant")


def _slot(held: Workspace, entry: Entry, slot: Slot) -> Iterator[Problem]:
    yield from _target(entry, "target", slot.target)
    revoked = {it.model for it in held.values("revocations")}
    for number, id in enumerate(slot.models):
        if id not in held.entries["models"]:
            yield entry.problem(f"models[{number}]", f"there is no model {id}")
        elif id in revoked:
            yield entry.problem(f"models[{number}]", f"{id} is revoked")


def _slot_doubts(held: Workspace, entry: Entry, slot: Slot) -> Iterator[Problem]:
    for number, id in enumerate(slot.models):
        model = held.entries["models"].get(id)
        if model and model.value.deprecated:
            yield entry.problem(f"models[{number}]", f"{id} is deprecated")


def _flag(entry: Entry, flag: Flag) -> Iterator[Problem]:
    for number, rule in enumerate(flag.rules):
        yield from _target(entry, f"rules[{number}].target", rule.target)
    if flag.id not in KNOWN:
        if len({type(value) for _, value in _values(flag)}) > 1:
            yield entry.problem("rules", "a flag's values must all be of one kind")
        return
    for where, value in _values(flag):
        try:
            fit(flag.id, value)
        except ValueError as error:
            yield entry.problem(where, str(error).removeprefix(f"{flag.id}: "))


def _values(flag: Flag) -> Iterator[tuple[str, bool | int | str]]:
    yield "value", flag.value
    rule: Rule
    for number, rule in enumerate(flag.rules):
        yield f"rules[{number}].value", rule.value


def _experiment(held: Workspace, entry: Entry, experiment: Experiment) -> Iterator[Problem]:
    yield from _target(entry, "target", experiment.target)
    for number, branch in enumerate(experiment.branches):
        if branch.slot and branch.slot not in held.entries["featured"]:
            yield entry.problem(f"branches[{number}].slot", f"there is no featured list {branch.slot}")


def _target(entry: Entry, where: str, target: Iterable[Constraint]) -> Iterator[Problem]:
    """What a client would not understand hides the record from everybody."""
    for number, it in enumerate(target):
        kind, numeric = FIELDS.get(it.field), it.op in ("gte", "lte")
        at = f"{where}[{number}]"
        if kind is None:
            yield entry.problem(f"{at}.field", f"must be one of {', '.join(FIELDS)}")
        elif it.op not in OPERATORS:
            yield entry.problem(f"{at}.op", f"must be one of {', '.join(sorted(OPERATORS))}")
        elif any(type(value) is not kind for value in it.values):
            yield entry.problem(f"{at}.values", f"must be {'whole numbers' if kind is int else 'text'}")
        elif numeric and kind is not int:
            yield entry.problem(f"{at}.op", f"{it.op} is for numbers, and {it.field} is text")
        elif (numeric or it.op.startswith("semver")) and len(it.values) != 1:
            yield entry.problem(f"{at}.values", f"must be one value for {it.op}")


def _changed(held: Workspace, published: Mapping[str, Experiment]) -> Iterator[Problem]:
    """An experiment that clients take part in stays what it is."""
    for id, before in sorted(published.items()):
        entry = held.entries["flags"].get(id)
        if entry is None or not isinstance(entry.value, Experiment):
            if before.state != "ended":
                reason = f"the experiment {id} is published as {before.state}: publish it as ended before removing it"
                yield Problem(f"experiments/{id}.toml", 0, "", reason)
            continue
        now = entry.value
        for name in ("branches", "salt", "metric", "target"):
            if getattr(now, name) != getattr(before, name):
                yield entry.problem(name, "cannot change once it is published: make another experiment")
        if now.state in _NOT_AFTER[before.state]:
            yield entry.problem("state", f"is published as {before.state}, and cannot be {now.state} again")


def _revocation_doubts(held: Workspace, entry: Entry, it: Revocation) -> Iterator[Problem]:
    if it.model and it.model not in held.entries["models"]:
        yield entry.problem("model", f"there is no model {it.model}")
    for id, model in _all(held, "models"):
        if it.sha256 and any(file.sha256 == it.sha256 for file in model.value.files):
            yield entry.problem("sha256", f"{id} still has this file")


def _whole(held: Workspace) -> Iterator[Problem]:
    if not held.entries["models"]:
        yield Problem("models", 0, "", "there is no model")
    slots = [entry for _, entry in _all(held, "featured")]
    shown = {branch.slot for it in held.values("flags") if isinstance(it, Experiment) for branch in it.branches}
    if all(entry.value.target for entry in slots):
        yield Problem("featured", 0, "", "there is no list for those whom no target matches")
    seen: dict[int, str] = {}
    for entry in slots:
        if not entry.value.target and entry.value.id not in shown:
            other = seen.setdefault(entry.value.priority, entry.value.id)
            if other != entry.value.id:
                yield entry.problem("priority", f"is that of {other}, which is for everybody too and is shown instead")
