"""The operator's edits, one function each: what is featured, flags, experiments, revocations, models.

They work on `Changes` and write nothing themselves; nor do they check what the folder's review checks anyway.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from jan_core import InvalidParams

from ..collections import Constraint, Experiment, Record, Revocation, Stats
from .changes import Changes, published_ids, to_toml
from .workspace import STATS

if TYPE_CHECKING:
    from tomlkit import TOMLDocument
    from tomlkit.items import Array

__all__ = ["end_experiment", "feature", "put_model", "put_stats", "revoke", "set_flag", "start_experiment"]

KEPT = ("name", "description", "tags", "target", "requires", "deprecated", "publisher_sig", "caps", "modalities")
"""Of a model that is there already, what a person may have written: another import does not replace it."""


def feature(
    changes: Changes,
    slot: str,
    models: Sequence[str],
    *,
    at: int | None = None,
    remove: bool = False,
    only: bool = False,
    title: str | None = None,
    priority: int | None = None,
    target: Sequence[Constraint] | None = None,
) -> list[str]:
    """Put models into a featured list at place `at` (from 1; None: at the end; those already in it move), take them off
    it, or let it be these `only`. A list that is not there is made. Returns the ids in it, best first."""
    file = changes.file_of("featured", slot)
    document = changes.document(file)
    if not document:
        document["id"] = slot
        document["models"] = _array([])
    listed: Array = document["models"]
    rest = [str(id) for id in listed if str(id) not in models]
    place = len(rest) if at is None else max(0, at - 1)
    wanted = rest if remove else [*models] if only else [*rest[:place], *models, *rest[place:]]
    _arrange(listed, wanted, models)
    for name, value in (("title", title), ("priority", priority)):
        if value is not None:
            document[name] = value
    if target is not None:
        _set_target(document, target)
    changes.put(file, document)
    return wanted


def set_flag(
    changes: Changes,
    id: str,
    value: bool | int | str,
    *,
    percent: int | None = None,
    target: Sequence[Constraint] = (),
    only: bool = False,
    remove: bool = False,
    salt: str | None = None,
) -> None:
    """Say what a flag is: for everybody, or, with `percent` or `target`, for those only.

    A rule with the same value and target gets another percentage; a new one is put before the others, since the first
    that matches decides. `only`: drop all rules; `remove`: drop this one. Raises InvalidParams.
    """
    import tomlkit

    file = changes.file_of("flags", id)
    document = changes.document(file)
    narrowed = percent is not None or bool(target)
    if narrowed and only:
        raise InvalidParams("a value for everybody has no percentage and no conditions", path="$.only")
    if not document:
        document["id"] = id
        if narrowed:
            reason = f"the flag {id} is new: say first what it is for everybody"
            raise InvalidParams(reason, path="$.value")
    rules: Any = document.get("rules", [])
    wanted = {"value": value, "target": _plain_target(target)}
    same = [place for place, rule in enumerate(rules) if _rule_of(rule) == wanted]
    if remove:
        if not same:
            raise InvalidParams(f"the flag {id} has no such rule", path="$.remove")
        for place in reversed(same):
            del rules[place]
    elif not narrowed:
        document["value"] = value
    elif same:
        rules[same[0]]["percent"] = 100 if percent is None else percent
    else:
        rule = tomlkit.table()
        rule["value"] = value
        rule["percent"] = 100 if percent is None else percent
        if target:
            _set_target(rule, target)
        _insert_first(document, "rules", rule)
    if only or ("rules" in document and not document["rules"]):
        document.pop("rules", None)
    if salt is not None:
        document["salt"] = salt
    changes.put(file, document)


def start_experiment(
    changes: Changes,
    id: str,
    branches: Sequence[tuple[str, str, int]],
    *,
    title: str | None = None,
    percent: int | None = None,
    target: Sequence[Constraint] | None = None,
    metric: str | None = None,
    salt: str | None = None,
) -> None:
    """Begin an experiment (`branches`: id, slot, ratio), or go on with a paused one, which needs none."""
    file = changes.file_of("experiments", id)
    document = changes.document(file)
    document.setdefault("id", id)
    fields = {"title": title, "state": "running", "percent": percent, "metric": metric, "salt": salt}
    for name, value in fields.items():
        if value is not None:
            document[name] = value
    if branches:
        document["branches"] = _array([_branch(*branch) for branch in branches])
    elif "branches" not in document:
        raise InvalidParams("a new experiment needs two branches at least", path="$.branches")
    if target is not None:
        _set_target(document, target)
    changes.put(file, document)


def end_experiment(changes: Changes, id: str, state: str) -> None:
    """`paused` or `ended`. Raises InvalidParams when there is no such experiment."""
    held = changes.held.entries["flags"].get(id)
    if held is None or not isinstance(held.value, Experiment):
        raise InvalidParams(f"there is no experiment {id}", path="$.id")
    document = changes.document(held.file)
    document["state"] = state
    changes.put(held.file, document)


def revoke(changes: Changes, *, sha256: str = "", model: str = "", reason: str, at: str, unknown: bool = False) -> str:
    """Revoke a file, a model or both; a model is taken off the featured lists too. Returns the revocation's id.

    Raises InvalidParams, also for a model that is neither in the folder nor published, unless `unknown` allows it: a
    slip of the pen would leave the bad one where it is.
    """
    if not sha256 and not model:
        raise InvalidParams("name a file by its sha256, or a model", path="$.model")
    if model and not unknown:
        _refuse_unknown(changes, model)
    for slot in list(changes.held.values("featured")) if model else ():
        if model in slot.models:
            feature(changes, slot.id, [model], remove=True)
    id = model or sha256[:16]
    record = Revocation(id=id, reason=reason, sha256=sha256, model=model, at=at)
    file = changes.file_of("revocations", id)
    changes.put(file, _document(changes.document(file), to_toml(record)))
    return id


def put_model(changes: Changes, record: Record, *, keep: Sequence[str] = KEPT) -> str:
    """Write a model's file; of one that is there, fields of `keep` stay where they say something. Returns the file."""
    file = changes.file_of("models", record.id)
    document = changes.document(file)
    plain = to_toml(record)
    if document:
        plain = {name: value for name, value in plain.items() if name not in keep or name not in document}
    changes.put(file, _document(document, plain))
    return file


def put_stats(changes: Changes, stats: Sequence[Stats]) -> None:
    """Write down models' numbers, beside those that are there."""
    document = changes.document(STATS)
    for one in stats:
        plain = to_toml(one)
        plain.pop("id")
        if one.id not in document or document[one.id].unwrap() != plain:
            document[one.id] = plain
    changes.put(STATS, document)


def _refuse_unknown(changes: Changes, model: str) -> None:
    held = changes.held
    known = {*held.entries["models"], *(it.model for it in held.values("revocations"))}
    if model in known:
        return
    known |= published_ids(held.tree, "models")
    if model not in known:
        near = ", ".join(difflib.get_close_matches(model, sorted(known), n=3))
        raise InvalidParams(
            f"there is no model {model} in the folder, nor is one published" + (f"; there is {near}" if near else ""),
            path="$.model",
            reason="unknown_model",
        )


def _document(document: TOMLDocument, plain: dict[str, Any]) -> TOMLDocument:
    """The document with these fields. What is the same stays as it is written."""
    import tomlkit

    for name, value in plain.items():
        if name in document and document[name].unwrap() == value:
            continue
        if isinstance(value, str) and "\n" in value:
            document[name] = tomlkit.string(value, multiline=True)
        else:
            document[name] = value
    return document


def _arrange(listed: Array, wanted: Sequence[str], moved: Collection[str]) -> None:
    """Bring an array to this order by taking out only what is `moved` or gone: the comments of the others stay."""
    if list(map(str, listed)) == wanted:
        return
    for place in reversed(range(len(listed))):
        if str(listed[place]) in moved or str(listed[place]) not in wanted:
            del listed[place]
    for place, id in enumerate(wanted):
        if place >= len(listed) or str(listed[place]) != id:
            listed.insert(place, id)


def _array(items: Sequence[Any]) -> Array:
    import tomlkit

    array = tomlkit.array()
    array.extend(items)
    return array.multiline(True)


def _branch(id: str, slot: str, ratio: int) -> Any:
    import tomlkit

    branch = tomlkit.inline_table()
    branch["id"] = id
    if slot:
        branch["slot"] = slot
    if ratio != 1:
        branch["ratio"] = ratio
    return branch


def _plain_target(target: Sequence[Constraint]) -> list[dict[str, Any]]:
    return [{"field": it.field, "op": it.op, "values": it.values} for it in target]


def _set_target(table: Any, target: Sequence[Constraint]) -> None:
    import tomlkit

    table.pop("target", None)
    if target:
        lines = []
        for plain in _plain_target(target):
            line = tomlkit.inline_table()
            line.update(plain)
            lines.append(line)
        table["target"] = _array(lines)


def _rule_of(rule: Any) -> dict[str, Any]:
    plain = rule.unwrap() if hasattr(rule, "unwrap") else dict(rule)
    return {"value": plain.get("value"), "target": plain.get("target", [])}


def _insert_first(document: Any, name: str, table: Any) -> None:
    import tomlkit

    rules = tomlkit.aot()
    rules.append(table)
    for rule in document.pop(name, []):
        rules.append(rule)
    document[name] = rules
