"""Three ways to keep a list up to date, each as a publisher and as a client: ours, the naive one, Remote Settings'.

A client is asked to `poll`: it finds out whether there is something new, and has it when it returns. What it has then
is held against what was published, so that none is quick by leaving something out.
"""

from __future__ import annotations

import gzip
import json
import sqlite3
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Protocol

import anyio.to_thread
import httpx
from catalogues import Catalogue
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from jan_registry.search import index
from jan_registry.signed.http import HttpFetch
from jan_registry.signed.store import HubStore
from jan_registry.signed.sync import sync
from kit import Kit, Site

__all__ = ["Client", "NaiveWay", "OurWay", "Ours", "RemoteSettingsWay", "Way"]


class Client(Protocol):
    """`models`: what it has, as a user of it would read it: id -> record. `received`: bytes of bodies so far, as they
    came."""

    @property
    def received(self) -> int: ...
    async def poll(self) -> None: ...
    def models(self) -> dict[str, Any]: ...
    async def close(self) -> None: ...


class Ours:
    """The signed client with its search index, by the host's kind of HTTP client."""

    def __init__(self, url: str, root: bytes, folder: Path) -> None:
        self._http = httpx.AsyncClient(timeout=300.0)
        self._fetch = HttpFetch(lambda: self._http, url, timeout=300.0)
        self._root, self._store = root, HubStore(folder)
        self.how: list[str] = []

    @property
    def received(self) -> int:
        return self._fetch.received

    async def poll(self, now: float | None = None) -> None:
        clock = time.time if now is None else lambda: now
        report = await anyio.to_thread.run_sync(
            lambda: sync(self._store, self._fetch, self._root, now=clock, on_models=index)
        )
        self.how = [one.how for one in report.collections if one.how != "unchanged"]

    def records(self, name: str) -> list[bytes]:
        """The canonical records it has of a collection."""
        return self._store.records(name)

    def models(self) -> dict[str, Any]:
        return {(model := json.loads(record))["id"]: model for record in self.records("models")}

    async def close(self) -> None:
        self._store.close()
        await self._http.aclose()


class Naive:
    """`httpx` and one JSON file: asked with its ETag, whole when it has changed, kept in memory and on the disk."""

    def __init__(self, url: str, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._http = httpx.AsyncClient(timeout=300.0)
        self._url, self._file, self._etag = url + "models.json", folder / "models.json", ""
        self._models: dict[str, Any] = {}
        self.received = 0

    async def poll(self) -> None:
        response = await self._http.get(self._url, headers={"If-None-Match": self._etag} if self._etag else {})
        self.received += response.num_bytes_downloaded
        if response.status_code == 304:
            return
        response.raise_for_status()
        self._models = {model["id"]: model for model in json.loads(response.content)["records"]}
        self._etag = response.headers["ETag"]
        draft = self._file.with_suffix(".new")
        draft.write_bytes(response.content)
        draft.replace(self._file)

    def models(self) -> dict[str, Any]:
        return self._models

    async def close(self) -> None:
        await self._http.aclose()


class RemoteSettings:
    """As Mozilla's Rust client does it: what changed since is put in SQLite, then the whole collection is read, written
    as canonical JSON, and its signature verified (ECDSA P-384). The signer's key is known already."""

    def __init__(self, url: str, key: ec.EllipticCurvePublicKey, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._http = httpx.AsyncClient(timeout=300.0)
        self._url, self._key, self._timestamp = url + "v1/buckets/", key, 0
        self.received = 0
        self._db = sqlite3.connect(folder / "records.db", isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("CREATE TABLE records (id TEXT PRIMARY KEY, data BLOB NOT NULL)")

    async def poll(self) -> None:
        since = f'&_since="{self._timestamp}"' if self._timestamp else ""
        monitor = await self._get(f"monitor/collections/changes/changeset?_expected=0{since}")
        for change in monitor["changes"]:
            expected = change["last_modified"]
            found = await self._get(f"main/collections/models/changeset?_expected={expected}{since}")
            self._apply(found)

    async def _get(self, path: str) -> dict[str, Any]:
        response = await self._http.get(self._url + path)
        self.received += response.num_bytes_downloaded
        response.raise_for_status()
        found: dict[str, Any] = json.loads(response.content)
        return found

    def _apply(self, found: dict[str, Any]) -> None:
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        for record in found["changes"]:
            if record.get("deleted"):
                db.execute("DELETE FROM records WHERE id = ?", [record["id"]])
            else:
                db.execute("INSERT OR REPLACE INTO records VALUES (?, ?)", [record["id"], json.dumps(record).encode()])
        db.execute("COMMIT")
        records = [json.loads(data) for (data,) in db.execute("SELECT data FROM records ORDER BY id")]
        signature = found["metadata"]["signatures"][0]["signature"]
        raw = bytes.fromhex(signature)
        numbers = int.from_bytes(raw[:48], "big"), int.from_bytes(raw[48:], "big")
        self._key.verify(encode_dss_signature(*numbers), signed(records, found["timestamp"]), ec.ECDSA(SHA384()))
        self._timestamp = found["timestamp"]

    def models(self) -> dict[str, Any]:
        found = {}
        for (data,) in self._db.execute("SELECT data FROM records"):
            record = json.loads(data)
            del record["last_modified"]
            found[record["id"]] = record
        return found

    async def close(self) -> None:
        self._db.close()
        await self._http.aclose()


def signed(records: list[dict[str, Any]], timestamp: int) -> bytes:
    """What is signed: all records in the order of their ids, in canonical JSON."""
    payload = {"data": records, "last_modified": str(timestamp)}
    return b"Content-Signature:\x00" + json.dumps(payload, sort_keys=True, separators=(",", ":")).encode()


class Way(ABC):
    """A publisher. `publish` is given each version; `client` makes a client that knows nothing yet."""

    name: str
    url: str

    @abstractmethod
    def publish(self, catalogue: Catalogue) -> None: ...

    @abstractmethod
    def client(self, url: str, folder: Path) -> Client: ...

    def close(self) -> None:  # noqa: B027  (there is nothing to end, for most)
        pass


class OurWay(Way):
    name = "ours"

    def __init__(self, site: Site) -> None:
        self._site, self.url = site, site.web.url

    def publish(self, catalogue: Catalogue) -> None:
        self._site.publish(catalogue)

    def client(self, url: str, folder: Path) -> Client:
        return Ours(url, self._site.hub.root, folder)


class NaiveWay(Way):
    name = "httpx, JSON, ETag"

    def __init__(self, kit: Kit) -> None:
        self._folder = kit.fresh("naive")
        self.url = kit.serve(self._folder, locations="gzip_static on;").url

    def publish(self, catalogue: Catalogue) -> None:
        content = b'{"records":[' + b",".join(catalogue.models[id] for id in sorted(catalogue.models)) + b"]}"
        (self._folder / "models.json").write_bytes(content)
        (self._folder / "models.json.gz").write_bytes(gzip.compress(content, 9, mtime=0))

    def client(self, url: str, folder: Path) -> Client:
        return Naive(url, folder)


class RemoteSettingsWay(Way):
    name = "Remote Settings' way"

    def __init__(self, kit: Kit) -> None:
        self._file = kit.fresh("changesets") / "state.json"
        self._key = ec.derive_private_key(int.from_bytes(b"bench/registry"), ec.SECP384R1())
        self._records: dict[str, dict[str, Any]] = {}
        self._gone: dict[str, int] = {}
        self._known: dict[str, bytes] = {}
        self._timestamp = 1_700_000_000_000
        self._server: subprocess.Popen[str] | None = None
        self.url = ""

    def publish(self, catalogue: Catalogue) -> None:
        self._timestamp += 1000
        for id, record in catalogue.models.items():
            if self._known.get(id) != record:
                self._records[id] = json.loads(record) | {"last_modified": self._timestamp}
                self._known[id] = record
        for id in self._known.keys() - catalogue.models.keys():
            del self._records[id], self._known[id]
            self._gone[id] = self._timestamp
        records = [self._records[id] for id in sorted(self._records)]
        r, s = decode_dss_signature(self._key.sign(signed(records, self._timestamp), ec.ECDSA(SHA384())))
        state = {
            "timestamp": self._timestamp,
            "signature": (r.to_bytes(48, "big") + s.to_bytes(48, "big")).hex(),
            "records": records,
            "deleted": [{"id": id, "deleted": True, "last_modified": at} for id, at in self._gone.items()],
        }
        draft = self._file.with_suffix(".new")
        draft.write_text(json.dumps(state))
        draft.replace(self._file)
        if self._server is None:
            command = [sys.executable, str(Path(__file__).with_name("changesets.py")), str(self._file)]
            self._server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert self._server.stdout is not None
            self.url = f"http://127.0.0.1:{int(self._server.stdout.readline())}/"
        httpx.get(f"{self.url}v1/buckets/monitor/collections/changes/changeset", timeout=300.0)  # it reads the file

    def client(self, url: str, folder: Path) -> Client:
        return RemoteSettings(url, self._key.public_key(), folder)

    def close(self) -> None:
        if self._server is not None:
            self._server.terminate()
            self._server.wait()
            assert self._server.stdout is not None
            self._server.stdout.close()
            self._server = None
