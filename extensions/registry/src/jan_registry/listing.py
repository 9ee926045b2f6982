"""One state of a list: what it recommends, what it knows, what it revokes, and who vouches for it.

Replaced as a whole when the state behind it changes, never changed in place. It reads a verified store or what was
shipped with the program; it does not know the network, phases, or who asks.
"""

from __future__ import annotations

import copy
import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec
from msgspec import Struct

from jan_core.types import DownloadFile, DownloadSource, ModelRecord

from .collections import COLLECTIONS, Experiment, Record
from .collections.check import check
from .search import find, scan
from .shapes import Origin, Provenance, rfc3339
from .signed.store import CollectionState, HubStore
from .signed.verification import Verification, vouch
from .targeting import Facts, matches

if TYPE_CHECKING:
    from .flags.rules import FlagList
    from .revocations import Revocations

__all__ = ["BuiltinListing", "Kept", "Listing", "Nothing", "SignedListing", "states_of"]

_CACHED = 4096
_PART, _PAUSE = 50, 0.001
"""How many records are looked at in the background before others have their turn, and for how many seconds."""


class Kept(Protocol):
    """Where a signed listing reads: a hub's store, or the snapshot shipped with the program."""

    def state(self, name: str) -> CollectionState | None: ...
    def get(self, name: str, id: str) -> bytes | None: ...
    def records(self, name: str) -> list[bytes]: ...


class Listing(Protocol):
    """What both arms of the roll-out can do. Everything may read a disk, but never the network."""

    @property
    def arm(self) -> Literal["dynamic", "builtin"]: ...

    def featured(self, facts: Facts, slot: str = "") -> list[ModelRecord]:
        """What is recommended to whom `facts` describes, best first; `slot` is shown instead where there is one."""
        ...

    def get(self, id: str) -> ModelRecord | None: ...
    def search(self, text: str, limit: int, offset: int) -> tuple[list[ModelRecord], int]: ...
    def count(self) -> int: ...
    def provenance(self, now: float) -> Provenance: ...
    def verification(self, now: float, name: str = "models") -> Verification: ...
    def sources(self, sha256: str) -> list[DownloadSource]:
        """Places where the file of this hash can be had."""
        ...

    def models_with(self, sha256: str) -> list[str]:
        """The ids of the models that have the file of this hash."""
        ...


class Nothing:
    """A hub that was never had: what the phase `dynamic` serves where nothing was shipped either."""

    def state(self, name: str) -> CollectionState | None:
        return None

    def get(self, name: str, id: str) -> bytes | None:
        return None

    def records(self, name: str) -> list[bytes]:
        return []


class BuiltinListing(Struct, frozen=True):
    """The hard-coded list, as the extensions gave it."""

    models: list[ModelRecord]
    arm: Literal["builtin"] = "builtin"

    def featured(self, facts: Facts, slot: str = "") -> list[ModelRecord]:
        return [model for model in self.models if model.featured]

    def get(self, id: str) -> ModelRecord | None:
        return next((model for model in self.models if model.id == id), None)

    def search(self, text: str, limit: int, offset: int) -> tuple[list[ModelRecord], int]:
        found = scan(self.models, text)
        return found[offset : offset + limit], len(found)

    def count(self) -> int:
        return len(self.models)

    def provenance(self, now: float) -> Provenance:
        return Provenance("builtin", "builtin")

    def verification(self, now: float, name: str = "models") -> Verification:
        return Verification("builtin")

    def sources(self, sha256: str) -> list[DownloadSource]:
        return []

    def models_with(self, sha256: str) -> list[str]:
        return _with_file(self.models, sha256)


class SignedListing:
    """What a hub signed, as it stood when this was made: `states` says so, per collection."""

    arm: Literal["dynamic"] = "dynamic"

    def __init__(self, kept: Kept, states: Mapping[str, CollectionState], origin: Origin, hub: str) -> None:
        from .flags.rules import read_flags
        from .revocations import Revocations

        self.states = states
        self.origin, self.hub = origin, hub
        self.revocations: Revocations = Revocations(kept.records("revocations"))
        flags = states.get("flags")
        self.flags: FlagList = read_flags(
            kept.records("flags"), expires_at=flags.expires_at if flags and origin != "bundle" else 0.0
        )
        self.unfit: dict[tuple[str, str], str] = {}
        """Records that `check` refuses, by collection and id, with its reason: as far as they were looked at."""
        self._swept = False
        slots = self._checked("featured", kept.records("featured"))
        self.slots = sorted(slots, key=lambda slot: (-slot.priority, slot.id))
        self.experiments: list[Experiment] = [
            each for each in self._checked("flags", kept.records("flags")) if isinstance(each, Experiment)
        ]
        self._kept = kept
        self._all: list[ModelRecord] | None = None
        self._featured = {id for slot in slots for id in slot.models}
        self._models: OrderedDict[str, ModelRecord | None] = OrderedDict()
        self._lock = threading.Lock()
        for id in sorted(self._featured)[:_CACHED]:
            self.get(id)  # whoever asks for what is featured waits for no disk

    def holds(self, states: Mapping[str, CollectionState]) -> bool:
        """Whether these are states of the same content."""
        return {name: each.sha256 for name, each in states.items()} == {
            name: each.sha256 for name, each in self.states.items()
        }

    def confirmed(self, states: Mapping[str, CollectionState], origin: Origin) -> SignedListing:
        """The same content, which its hub has vouched for again: nothing is read anew, and what is remembered stays."""
        again = copy.copy(self)
        again.states, again.origin = states, origin
        expires_at = float(states["flags"].expires_at) if "flags" in states else 0.0
        if expires_at != self.flags.expires_at:
            again.flags = dataclasses.replace(self.flags, expires_at=expires_at)
        return again

    def featured(self, facts: Facts, slot: str = "") -> list[ModelRecord]:
        chosen = next((s for s in self.slots if s.id == slot), None) if slot else None
        chosen = chosen or next((s for s in self.slots if matches(s.target, facts)), None)
        models = [self.get(id) for id in chosen.models] if chosen else []
        return [model for model in models if model is not None]

    def get(self, id: str) -> ModelRecord | None:
        with self._lock:
            if id in self._models:
                self._models.move_to_end(id)
                return self._models[id]
        data = self._kept.get("models", id)
        model = self._converted(id, data) if data is not None else None
        with self._lock:
            self._models[id] = model
            if len(self._models) > _CACHED:
                self._models.popitem(last=False)
        return model

    def search(self, text: str, limit: int, offset: int) -> tuple[list[ModelRecord], int]:
        if isinstance(self._kept, HubStore):
            with self._kept.db.read() as db:
                ids, total = find(db, text, limit, offset)
        else:
            matching = scan(self._whole(), text)
            ids, total = [m.id for m in matching[offset : offset + limit]], len(matching)
        models = [self.get(id) for id in ids]
        return [model for model in models if model is not None], total

    def count(self) -> int:
        state = self.states.get("models")
        return state.count - sum(name == "models" for name, _ in list(self.unfit)) if state else 0

    def provenance(self, now: float) -> Provenance:
        state = self.states.get("models")
        if state is None or self.origin == "bundle":
            return Provenance(self.origin, "dynamic", self.hub, state.seq if state else 0)
        age = round(max(0.0, now - state.checked_at), 3)
        return Provenance(self.origin, "dynamic", self.hub, state.seq, rfc3339(state.checked_at), age)

    def verification(self, now: float, name: str = "models") -> Verification:
        state = self.states.get(name)
        return vouch(state, now) if state is not None else Verification("unverified")

    def models_with(self, sha256: str) -> list[str]:
        """The ids of the models that have a file of this hash."""
        if isinstance(self._kept, HubStore):
            with self._kept.db.read() as db:
                found = db.execute("SELECT id FROM file WHERE sha256 = ? ORDER BY id", [sha256]).fetchall()
            return [id for (id,) in found if self.get(id) is not None]
        return [model.id for model in self._whole() if any(file.sha256 == sha256 for file in _files_of(model))]

    def sources(self, sha256: str) -> list[DownloadSource]:
        from .convert import download_sources

        found: dict[str, DownloadSource] = {}
        for id in self.models_with(sha256):
            data = self._kept.get("models", id)
            for file in check("models", data).files if data is not None else []:
                for source in download_sources(file) if file.sha256 == sha256 else ():
                    found.setdefault(source.url, source)
        return list(found.values())

    def sweep(self, ending: threading.Event) -> list[str]:
        """Look at every stored model, so that `unfit` knows all that are; their ids. For the background: some tenth of
        a millisecond each, in small parts, between which others have their turn, and `ending` may be set."""
        part = "SELECT id, data FROM record WHERE coll = 'models' AND id > ? ORDER BY id LIMIT ?"
        rows: list[tuple[str, bytes]] = [("", b"")]
        while isinstance(self._kept, HubStore) and rows:
            with self._kept.db.read() as db:
                rows = db.execute(part, [rows[-1][0], _PART]).fetchall()
            for id, data in rows:
                self._look_at(id, data)
            if ending.wait(_PAUSE):
                return []
        self._swept = True
        return sorted(id for name, id in self.unfit if name == "models")

    def _whole(self) -> list[ModelRecord]:
        """Every model of a list in memory."""
        if self._all is None:
            ids = [(msgspec.json.decode(data, type=_Named).id, data) for data in self._kept.records("models")]
            self._all = [model for id, data in ids if (model := self._converted(id, data)) is not None]
        return self._all

    def _known_fit(self, id: str, data: bytes) -> Record | None:
        """What was looked at already needs no second look, which takes longer than all the rest."""
        return None if ("models", id) in self.unfit else msgspec.json.decode(data, type=Record)

    def _look_at(self, id: str, data: bytes) -> Record | None:
        try:
            return check("models", data)
        except ValueError as error:
            self.unfit["models", id] = str(error)
            return None

    def _converted(self, id: str, data: bytes) -> ModelRecord | None:
        """A record as everybody else knows models; None for one that may not be used, or that this program cannot
        read: a hub may be newer."""
        from .convert import to_model

        record = self._known_fit(id, data) if self._swept else self._look_at(id, data)
        if record is None:
            return None
        model = to_model(record, hub_url=self.hub, source="registry", verification="verified")
        model.featured = model.id in self._featured
        return model

    def _checked(self, name: str, records: Sequence[bytes]) -> list[Any]:
        """Those of the records that may be used."""
        found = []
        for place, data in enumerate(records):
            try:
                found.append(check(name, data))
            except ValueError as error:
                self.unfit[name, str(place)] = str(error)
        return found


class _Named(Struct):
    """What every record has: it was stored by it."""

    id: str


def states_of(kept: Kept) -> dict[str, CollectionState]:
    """How each collection stands."""
    return {name: state for name in COLLECTIONS if (state := kept.state(name)) is not None}


def _with_file(models: Sequence[ModelRecord], sha256: str) -> list[str]:
    return [model.id for model in models if any(file.sha256 == sha256 for file in _files_of(model))]


def _files_of(model: ModelRecord) -> list[DownloadFile]:
    return [*model.files, *(file for variant in model.variants for file in variant.files)]
