"""An independent client: python-tuf's own, with nothing of ours between it and the hub but gunzip."""

from __future__ import annotations

import gzip
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface


class Plain(FetcherInterface):
    """Gets files by urllib; collections lie there packed, and are unpacked here as a client has to. `seen`: the paths
    asked for, with how many bytes came."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.seen: dict[str, int] = {}

    def _fetch(self, url: str) -> Iterator[bytes]:
        packed = "/targets/collections/" in url
        path = url.removeprefix(self._url) + (".gz" if packed else "")
        self.seen[path] = 0
        try:
            with urllib.request.urlopen(self._url + path) as answer:
                content = answer.read()
        except urllib.error.URLError as error:  # of a file:// that is not there, too
            raise DownloadHTTPError(str(error), 404) from error
        self.seen[path] = len(content)
        yield gzip.decompress(content) if packed else content


class Client:
    """Keeps its metadata in `folder` from one use to the next. TUF's errors come through."""

    def __init__(self, folder: Path, url: str, root: bytes) -> None:
        self._folder, self._url, self._root = folder, url, root
        (folder / "metadata").mkdir(parents=True, exist_ok=True)
        self.seen: dict[str, int] = {}

    def updater(self) -> Updater:
        """A new one, as TUF wants for each refresh."""
        plain = Plain(self._url)
        self.seen = plain.seen
        where = (str(self._folder / "metadata"), self._url + "metadata/", str(self._folder), self._url + "targets/")
        return Updater(*where, plain, bootstrap=self._root)

    def versions(self) -> dict[str, int]:
        """Of the metadata, after a refresh."""
        updater = self.updater()
        updater.refresh()
        trusted = updater._trusted_set
        return {"root": trusted.root.version, "timestamp": trusted.timestamp.version} | {
            name.removesuffix(".json"): meta.version for name, meta in trusted.snapshot.meta.items()
        }

    def get(self, collection: str) -> list[dict[str, Any]]:
        updater = self.updater()
        target = updater.get_targetinfo(f"collections/{collection}.json")
        assert target is not None
        records: list[dict[str, Any]] = json.loads(Path(updater.download_target(target)).read_bytes())["records"]
        return records

    def ids(self, collection: str = "models") -> list[str]:
        return [record["id"] for record in self.get(collection)]
