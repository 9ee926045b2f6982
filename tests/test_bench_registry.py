"""The figures of bench/registry are worth what its catalogues, clients and counters are."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from jan_registry.collections.check import check

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[1]
FOLDERS = [ROOT / "bench" / "registry", ROOT / "bench" / "host"]
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


@pytest.fixture(scope="module")
def bench() -> Iterator[SimpleNamespace]:
    """The modules of the bench, importable while these tests run."""
    with pytest.MonkeyPatch.context() as patch:
        before = set(sys.modules)
        for folder in [ROOT, *reversed(FOLDERS)]:
            patch.syspath_prepend(folder)
        import catalogues
        import queries
        import ways
        import wiretap

        yield SimpleNamespace(catalogues=catalogues, queries=queries, ways=ways, wiretap=wiretap)
        for name in set(sys.modules) - before:
            if Path(getattr(sys.modules[name], "__file__", None) or ".").parent in FOLDERS:
                del sys.modules[name]


def test_a_catalogue_is_the_same_each_time_and_what_a_hub_may_publish(bench: SimpleNamespace) -> None:
    made, again = bench.catalogues.made_up(300), bench.catalogues.made_up(300)
    assert made == again
    assert len(made.models) == 300
    for name, records in made.records().items():
        for record in records:
            check(name, record)
    assert 2000 < sum(map(len, made.models.values())) / 300 < 5000
    assert all(id in made.models for id in made.featured)


def test_edits_are_the_same_each_time_and_leave_a_catalogue_that_may_be_published(bench: SimpleNamespace) -> None:
    made = bench.catalogues.made_up(50)
    after, again = (bench.catalogues.edit(made, random.Random(1), count=60, numbers=True) for _ in range(2))
    assert after == again
    assert made == bench.catalogues.made_up(50)
    assert made.models.keys() - after.models.keys()
    assert after.models.keys() - made.models.keys()
    assert after.downloads.keys() == after.models.keys()
    for name, records in after.records().items():
        for record in records:
            check(name, record)
    touched = bench.catalogues.touch(made, random.Random(1))
    assert sum(touched.models[id] != record for id, record in made.models.items()) == 1


def test_a_real_catalogue_becomes_records_that_may_be_published(bench: SimpleNamespace, tmp_path: Path) -> None:
    quant = {
        "model_id": "x",
        "path": "https://huggingface.co/a/B-gguf/resolve/main/B-Q4_K_M.gguf",
        "file_size": "2.1 GB",
    }
    entry = {"model_name": "B-gguf", "developer": "A", "downloads": 5, "description": "What it is.", "quants": [quant]}
    mlx = {"model_name": "C", "developer": "A", "library_name": "mlx"}
    (tmp_path / "catalogue.json").write_text(json.dumps([entry, mlx]))
    found = bench.catalogues.real(tmp_path / "catalogue.json")
    assert list(found.models) == ["a/b-gguf"]
    assert check("models", found.models["a/b-gguf"]).files[0].size == 2_100_000_000


def test_every_kind_of_question_is_asked(bench: SimpleNamespace) -> None:
    asked = bench.queries.queries(bench.catalogues.made_up(100), 7)
    assert asked == bench.queries.queries(bench.catalogues.made_up(100), 7)
    assert {len(some) for some in asked.values()} == {7}
    assert any(offset for _, offset in asked["further pages"])


@pytest.fixture
def remote(bench: SimpleNamespace, tmp_path: Path) -> Iterator[SimpleNamespace]:
    """A publisher in Remote Settings' way, and the first version of what it publishes."""
    way = bench.ways.RemoteSettingsWay(SimpleNamespace(fresh=lambda name: tmp_path))
    first = bench.catalogues.made_up(20)
    way.publish(first)
    yield SimpleNamespace(way=way, first=first)
    way.close()


def parsed(catalogue: SimpleNamespace) -> dict[str, object]:
    return {id: json.loads(record) for id, record in catalogue.models.items()}


async def test_a_client_of_remote_settings_follows_changes_and_removals(
    bench: SimpleNamespace, remote: SimpleNamespace, tmp_path: Path
) -> None:
    client = remote.way.client(remote.way.url, tmp_path / "client")
    await client.poll()
    assert client.models() == parsed(remote.first)
    whole = client.received
    after = bench.catalogues.touch(remote.first, random.Random(3))
    gone = next(iter(after.models))
    after = bench.catalogues.Catalogue({id: it for id, it in after.models.items() if id != gone}, after.downloads)
    remote.way.publish(after)
    await client.poll()
    assert client.models() == parsed(after)
    changed = client.received - whole
    await client.poll()
    assert client.received - whole - changed < changed < whole
    await client.close()


async def test_a_client_of_remote_settings_notices_a_record_that_was_not_signed(
    remote: SimpleNamespace, tmp_path: Path
) -> None:
    from cryptography.exceptions import InvalidSignature

    state = json.loads((tmp_path / "state.json").read_text())
    state["records"][0]["name"] = "another"
    (tmp_path / "state.json").write_text(json.dumps(state))
    client = remote.way.client(remote.way.url, tmp_path / "client")
    with pytest.raises(InvalidSignature):
        await client.poll()
    await client.close()


async def test_a_tap_counts_what_the_client_gets(bench: SimpleNamespace, remote: SimpleNamespace) -> None:
    path = "v1/buckets/monitor/collections/changes/changeset"
    async with bench.wiretap.tapped(remote.way.url) as tap, httpx.AsyncClient() as client:
        response = await client.get(tap.url + path)
        head = sum(len(name) + len(value) + 4 for name, value in response.headers.raw)
        assert tap.received == len("HTTP/1.1 200 OK\r\n") + head + 2 + response.num_bytes_downloaded
        assert tap.sent > len(path)
        tap.reset()
        await client.get(tap.url + path)
        assert tap.received >= response.num_bytes_downloaded


def run(*options: str) -> str:
    done = subprocess.run(
        [sys.executable, str(FOLDERS[0]), "--quick", *options], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian's package nginx-light has it)")
def test_every_part_has_its_figures() -> None:
    printed = run()
    assert printed.count("\n## ") == 8
    assert "not taken" not in printed
    assert re.search(r"idle poll, bodies +\| +≤ 500 bytes \| +\d+ bytes \| +reached", printed)
    assert re.search(r": 0 of \d+ answers differed", printed)


def test_a_part_that_is_none_is_told_from_those_that_are() -> None:
    done = subprocess.run([sys.executable, str(FOLDERS[0]), "--only", "speed"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "no part speed" in done.stderr
