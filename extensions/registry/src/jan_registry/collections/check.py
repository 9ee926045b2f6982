"""Whether a record may be used: decoded strictly, and held against the rules that its type alone cannot say.

The one gate for records from anywhere: a hub's snapshot or delta, another catalogue, an operator's folder. Fields that
this program does not know are passed over, so that records may grow; what they hold must still be plain data. It does
not look beyond one record: whether ids are unique, or name something, is the business of whoever has all of them.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, overload
from urllib.parse import urlsplit

import msgspec

from .constraint import Constraint
from .experiment import Experiment
from .featured import Slot
from .flag import Flag, FlagRecord, Rule
from .record import File, FileSource, Pieces, Record, Variant
from .revocation import Revocation
from .stats import Stats

__all__ = ["MAX_BYTES", "check"]

MAX_BYTES = 256 << 10
"""The largest record, as it comes."""
_MAX_DEPTH = 12
_ID = re.compile(r"[a-z0-9_](?:[a-z0-9._:@+/-]{0,126}[a-z0-9_])?")
_PART = re.compile(r"[a-z0-9_](?:[a-z0-9._+-]{0,126}[a-z0-9_])?")
_FILE = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._+() -]{0,198}[A-Za-z0-9_)])?")
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REPOSITORY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}(?:/[A-Za-z0-9_][A-Za-z0-9._-]{0,95})?")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,127}")
_RANGE = re.compile(r"(?:>=|<=|==|!=|>|<) ?[0-9A-Za-z][0-9A-Za-z.+-]*")
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
# Control characters but tab and line feed; what turns the direction of text around; halves of a surrogate pair.
_HIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_BREAKS = re.compile(r"[\t\n\u2028\u2029]")
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
    form, rules = kind
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
    rules(value)
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


def _model(it: Record) -> None:
    _match("id", it.id, _ID, _ID_RULE)
    if it.schema != 1:
        raise ValueError("schema: this program reads 1")
    _line("name", it.name, 200, required=True)
    _text("description", it.description, 4000)
    for what in ("publisher", "license", "arch"):
        _line(what, getattr(it, what), 200)
    if it.gated not in ("", "auto", "manual"):
        raise ValueError("gated: must be auto or manual, or absent")
    _whole("params", it.params)
    _whole("ctx", it.ctx)
    for what in ("modalities", "caps", "tags"):
        _few(what, getattr(it, what), 64)
        for number, text in enumerate(getattr(it, what)):
            _line(f"{what}[{number}]", text, 64, required=True)
    _few("files", it.files, 2048)
    for number, file in enumerate(it.files):
        _file(f"files[{number}]", file)
    _distinct("files", "path", (file.path.lower() for file in it.files))
    _few("variants", it.variants, 512)
    for number, variant in enumerate(it.variants):
        _variant(f"variants[{number}]", variant, len(it.files))
    _distinct("variants", "id", (variant.id for variant in it.variants))
    _few("publisher_sig", it.publisher_sig, 16)
    for key, text in it.publisher_sig.items():
        _line("publisher_sig", key, 64, required=True)
        _line(f"publisher_sig.{key}", text, 4096)
        if key == "url":
            _url("publisher_sig.url", text)
    if it.requires:
        _few("requires.engine", it.requires.engine, 32)
        if it.requires.app:
            _range("requires.app", it.requires.app)
        for key, text in it.requires.engine.items():
            _match("requires.engine", key, _PART, _PART_RULE)
            _range(f"requires.engine.{key}", text)
    _target("target", it.target)
    if it.deprecated:
        _date("deprecated.since", it.deprecated.since)
        if it.deprecated.replaced_by:
            _match("deprecated.replaced_by", it.deprecated.replaced_by, _ID, _ID_RULE)
        _line("deprecated.reason", it.deprecated.reason, 500)


def _file(where: str, it: File) -> None:
    if not _FILE.fullmatch(it.path) or _DEVICE.fullmatch(it.path):
        raise ValueError(f"{where}.path: must be a plain file name")
    _line(f"{where}.role", it.role, 32, required=True)
    _whole(f"{where}.size", it.size)
    if it.sha256:
        _match(f"{where}.sha256", it.sha256, _SHA256, _SHA256_RULE)
    if it.pieces:
        _pieces(f"{where}.pieces", it.pieces, it.size)
    _few(f"{where}.sources", it.sources, 32)
    for number, source in enumerate(it.sources):
        _source(f"{where}.sources[{number}]", source)


def _pieces(where: str, it: Pieces, size: int) -> None:
    if not 1 << 16 <= it.len <= 1 << 30:
        raise ValueError(f"{where}.len: must be 64 KiB to 1 GiB")
    if size == 0 or it.n != -(-size // it.len):
        raise ValueError(f"{where}.n: must be the file's size in pieces of {it.len} bytes")
    _match(f"{where}.sha256", it.sha256, _SHA256, _SHA256_RULE)
    if it.target != f"pieces/{it.sha256}.bin":
        raise ValueError(f"{where}.target: must be pieces/<its sha256>.bin")


def _source(where: str, it: FileSource) -> None:
    _match(f"{where}.kind", it.kind, _PART, _PART_RULE)
    if it.kind in ("hf", "modelscope"):
        _match(f"{where}.repo", it.repo, _REPOSITORY, "must be a repository, owner/name")
        _match(f"{where}.rev", it.rev, _REVISION, "must be a commit, or a branch or tag")
        parts = it.path.split("/")
        if "\\" in it.path or ".." in it.rev or any(part in ("", ".", "..") for part in parts):
            raise ValueError(f"{where}.path: must be a path inside the repository")
    if it.kind == "oci":
        _match(f"{where}.ref", it.ref, _PRINTABLE, "must be a reference")
    if it.kind == "https" or it.url:
        _url(f"{where}.url", it.url)
    for what in ("repo", "rev", "path", "ref", "xet"):
        _line(f"{where}.{what}", getattr(it, what), 1024)


def _variant(where: str, it: Variant, files: int) -> None:
    _match(f"{where}.id", it.id, _PART, _PART_RULE)
    _line(f"{where}.format", it.format, 32, required=True)
    _line(f"{where}.quant", it.quant, 64)
    _whole(f"{where}.ram_bytes", it.ram_bytes)
    _whole(f"{where}.vram_bytes", it.vram_bytes)
    if not it.files or len(set(it.files)) < len(it.files):
        raise ValueError(f"{where}.files: must name at least one file, and none twice")
    if not all(0 <= index < files for index in it.files):
        raise ValueError(f"{where}.files: must be places in the list of {files} files, counted from 0")


def _slot(it: Slot) -> None:
    _match("id", it.id, _ID, _ID_RULE)
    _line("title", it.title, 200)
    _few("models", it.models, 1000)
    for number, model in enumerate(it.models):
        _match(f"models[{number}]", model, _ID, _ID_RULE)
    _distinct("models", "id", it.models)
    _target("target", it.target)


def _flag_record(it: FlagRecord) -> None:
    _match("id", it.id, _ID, _ID_RULE)
    _line("salt", it.salt, 128)
    if isinstance(it, Flag):
        _value("value", it.value)
        _few("rules", it.rules, 64)
        for number, rule in enumerate(it.rules):
            _rule(f"rules[{number}]", rule)
    else:
        _experiment(it)


def _rule(where: str, it: Rule) -> None:
    _value(f"{where}.value", it.value)
    _percent(f"{where}.percent", it.percent)
    _target(f"{where}.target", it.target)


def _experiment(it: Experiment) -> None:
    _line("title", it.title, 200)
    if not 2 <= len(it.branches) <= 16:
        raise ValueError("branches: must be 2 to 16")
    for number, branch in enumerate(it.branches):
        _match(f"branches[{number}].id", branch.id, _PART, _PART_RULE)
        if branch.slot:
            _match(f"branches[{number}].slot", branch.slot, _ID, _ID_RULE)
        if not 1 <= branch.ratio <= 1000:
            raise ValueError(f"branches[{number}].ratio: must be 1 to 1000")
    _distinct("branches", "id", (branch.id for branch in it.branches))
    _percent("percent", it.percent)
    _target("target", it.target)
    if it.state not in ("running", "paused", "ended"):
        raise ValueError("state: must be running, paused or ended")
    if it.metric not in ("download", "load", "chat"):
        raise ValueError("metric: must be download, load or chat")


def _revocation(it: Revocation) -> None:
    _match("id", it.id, _ID, _ID_RULE)
    _line("reason", it.reason, 500, required=True)
    if not it.sha256 and not it.model:
        raise ValueError("sha256: must be there, or model")
    if it.sha256:
        _match("sha256", it.sha256, _SHA256, _SHA256_RULE)
    if it.model:
        _match("model", it.model, _ID, _ID_RULE)
    _date("at", it.at)


def _stats(it: Stats) -> None:
    _match("id", it.id, _ID, _ID_RULE)
    _whole("downloads", it.downloads)
    _whole("likes", it.likes)


def _target(where: str, constraints: list[Constraint]) -> None:
    _few(where, constraints, 32)
    for number, it in enumerate(constraints):
        _line(f"{where}[{number}].field", it.field, 64, required=True)
        _line(f"{where}[{number}].op", it.op, 64, required=True)
        if not 1 <= len(it.values) <= 256:
            raise ValueError(f"{where}[{number}].values: must be 1 to 256")
        for value in it.values:
            _value(f"{where}[{number}].values", value)


def _value(where: str, value: bool | int | str) -> None:
    if isinstance(value, str):
        _line(where, value, 500)


def _match(where: str, value: str, pattern: re.Pattern[str], rule: str) -> None:
    if not pattern.fullmatch(value) or (pattern is _ID and (".." in value or "//" in value)):
        raise ValueError(f"{where}: {rule}")


def _line(where: str, value: str, limit: int, *, required: bool = False) -> None:
    if required and not value.strip():
        raise ValueError(f"{where}: must not be empty")
    _text(where, value, limit)
    if _BREAKS.search(value):
        raise ValueError(f"{where}: must be one line")


def _text(where: str, value: str, limit: int) -> None:
    if len(value) > limit:
        raise ValueError(f"{where}: longer than {limit} characters")


def _whole(where: str, value: int) -> None:
    if value < 0:
        raise ValueError(f"{where}: must be 0 or more")


def _percent(where: str, value: int) -> None:
    if not 0 <= value <= 100:
        raise ValueError(f"{where}: must be 0 to 100")


def _few(where: str, values: list[Any] | dict[str, Any], limit: int) -> None:
    if len(values) > limit:
        raise ValueError(f"{where}: more than {limit}")


def _distinct(where: str, what: str, values: Iterable[str]) -> None:
    listed = list(values)
    if len(set(listed)) < len(listed):
        raise ValueError(f"{where}: two have the same {what}")


def _range(where: str, value: str) -> None:
    if len(value) > 200 or not all(_RANGE.fullmatch(part.strip()) for part in value.split(",")):
        raise ValueError(f"{where}: must be a range of versions, such as >=0.3 or >=0.3,<2")


def _date(where: str, value: str) -> None:
    if not value:
        return
    try:
        fits = datetime.date.fromisoformat(value).isoformat() == value
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"{where}: must be a date, such as 2026-01-31")


def _url(where: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"{where}: cannot be read") from None
    host = parts.hostname or ""
    safe = parts.scheme == "https" or (parts.scheme == "http" and host in ("127.0.0.1", "::1", "localhost"))
    clean = _PRINTABLE.fullmatch(url) and len(url) <= 4096 and port != 0
    if not (safe and clean and host and parts.username is None and parts.password is None):
        raise ValueError(f"{where}: must be https, without credentials in it")


def _shown(text: str, limit: int) -> str:
    return "".join(c if c.isprintable() else "\ufffd" for c in text[:limit]) or '""'


_ID_RULE = "must be 1 to 128 lower-case letters, digits and . _ : @ + / -"
_PART_RULE = "must be 1 to 128 lower-case letters, digits and . _ + -"
_SHA256_RULE = "must be 64 lower-case hexadecimal digits"
_FORMS: dict[str, tuple[Any, Callable[[Any], None]]] = {
    "models": (Record, _model),
    "featured": (Slot, _slot),
    "flags": (FlagRecord, _flag_record),
    "revocations": (Revocation, _revocation),
    "stats": (Stats, _stats),
}
