"""SIGKILL at any point of a sync: what is stored is one version of the list or the other, and the next sync succeeds.

Twenty kills by default; `JAN_TEST_KILLS=1000` makes so many, and `pytest -s` prints where they struck. This is what a
process's end can do; a power cut, which also loses what was not synced to disk, is left to SQLite (synchronous=FULL).
"""

from __future__ import annotations

import itertools
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from jan_registry.signed.check import verify_store

from .hubmaker import Hub, model
from .signed_kit import Client

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")

KILLS = int(os.environ.get("JAN_TEST_KILLS", "20"))
PATIENCE = 60.0
AT = 1_800_000_000.0
VERSIONS = 4
MODELS = 400


@dataclass
class World:
    """By version: `trees` of the hub (from version 1), `served` collections, `machines`, clients' folders (from 0)."""

    folder: Path
    root: bytes
    trees: list[Path] = field(default_factory=list)
    served: list[dict[str, list[bytes]]] = field(default_factory=list)
    machines: list[Path] = field(default_factory=list)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    hub = Hub(folder, now=AT)
    world, follower = World(folder, hub.root), Client(folder / "follower", hub.root)
    rng = random.Random(1)
    (folder / "machines" / "0").mkdir(parents=True)
    world.machines.append(folder / "machines" / "0")  # one that was never there
    world.served.append(follower.served())
    follower.close()
    texts = {f"maker/model-{number:04}": rng.randbytes(200).hex() for number in range(MODELS)}
    for version in range(1, VERSIONS + 1):
        for id in rng.sample(sorted(texts), 60):
            texts[id] = rng.randbytes(200).hex()
        texts[f"maker/new-{version}"] = ""
        del texts[rng.choice(sorted(texts))]
        hub.models(*[model(id, description=text) for id, text in texts.items()])
        hub.set("revocations", [{"id": f"r{number}", "reason": "bad"} for number in range(version)])
        hub.set("featured", [{"id": "main", "models": sorted(texts)[version : version + 9]}])
        hub.publish(now=AT + version)
        world.trees.append(Path(shutil.copytree(hub.tree, folder / "trees" / str(version))))
        follower.sync(hub.tree, AT + version)
        world.served.append(follower.served())
        follower.close()
        world.machines.append(Path(shutil.copytree(follower.store.folder, folder / "machines" / str(version))))
    for tree in world.trees[1::2]:
        shutil.rmtree(tree / "deltas")  # so that half the steps are whole snapshots
    return world


class Zygote:
    """A process whose children sync, ready to be killed as soon as they begin."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("sync_child.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )

    def begin(self, folder: Path, trees: Sequence[Path]) -> int:
        """A child that syncs the folder with one tree after the other."""
        job = {"folder": str(folder), "trees": [str(tree) for tree in trees]}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job | {"root": self.world.root.decode(), "at": AT + 100}).encode() + b"\n")
        return int(self._line())

    def ended(self, seconds: float) -> bool:
        """Whether it ends within so many seconds."""
        assert self._process.stdout is not None
        return bool(select.select([self._process.stdout], [], [], seconds)[0])

    def status(self) -> int:
        return int(self._line())

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        assert self._process.wait(PATIENCE) == 0
        self._process.stdout.close()

    def _line(self) -> bytes:
        assert self.ended(PATIENCE)
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@pytest.fixture
def zygotes(world: World) -> Iterator[list[Zygote]]:
    two = [Zygote(world), Zygote(world)]
    yield two
    for zygote in two:
        zygote.close()


def versions_of(client: Client, world: World) -> dict[str, set[int]]:
    """Which versions each collection is in, as every reader sees it; empty: it is in none, which must not be."""
    served = client.served()
    return {name: {v for v, known in enumerate(world.served) if known[name] == served[name]} for name in served}


def test_a_sync_that_is_killed_leaves_one_version_or_the_other(world: World, zygotes: list[Zygote]) -> None:
    zygote, rng = zygotes[0], random.Random(KILLS)
    tally: Counter[str] = Counter()
    lengths: dict[int, float] = {}  # of an undisturbed sync, in seconds, by where it starts
    for number in itertools.count(-VERSIONS):
        if sum(tally.values()) - tally["ended by itself"] == KILLS:
            break
        start, goal = number % VERSIONS if number < 0 else rng.randint(0, VERSIONS - 1), VERSIONS
        folder = Path(shutil.copytree(world.machines[start], world.folder / "killed" / str(number), symlinks=True))
        child = zygote.begin(folder, world.trees[start:])
        began = time.monotonic()
        if zygote.ended(PATIENCE if number < 0 else rng.uniform(0, lengths[start])):
            lengths[start] = min(lengths.get(start, PATIENCE), time.monotonic() - began)
        else:
            os.kill(child, signal.SIGKILL)
        status = zygote.status()
        assert status in (0, -signal.SIGKILL)
        client = Client(folder, world.root)
        found = versions_of(client, world)
        assert all(found.values()), (number, found)
        assert verify_store(client.store) == []
        where = "before" if start in found["models"] else "after" if goal in found["models"] else "between"
        tally["ended by itself" if status == 0 else f"killed, {where}"] += number >= 0
        client.sync(world.trees[-1], AT + 200)
        assert client.served() == world.served[goal]
        assert client.sync(world.trees[-1], AT + 200).requests == 2
        client.close()
        shutil.rmtree(folder)
    print(f"\n{dict(tally)}")


def test_two_processes_sync_the_same_folder_at_once(world: World, zygotes: list[Zygote], tmp_path: Path) -> None:
    rng = random.Random(7)
    for number in range(max(4, KILLS // 10)):
        start = rng.randint(0, VERSIONS - 1)
        folder = Path(shutil.copytree(world.machines[start], tmp_path / str(number), symlinks=True))
        children = [zygote.begin(folder, world.trees[-1:]) for zygote in zygotes]
        killed = number % 2 == 1
        reader, deadline = Client(folder, world.root), time.monotonic() + PATIENCE
        if killed and not zygotes[0].ended(rng.uniform(0, 0.05)):
            os.kill(children[0], signal.SIGKILL)
        while not zygotes[1].ended(0):  # what a reader sees meanwhile
            assert all(versions_of(reader, world).values())
            assert time.monotonic() < deadline
        assert zygotes[0].status() in ((0, -signal.SIGKILL) if killed else (0,))
        assert zygotes[1].status() == 0
        assert reader.served() == world.served[VERSIONS]
        assert verify_store(reader.store) == []
        reader.close()


def test_what_was_half_written_beside_the_database_is_no_matter(world: World, tmp_path: Path) -> None:
    """Leftovers of a write of TUF's, and a lock whose owner is gone."""
    folder = Path(shutil.copytree(world.machines[1], tmp_path / "machine", symlinks=True))
    (folder / "tuf" / "tmpabcdef").write_bytes(b"{half")
    (folder / "sync.lock").write_bytes(b"")
    client = Client(folder, world.root)
    client.sync(world.trees[-1], AT + 100)
    assert client.served() == world.served[VERSIONS]
    client.close()


def test_a_database_that_is_lost_is_made_anew(world: World, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(world.machines[2], tmp_path / "machine", symlinks=True))
    damaged: Any = folder / "hub.db"
    damaged.write_bytes(b"no database" * 1000)
    client = Client(folder, world.root)
    client.sync(world.trees[-1], AT + 100)
    assert client.served() == world.served[VERSIONS]
    assert "damaged" in client.store.db.note
    client.close()
