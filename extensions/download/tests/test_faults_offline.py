"""No network: a state that ends by itself, not an error."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from .faultserver import FaultServer
from .house import OpenHouse, content

# In a network namespace of its own: first there is nothing, then an address with a route (on the only interface that
# every kernel has, but the address is none of this machine's own names), then nothing, then it is back.
CHILD = """
import hashlib, json, subprocess, sys
from pathlib import Path
import anyio
from jan_core.host import Host
from jan_core.testing import InlineSource
from jan_download.plugin import DownloadExtension
from extensions.download.tests.faults import Hold
from extensions.download.tests.faultserver import FaultServer

DATA = bytes(range(256)) * 20_000
UP = ["link set lo up", "addr add 10.99.0.1/32 dev lo", "route add default dev lo"]
states = []

def ip(*commands):
    for command in commands:
        subprocess.run(["ip", *command.split()], check=True)

async def main(folder):
    (folder / "settings.json").write_text(json.dumps({"download": {
        "reserve_bytes": 0, "retry_first": 0.05, "retry_longest": 0.2, "connect_timeout": 1, "stall_timeout": 1}}))
    changed = anyio.Event()
    def hear(event):
        nonlocal changed
        if event.name == "downloads.changed":
            if states[-1:] != [event.data["state"]]:
                states.append(event.data["state"])
            changed.set()
            changed = anyio.Event()
    with FaultServer("0.0.0.0") as server:
        server.serve("/f", DATA, Hold(at=1_000_000).times(1))
        source = InlineSource("download", DownloadExtension, ["downloads."])
        async with Host(folder, sources=[source]) as host:
            await host.activate_startup()
            client = host.client()
            async def until(*wanted, done=0):
                with anyio.fail_after(25):
                    while True:
                        noted = changed
                        job = await client.call("downloads.get", {"id": started["id"]})
                        if job["state"] in wanted and job["bytes_done"] >= done:
                            return job
                        await noted.wait()
            with host.bus.subscribe(hear):
                file = {"name": "f.bin", "url": server.url("/f", host="10.99.0.1"), "size": len(DATA),
                        "sha256": hashlib.sha256(DATA).hexdigest()}
                started = await client.call("downloads.start", {"file": file})
                first = await until("offline")
                ip(*UP)
                await until("running", done=700_000)
                ip("link set lo down", "addr flush dev lo")
                server.cut()
                second = await until("offline")
                ip(*UP)
                done = await until("completed", "failed")
    print(json.dumps({"states": states, "first": first, "second": second, "done": done,
                      "right": Path(done["path"]).read_bytes() == DATA}))

anyio.run(main, Path(sys.argv[1]))
"""


@pytest.mark.skipif(
    not (shutil.which("unshare") and shutil.which("ip")), reason="needs unshare and ip (Debian's iproute2)"
)
def test_a_machine_that_loses_its_network_goes_on_when_it_is_back(tmp_path: Path) -> None:
    def alone(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["unshare", "--map-root-user", "--net", *command],
            cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    if alone("ip", "link", "set", "lo", "up").returncode:
        pytest.skip("a network namespace cannot be made here")
    ran = alone(sys.executable, "-c", CHILD, str(tmp_path))
    assert ran.returncode == 0, ran.stderr[-3000:]
    told = json.loads(ran.stdout)
    assert told["right"] is True
    assert told["states"].count("offline") >= 2
    assert "failed" not in told["states"]
    assert told["first"]["waiting_for"]
    assert told["second"]["bytes_done"] >= 700_000
    assert told["done"]["bytes_discarded"] == 0


async def test_a_server_on_this_machine_is_reached_without_a_network(
    open_house: OpenHouse, server: FaultServer, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    import jan_download.network.reach

    monkeypatch.setattr(jan_download.network.reach, "_route", lambda family, address: False)
    url = server.serve("/f", data)
    async with open_house() as house:
        assert content(await house.fetch(url, data)) == data
        server.refuse()
        job = await house.start(url, data[1:], name="other.bin")
        await house.until(job["id"], "waiting")
        assert all(event["state"] != "offline" for event in house.events)


async def test_a_name_that_nobody_knows_is_waited_for_and_a_pause_is_answered_meanwhile(open_house: OpenHouse) -> None:
    async with open_house() as house:
        job = await house.start("http://no-such-host.invalid/f")
        with anyio.fail_after(3):
            await house.call("pause", id=job["id"])
        await house.call("resume", id=job["id"])
        job = await house.until(job["id"], "waiting", "offline")
        assert job["waiting_for"] or job["error"]
        assert all(event["state"] != "failed" for event in house.events)
