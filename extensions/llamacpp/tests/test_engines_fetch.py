"""Fetching a file: complete or not at all, going on after any interruption, a reason for everything that goes wrong."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import urllib3
from jan_llamacpp.engines import fetch
from jan_llamacpp.engines.fetch import Job, main
from jan_llamacpp.engines.web import Failed, may_ask

from .wheel_index import WheelIndex, serving

DATA = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(DATA).hexdigest()
OTHER = DATA[::-1]


@pytest.fixture
def index() -> Iterator[WheelIndex]:
    with serving() as running:
        running.add("/file", DATA)
        yield running


def job(index: WheelIndex, folder: Path, **more: Any) -> Job:
    return Job(**{"url": f"{index.url}/file", "path": str(folder / "file"), "limit": 1 << 24, "pause": 0.0, **more})


def reason_of(job: Job) -> str:
    with pytest.raises(Failed) as caught:
        main(job)
    assert not Path(job.path).exists()
    return caught.value.reason


def begun(index: WheelIndex, folder: Path, length: int, **more: Any) -> Job:
    """A download that broke off after `length` bytes."""
    index.fail("/file", cut=length)
    wanted = job(index, folder, **more)
    assert reason_of(replace(wanted, repeats=0)) == "truncated"
    assert wanted.part.stat().st_size == length
    index.asked.clear()
    return wanted


def test_a_file_is_fetched_and_hashed(index: WheelIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = main(job(index, tmp_path))
    assert (outcome["size"], outcome["sha256"]) == (len(DATA), SHA256)
    assert (tmp_path / "file").read_bytes() == DATA
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"at": len(DATA), "of": len(DATA)}


def test_a_complete_file_is_not_fetched_twice(index: WheelIndex, tmp_path: Path) -> None:
    main(job(index, tmp_path))
    index.asked.clear()
    assert main(job(index, tmp_path))["sha256"] == SHA256
    assert index.asked == []


def test_a_complete_file_that_is_not_the_wanted_one_is_fetched_anew(index: WheelIndex, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(OTHER)
    main(job(index, tmp_path, sha256=SHA256))
    assert (tmp_path / "file").read_bytes() == DATA


def test_a_broken_connection_is_gone_on_with_at_once(index: WheelIndex, tmp_path: Path) -> None:
    for _ in range(3):
        index.fail("/file", cut=200_000)
    assert main(job(index, tmp_path))["sha256"] == SHA256
    assert index.fetched("file") == ["", "bytes=200000-", "bytes=400000-", "bytes=600000-"]


def test_what_another_run_left_is_gone_on_with(index: WheelIndex, tmp_path: Path) -> None:
    assert main(begun(index, tmp_path, 300_000))["sha256"] == SHA256
    assert index.fetched("file") == ["bytes=300000-"]


def test_a_file_that_changed_meanwhile_is_fetched_anew(index: WheelIndex, tmp_path: Path) -> None:
    wanted = begun(index, tmp_path, 300_000)
    index.add("/file", OTHER)
    main(wanted)
    assert (tmp_path / "file").read_bytes() == OTHER


def test_without_validator_and_hash_nothing_is_put_together(index: WheelIndex, tmp_path: Path) -> None:
    index.etags = False
    main(begun(index, tmp_path, 300_000))
    assert index.fetched("file") == [""]


def test_without_validator_the_hash_allows_to_go_on(index: WheelIndex, tmp_path: Path) -> None:
    index.etags = False
    main(begun(index, tmp_path, 300_000, sha256=SHA256))
    assert index.fetched("file") == ["bytes=300000-"]


def test_two_versions_put_together_are_noticed_and_fetched_anew(index: WheelIndex, tmp_path: Path) -> None:
    index.etags = False
    wanted = begun(index, tmp_path, 300_000, sha256=SHA256)
    wanted.part.write_bytes(OTHER[:300_000])
    assert main(wanted)["sha256"] == SHA256
    assert index.fetched("file") == ["bytes=300000-", ""]


def test_a_server_without_ranges_sends_it_all_again(index: WheelIndex, tmp_path: Path) -> None:
    wanted = begun(index, tmp_path, 300_000)
    index.ranges = False
    assert main(wanted)["sha256"] == SHA256


def test_a_file_that_became_shorter_is_fetched_anew(index: WheelIndex, tmp_path: Path) -> None:
    index.etags = False
    wanted = begun(index, tmp_path, 300_000, sha256=hashlib.sha256(DATA[:1000]).hexdigest())
    index.add("/file", DATA[:1000])
    main(wanted)
    assert (tmp_path / "file").read_bytes() == DATA[:1000]


def test_what_was_complete_when_it_was_killed_needs_no_request(index: WheelIndex, tmp_path: Path) -> None:
    wanted = begun(index, tmp_path, 300_000)
    wanted.part.write_bytes(DATA)
    assert main(wanted)["sha256"] == SHA256
    assert index.asked == []


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b'{"url": 1}', b'{"url": "http://127.0.0.1/other"}'])
def test_a_torn_note_costs_the_bytes_and_nothing_else(index: WheelIndex, tmp_path: Path, note: bytes) -> None:
    wanted = begun(index, tmp_path, 300_000)
    wanted.note.write_bytes(note)
    assert main(wanted)["sha256"] == SHA256


def test_a_wrong_hash_leaves_nothing(index: WheelIndex, tmp_path: Path) -> None:
    assert reason_of(job(index, tmp_path, sha256="0" * 64)) == "wrong_hash"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "reason", "requests"),
    [(404, "not_found", 1), (410, "not_found", 1), (403, "server", 1), (500, "server", 3), (429, "server", 3)],
)
def test_a_refusal_of_the_server_is_told(
    index: WheelIndex, tmp_path: Path, status: int, reason: str, requests: int
) -> None:
    index.fail("/file", status=status, times=9)
    assert reason_of(job(index, tmp_path)) == reason
    assert len(index.asked) == requests


def test_a_server_that_recovers_is_not_given_up(index: WheelIndex, tmp_path: Path) -> None:
    index.fail("/file", status=503, times=2)
    assert main(job(index, tmp_path))["sha256"] == SHA256


def test_a_sign_in_page_instead_of_the_file_is_recognised(index: WheelIndex, tmp_path: Path) -> None:
    index.fail("/file", page=b"<html>Please sign in</html>")
    assert reason_of(job(index, tmp_path)) == "web_page"


def test_a_file_that_ends_too_early_each_time_is_told_and_kept(index: WheelIndex, tmp_path: Path) -> None:
    index.fail("/file", cut=1000)
    index.fail("/file", cut=0, times=9)
    wanted = job(index, tmp_path)
    assert reason_of(wanted) == "truncated"
    assert wanted.part.stat().st_size == 1000


def test_a_server_that_stops_sending_is_told_within_the_limit(index: WheelIndex, tmp_path: Path) -> None:
    index.fail("/file", hold=1000, times=9)
    assert reason_of(job(index, tmp_path, stall=0.05, repeats=0)) == "slow"


def test_nobody_listening_is_told(tmp_path: Path) -> None:
    assert reason_of(Job("http://127.0.0.1:9/file", str(tmp_path / "file"), 100)) == "network"


def test_more_than_the_limit_is_not_taken(index: WheelIndex, tmp_path: Path) -> None:
    assert reason_of(job(index, tmp_path, limit=1000)) == "server"


def test_a_full_disk_is_told_before_it_is_full(
    index: WheelIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage)
    assert reason_of(job(index, tmp_path)) == "disk_full"


def test_redirects_are_followed_to_where_one_may_ask(index: WheelIndex, tmp_path: Path) -> None:
    index.fail("/moved", status=302, location="/file")
    assert main(job(index, tmp_path, url=f"{index.url}/moved"))["url"] == f"{index.url}/file"
    index.fail("/moved", status=302, location="http://wheels.example/file")
    assert reason_of(job(index, tmp_path, url=f"{index.url}/moved", path=str(tmp_path / "new"))) == "refused"
    index.fail("/moved", status=302, location="/moved", times=30)
    assert reason_of(job(index, tmp_path, url=f"{index.url}/moved", path=str(tmp_path / "new"))) == "server"


@pytest.mark.parametrize(
    ("url", "may"),
    [
        ("https://wheels.example/a", True),
        ("http://localhost:8000/a", True),
        ("http://127.1.2.3/a", True),
        ("http://[::1]:9/a", True),
        ("http://wheels.example/a", False),
        ("http://127.0.0.1.wheels.example/a", False),
        ("http://localhost.wheels.example/", False),
        ("http://192.168.1.2/a", False),
        ("ftp://127.0.0.1/a", False),
        ("file:///etc/passwd", False),
        ("https:///a", False),
        ("https://[::1/a", False),
        ("http://127.0.0.1:x/", False),
        ("", False),
    ],
)
def test_only_https_and_this_machine_are_asked(url: str, may: bool) -> None:
    assert may_ask(url) is may


def test_this_machine_is_not_asked_through_a_proxy(
    index: WheelIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert main(job(index, tmp_path))["sha256"] == SHA256


def test_other_machines_are_asked_through_the_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(scheme, "socks5://127.0.0.1:9")
    with pytest.raises(Failed, match="proxies of the kind socks5:// are not supported"):
        main(Job("https://wheels.example/file", str(tmp_path / "file"), 100))


def test_killed_in_the_middle_it_goes_on(index: WheelIndex, tmp_path: Path) -> None:
    index.fail("/file", hold=500_000)
    wanted = {"url": f"{index.url}/file", "path": str(tmp_path / "file"), "limit": 1 << 24}
    libraries = str(Path(urllib3.__file__).parent.parent)
    command = [sys.executable, "-I", fetch.__file__, libraries, json.dumps(wanted)]
    environment = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["of"] == len(DATA)
        process.kill()
    left = (tmp_path / "file.part").stat().st_size
    assert 0 < left <= 500_000
    index.asked.clear()
    done = subprocess.run(command, capture_output=True, env=environment, check=True)
    assert json.loads(done.stdout.splitlines()[-1])["sha256"] == SHA256
    assert index.fetched("file") == [f"bytes={left}-"]
