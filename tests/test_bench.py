"""The figures of bench/host are worth what its client notices: a server that answers wrongly gets none."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

FOLDER = Path(__file__).parents[1] / "bench" / "host"

ANSWERING = """
import json, sys
for line in sys.stdin.buffer:
    asked = json.loads(line)
    answer = {"jsonrpc": "2.0", "id": asked["id"], "result": asked["params"]}
    %s
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """The modules of the bench, importable while a test runs, and its client, compiled."""
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("the client of bench/host needs a C compiler")
    before = set(sys.modules)
    monkeypatch.syspath_prepend(FOLDER)
    import client
    import servers

    yield SimpleNamespace(client=client, servers=servers, build=client.Client.build(tmp_path))
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and FOLDER in Path(sys.modules[name].__file__).parents:
            del sys.modules[name]


@pytest.mark.parametrize(
    "wrong",
    [
        'answer["id"] += 1',
        'answer["result"]["text"] = ""',
        'answer = {"jsonrpc": "2.0", "id": asked["id"], "error": {"code": 1, "message": "x" * 200}}',
        'sys.exit(3) if asked["id"] > 1003 else None',
        "sys.stdin.close(); import atexit, os; atexit.register(os._exit, 3)",
    ],
    ids=["another id", "a short answer", "an error", "an early end", "a bad end"],
)
@pytest.mark.parametrize("mode", ["sequential", "pipelined"])
def test_a_server_that_answers_wrongly_gets_no_figure(bench: SimpleNamespace, wrong: str, mode: str) -> None:
    server = bench.servers.Server("wrong", (sys.executable, "-c", ANSWERING % wrong))
    with pytest.raises(bench.client.NotTakenError):
        bench.build.run(server, mode, millis=20, warm=5)


def test_a_stream_with_an_item_too_few_gets_no_figure(bench: SimpleNamespace) -> None:
    less = "print('{\"method\": \"token\"}\\n' * 9_999, end='')"
    server = bench.servers.Server("few", (sys.executable, "-c", ANSWERING % less))
    with pytest.raises(bench.client.NotTakenError, match="items"):
        bench.build.run(server, "stream", millis=5)


@pytest.mark.parametrize("name", ["ours, sync", "ours, sync, headers", "ours, async", "ours, sync, threads"])
@pytest.mark.parametrize("payload", ["small", "64 KiB"])
def test_ours_is_measured(bench: SimpleNamespace, name: str, payload: str) -> None:
    server = next(s for s in bench.servers.SERVERS if s.name == name)
    assert bench.build.run(server, "pipelined", payload, millis=20, warm=5).rate > 0
