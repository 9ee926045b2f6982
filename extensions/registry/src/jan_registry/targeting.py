"""For whom something is meant: constraints held against what is known of this machine and person.

Pure: no clock, no disk, no network. Nothing here raises and nothing is sent: what a constraint says that this program
does not understand does not match, so that it stays hidden. Where somebody is comes from their choice or their locale,
never from an address on the network.

Facts, all optional; one that is missing is unknown, and no constraint on it matches, `not_in` included:

=====================  =====================================================================================
`locale`               a BCP 47 tag, `zh-Hans-CN`
`region`               ISO 3166-1, `CN`
`os`, `arch`           `linux`, `macos`, `windows`; `x86_64`, `arm64`
`memory_total`         bytes, as `memory_free` and `device_memory_free`, which change while they are looked at
`app_version`          a version, `0.3.1`
=====================  =====================================================================================

Operators: `in` and `not_in` compare text regardless of case and whole numbers by value; locales match as RFC 4647
says (extended filtering): `zh` is every Chinese, `zh-CN` is zh-CN and zh-Hans-CN, but not plain zh. `gte` and `lte`
take one whole number. `semver_gte` and `semver_lt` take one version; what follows a `+` does not count, and a
pre-release comes before its release. A constraint with a value that cannot be compared with the fact, or with none,
does not match.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jan_core.types import ModelContext

from .collections import Constraint

if TYPE_CHECKING:
    from packaging.version import Version

__all__ = ["FIELDS", "OPERATORS", "Facts", "facts_of", "matches"]

Facts = dict[str, str | int]

FIELDS: dict[str, type] = {
    "locale": str,
    "region": str,
    "os": str,
    "arch": str,
    "app_version": str,
    "memory_total": int,
    "memory_free": int,
    "device_memory_free": int,
}
"""What can be asked for, and of which type its values are."""
OPERATORS = frozenset({"in", "not_in", "gte", "lte", "semver_gte", "semver_lt"})

LOCALE = re.compile(r"[a-z0-9]{1,8}(-[a-z0-9]{1,8})*")
RANGE = re.compile(r"(\*|[a-z0-9]{1,8})(-(\*|[a-z0-9]{1,8}))*")


def matches(target: Sequence[Constraint], facts: Facts) -> bool:
    """Whether all constraints hold; an empty target is for everybody."""
    return all(_holds(constraint, facts.get(constraint.field)) for constraint in target)


def facts_of(context: ModelContext, region: str = "", *, app_version: str = "") -> Facts:
    """What is known from `context`. `region` is what the person chose, which comes before what the caller or the locale
    says; `app_version` counts where the context names none."""
    locale = _tag(context.locale)
    known: Facts = {
        "locale": locale,
        "region": region or context.region or _region(locale),
        "os": context.os,
        "arch": context.arch,
        "app_version": context.app_version or app_version,
        "memory_total": context.memory_total,
        "memory_free": context.memory_free,
        "device_memory_free": context.device_memory_free,
    }
    return {name: value for name, value in known.items() if value}


def _holds(constraint: Constraint, fact: str | int | None) -> bool:
    values = constraint.values
    kind = FIELDS.get(constraint.field)
    if fact is None or type(fact) is not kind or not values or any(type(value) is not kind for value in values):
        return False
    match constraint.op:
        case "in":
            return _among(constraint.field, fact, values) is True
        case "not_in":
            return _among(constraint.field, fact, values) is False
        case "gte" | "lte" if len(values) == 1 and isinstance(fact, int) and isinstance(values[0], int):
            return fact >= values[0] if constraint.op == "gte" else fact <= values[0]
        case "semver_gte" | "semver_lt" if len(values) == 1:
            mine, theirs = _version(fact), _version(values[0])
            if mine is None or theirs is None:
                return False
            return mine >= theirs if constraint.op == "semver_gte" else mine < theirs
    return False


def _among(field: str, fact: str | int, values: Sequence[str | int]) -> bool | None:
    """Whether one of the values is the fact; None when they cannot be compared."""
    if not isinstance(fact, str):
        return fact in values
    texts = [str(value).lower() for value in values]
    if field != "locale":
        return fact.lower() in texts
    tag = _tag(fact).lower()
    if not tag or not all(RANGE.fullmatch(text) for text in texts):
        return None
    return any(_in_range(text.split("-"), tag.split("-")) for text in texts)


def _in_range(range_: list[str], tag: list[str]) -> bool:
    """Extended filtering, RFC 4647 section 3.3.2; both in lower case."""
    if range_[0] not in ("*", tag[0]):
        return False
    rest = iter(tag[1:])
    for wanted in range_[1:]:
        if wanted == "*":
            continue
        for subtag in rest:
            if subtag == wanted:
                break
            if len(subtag) == 1:  # what follows belongs to an extension or is private
                return False
        else:
            return False
    return True


def _tag(locale: str) -> str:
    """A locale as the operating system (`pt_BR.UTF-8`) or a browser (`pt-BR`) names it, as a BCP 47 tag; "" if it is
    none."""
    tag = re.split(r"[.@]", locale, maxsplit=1)[0].replace("_", "-")
    return tag if LOCALE.fullmatch(tag.lower()) and tag.lower() not in ("c", "posix") else ""


def _region(tag: str) -> str:
    """The region a tag names; "" if it names none, or a part of the world (`es-419`)."""
    for subtag in tag.split("-")[1:]:
        if len(subtag) == 1:
            break
        if len(subtag) == 2 and subtag.isalpha():
            return subtag.upper()
    return ""


def _version(value: str | int) -> Version | None:
    from packaging.version import Version

    text = str(value)
    if len(text) > 100:
        return None
    try:
        return Version(text.partition("+")[0])
    except ValueError:
        return None
