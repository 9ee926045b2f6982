"""A Kinto collection as a source: a Remote Settings server whose records have the form of our collection `models`.

Read as Remote Settings' client specification says: a changeset, then only what changed since (`_since`), tombstones
taken out, `Backoff` heeded (`http.py` does). With the option `root_hash` the whole collection must be signed by
someone whose certificate leads to that root; else nobody vouches for it. It writes nothing and keeps nothing itself.

Kinto's own ids cannot hold `/` or `:`; a record may have its id here in a field `model`.
"""

from __future__ import annotations

from typing import Any, ClassVar
from urllib.parse import urlencode, urljoin

import anyio.to_thread
import msgspec
from msgspec import Struct, field

from jan_core import InvalidParams
from jan_core.types import ModelRecord, SourcePage, SourceQuery

from ..collections import canonical
from ..collections.check import check
from ..convert import to_model
from ..settings import SourceSetting
from .base import Capability, HubClient
from .content_signature import SIGNER, SignatureInvalid, root_hash, signed_bytes, verify
from .errors import HubInvalid
from .http import Answer, Http
from .paging import few, page_of

__all__ = ["KintoHub"]

_MAX_BODY = 32 << 20
_MAX_RECORDS = 20_000
_SERVER_S_OWN = ("last_modified", "model", "attachment", "deleted")
_A_TIMESTAMP = 10**12


class _Signature(Struct):
    signature: str
    x5u: str
    mode: str = "p384ecdsa"


class _Metadata(Struct):
    signatures: list[_Signature] = field(default_factory=list)
    signature: _Signature | None = None


class Changeset(Struct):
    """What the server says: `changes` since then (or all there is), and when the last one was (milliseconds)."""

    changes: list[dict[str, Any]]
    timestamp: int
    metadata: _Metadata = field(default_factory=_Metadata)


class KintoHub(HubClient):
    """`url`: that of the collection, `…/v1/buckets/B/collections/C`. Options: `root_hash`, the SHA-256 of the root
    certificate that is trusted; `signer`, the name in the signer's certificate (Mozilla's, if not said)."""

    kind: ClassVar[str] = "kinto"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"list", "search", "get", "pinned"})

    def __init__(self, setting: SourceSetting, http: Http) -> None:
        super().__init__(setting, http)
        try:
            self.root = root_hash(setting.options["root_hash"]) if "root_hash" in setting.options else b""
        except ValueError as error:
            raise InvalidParams(f"the source {setting.id!r}: {error}", path="$.sources") from None
        self.signer = setting.options.get("signer", SIGNER)

    async def answer(self, query: SourceQuery) -> SourcePage:
        records, answer = await self._collection()
        models, notes = await anyio.to_thread.run_sync(self._models, records)
        page = page_of(models, query, self.limit(query))
        page.notes, page.age, page.stale = few(notes), answer.age, answer.from_cache == "stale"
        return page

    async def _collection(self) -> tuple[list[dict[str, Any]], Answer[Changeset]]:
        """All records, in the order of their ids: what was had whole, and what has changed since.

        Where the two together are not what was signed, the whole is asked for once more.
        """
        whole = await self._ask({"_expected": "0"}, whole=True)
        base = whole.value
        if base is None:
            raise HubInvalid(f"{self.title}: there is no such collection", source=self.id)
        since = await self._ask({"_expected": "0", "_since": f'"{base.timestamp}"'}, whole=False)
        delta = since.value
        if delta is None or delta.timestamp < base.timestamp:
            raise HubInvalid(f"{self.title}: the collection goes back to an older state", source=self.id)
        records = _merged([*base.changes, *delta.changes])
        try:
            await self._verify(records, delta)
        except SignatureInvalid:
            again = await self._ask({"_expected": str(delta.timestamp)}, whole=True)
            if again.value is None or again.value.timestamp < delta.timestamp:
                raise HubInvalid(f"{self.title}: the collection goes back to an older state", source=self.id) from None
            records = _merged(again.value.changes)
            try:
                await self._verify(records, again.value)
            except SignatureInvalid as error:
                raise HubInvalid(f"{self.title}: {error}", source=self.id) from None
            return records, again
        return records, since

    async def _ask(self, params: dict[str, str], *, whole: bool) -> Answer[Changeset]:
        return await self.http.get(
            f"{self.url}/changeset?{urlencode(params)}",
            hub=self.id,
            kind="base" if whole else "search",
            decode=_changeset,
            token=self.token(),
            limit=_MAX_BODY,
        )

    async def _verify(self, records: list[dict[str, Any]], changeset: Changeset) -> None:
        """Hold the records against the signatures that came with them: one that fits is enough, so that keys can be
        exchanged. Raises SignatureInvalid with the last one's reason."""
        if not self.root:
            return
        content = await anyio.to_thread.run_sync(signed_bytes, records, changeset.timestamp)
        signatures = changeset.metadata.signatures or [one for one in [changeset.metadata.signature] if one is not None]
        reason = "it is not signed"
        for one in signatures[:8]:
            if one.mode != "p384ecdsa":
                reason = f"signed in a way that is not known here ({one.mode[:40]})"
                continue
            chain = await self.http.get(
                urljoin(f"{self.url}/", one.x5u), hub=self.id, decode=_chain, accept="*/*", limit=256 << 10
            )
            if chain.value is None:
                reason = "the signer's certificates are not there"
                continue
            try:
                verify(content, one.signature, chain.value, root=self.root, signer=self.signer, now=self.http.now())
            except SignatureInvalid as error:
                reason = str(error)
                continue
            return
        raise SignatureInvalid(reason)

    def _models(self, records: list[dict[str, Any]]) -> tuple[list[ModelRecord], list[str]]:
        models: dict[str, ModelRecord] = {}
        notes = []
        for record in records:
            id = str(record["id"])[:100]
            try:
                model = to_model(
                    check("models", canonical(_ours(record))),
                    hub_url=self.url,
                    source=self.id,
                    verification="verified" if self.root else "unverified",
                )
                if model.id in models:
                    raise ValueError("id: another record has it")
                models[model.id] = model
            except (ValueError, TypeError, RecursionError) as error:
                notes.append(f"{id}: {error}")
        return list(models.values()), notes


def _changeset(body: bytes) -> Changeset:
    changeset = msgspec.json.decode(body, type=Changeset)
    if len(changeset.changes) > _MAX_RECORDS:
        raise ValueError(f"more than {_MAX_RECORDS} records")
    if not all(isinstance(change.get("id"), str) for change in changeset.changes):
        raise ValueError("a record has no id")
    return changeset


def _chain(body: bytes) -> bytes:
    if b"-----BEGIN CERTIFICATE-----" not in body:
        raise ValueError("no certificates in PEM")
    return body


def _merged(changes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    records: dict[str, dict[str, Any]] = {}
    for change in changes:
        if change.get("deleted") is True:
            records.pop(change["id"], None)
        else:
            records[change["id"]] = change
    return [records[id] for id in sorted(records)]


def _ours(record: dict[str, Any]) -> dict[str, Any]:
    """The record without what the server put in: `schema` there is the time of the form it was held against."""
    ours = {key: value for key, value in record.items() if key not in _SERVER_S_OWN}
    if isinstance(record.get("model"), str):
        ours["id"] = record["model"]
    if isinstance(record.get("schema"), int) and record["schema"] > _A_TIMESTAMP:
        del ours["schema"]
    return ours
