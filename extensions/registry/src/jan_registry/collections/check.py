"""Whether a record may be used: decoded strictly, and held against the rules that its type alone cannot say.

The one gate for records from anywhere: a hub's snapshot or delta, another catalogue, an operator's folder. Fields that
this program does not know are passed over, so that records may grow; what they hold must still be plain data. It does
not look beyond one record: whether ids are unique, or name something, is the business of whoever has all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, overload

import msgspec

from . import model_rules, rules
from .featured import Slot
from .flag import FlagRecord
from .record import Record
from .revocation import Revocation
from .stats import Stats

__all__ = ["MAX_BYTES", "check"]

MAX_BYTES = 256 << 10
"""The largest record, as it comes."""
_MAX_DEPTH = 12
# Control characters but tab and line feed; what turns the direction of text around; halves of a surrogate pair.
_HIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_EXACT = 2**53


if TYPE_CHECKING:  # `overload` keeps what it decorates for ever, and with it every generation of this module

    @overload
    def check(name: Literal["models"], record: bytes) -> Record: ...
    @overload
    def check(name: Literal["featured"], record: bytes) -> Slot: ...
    @overload
    def check(name: Literal["flags"], record: bytes) -> FlagRecord: ...
    @overload
    def check(name: Literal["revocations"], record: bytes) -> Revocation: ...
    @overload
    def check(name: Literal["stats"], record: bytes) -> Stats: ...
    @overload
    def check(name: str, record: bytes) -> Record | Slot | FlagRecord | Revocation | Stats: ...


def check(name: str, record: bytes) -> Record | Slot | FlagRecord | Revocation | Stats:
    """A record of the collection `name`, which is one of `COLLECTIONS`, from its JSON.

    Raises ValueError, and nothing else, with `field: reason` in one line of printable text.
    """
    kind = _FORMS.get(name)
    if kind is None:
        raise ValueError(f"collection: must be one of {', '.join(_FORMS)}")
    if len(record) > MAX_BYTES:
        raise ValueError(f"record: larger than {MAX_BYTES} bytes")
    form, hold = kind
    try:
        data = msgspec.json.decode(record)
        _plain(data, "", 0)
        value = msgspec.convert(data, form)
    except msgspec.ValidationError as error:
        reason, _, where = str(error).partition(" - at `$")
        where = where.replace("[...]", "").strip(".`")
        raise ValueError(f"{where or 'record'}: {_shown(reason, 200)}") from None
    except msgspec.DecodeError as error:
        raise ValueError(f"record: not JSON: {_shown(str(error), 200)}") from None
    except RecursionError:
        raise ValueError("record: nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("record: not UTF-8") from None
    hold(value)
    return value  # type: ignore[no-any-return]


def _plain(value: Any, where: str, depth: int) -> None:
    """Whole numbers, strings, booleans, arrays and objects: what has one canonical form."""
    if isinstance(value, str):
        if _HIDDEN.search(value):
            raise ValueError(f"{where or 'record'}: has control characters, or such as change the direction of text")
    elif isinstance(value, dict):
        for key, item in value.items():
            inner = f"{where}.{_shown(key, 64)}".removeprefix(".")
            if _HIDDEN.search(key) or any(c > "\uffff" for c in key):
                raise ValueError(f"{inner}: a name must be of the Basic Multilingual Plane, without control characters")
            _deeper(item, inner, depth)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _deeper(item, f"{where}[{index}]", depth)
    elif isinstance(value, float):
        raise ValueError(f"{where or 'record'}: must be a whole number")
    elif isinstance(value, int) and not -_EXACT < value < _EXACT:
        raise ValueError(f"{where or 'record'}: must be exact in JSON (less than 2^53)")


def _deeper(value: Any, where: str, depth: int) -> None:
    if depth >= _MAX_DEPTH:
        raise ValueError(f"{where}: nested too deeply")
    _plain(value, where, depth + 1)


def _shown(text: str, limit: int) -> str:
    return "".join(c if c.isprintable() else "\ufffd" for c in text[:limit]) or '""'


_FORMS: dict[str, tuple[Any, Callable[[Any], None]]] = {
    "models": (Record, model_rules.model),
    "featured": (Slot, rules.slot),
    "flags": (FlagRecord, rules.flag_record),
    "revocations": (Revocation, rules.revocation),
    "stats": (Stats, rules.stats),
}
