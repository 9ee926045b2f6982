"""A published tree, as python-tuf's own client sees it: over nginx, and as a folder."""

from __future__ import annotations

import gzip
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface

from .hubmaker import Hub, Serve, model, nginx

__all__ = ["nginx"]
DAY = 86400


class Plain(FetcherInterface):
    """Gets files by urllib; collections lie there packed, and are unpacked here as a client has to."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def _fetch(self, url: str) -> Iterator[bytes]:
        packed = "/collections/" in url
        self.paths.append(url)
        try:
            with urllib.request.urlopen(url + ".gz" if packed else url) as answer:
                content = answer.read()
        except OSError as error:
            raise DownloadHTTPError(str(error), 404) from error
        yield gzip.decompress(content) if packed else content


class Client:
    """An independent TUF client that keeps its metadata between `get`s."""

    def __init__(self, folder: Path, url: str, root: bytes) -> None:
        self.folder, self.url, self.root = folder, url, root
        (folder / "metadata").mkdir(parents=True, exist_ok=True)

    def updater(self) -> tuple[Updater, Plain]:
        plain = Plain()
        return (
            Updater(
                str(self.folder / "metadata"),
                self.url + "metadata/",
                str(self.folder),
                self.url + "targets/",
                plain,
                bootstrap=self.root,
            ),
            plain,
        )

    def get(self, collection: str) -> Any:
        updater, _ = self.updater()
        target = updater.get_targetinfo(f"collections/{collection}.json")
        assert target is not None
        return json.loads(Path(updater.download_target(target)).read_bytes())["records"]

    def ids(self, collection: str = "models") -> list[str]:
        return [record["id"] for record in self.get(collection)]


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    return Hub(tmp_path)


def test_an_independent_client_reads_what_was_published_from_nginx_and_from_a_folder(
    hub: Hub, nginx: Serve, tmp_path: Path
) -> None:
    hub.models("b/two", "a/one").set("stats", [{"id": "a/one", "downloads": 3}]).publish()
    for number, url in enumerate((nginx(hub.tree), hub.url)):
        client = Client(tmp_path / str(number), url, hub.root)
        assert client.get("models") == [model("a/one"), model("b/two")]
        assert client.get("stats") == [{"id": "a/one", "downloads": 3}]
        assert client.get("flags") == []
    hub.models("c/three").publish()
    assert client.ids() == ["c/three"]
