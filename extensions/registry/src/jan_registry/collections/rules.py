"""What the records of the other collections must hold beyond their types. Raises ValueError with field and reason."""

from __future__ import annotations

from . import fields
from .experiment import Experiment
from .featured import Slot
from .flag import Flag, FlagRecord, Rule
from .revocation import Revocation
from .stats import Stats

__all__ = ["flag_record", "revocation", "slot", "stats"]


def slot(it: Slot) -> None:
    fields.identifier("id", it.id)
    fields.line("title", it.title, 200)
    fields.few("models", it.models, 1000)
    for number, model in enumerate(it.models):
        fields.identifier(f"models[{number}]", model)
    fields.distinct("models", "id", it.models)
    fields.target("target", it.target)


def flag_record(it: FlagRecord) -> None:
    fields.identifier("id", it.id)
    fields.line("salt", it.salt, 128)
    if isinstance(it, Flag):
        fields.value("value", it.value)
        fields.few("rules", it.rules, 64)
        for number, rule in enumerate(it.rules):
            _rule(f"rules[{number}]", rule)
    else:
        _experiment(it)


def _rule(where: str, it: Rule) -> None:
    fields.value(f"{where}.value", it.value)
    fields.percent(f"{where}.percent", it.percent)
    fields.target(f"{where}.target", it.target)


def _experiment(it: Experiment) -> None:
    fields.line("title", it.title, 200)
    if not 2 <= len(it.branches) <= 16:
        raise ValueError("branches: must be 2 to 16")
    for number, branch in enumerate(it.branches):
        fields.part(f"branches[{number}].id", branch.id)
        if branch.slot:
            fields.identifier(f"branches[{number}].slot", branch.slot)
        if not 1 <= branch.ratio <= 1000:
            raise ValueError(f"branches[{number}].ratio: must be 1 to 1000")
    fields.distinct("branches", "id", (branch.id for branch in it.branches))
    fields.percent("percent", it.percent)
    fields.target("target", it.target)
    if it.state not in ("running", "paused", "ended"):
        raise ValueError("state: must be running, paused or ended")
    if it.metric not in ("download", "load", "chat"):
        raise ValueError("metric: must be download, load or chat")


def revocation(it: Revocation) -> None:
    fields.identifier("id", it.id)
    fields.line("reason", it.reason, 500, required=True)
    if not it.sha256 and not it.model:
        raise ValueError("sha256: must be there, or model")
    if it.sha256:
        fields.sha256("sha256", it.sha256)
    if it.model:
        fields.identifier("model", it.model)
    fields.date("at", it.at)


def stats(it: Stats) -> None:
    fields.identifier("id", it.id)
    fields.whole("downloads", it.downloads)
    fields.whole("likes", it.likes)
