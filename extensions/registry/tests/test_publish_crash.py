"""Whenever a publisher is killed, clients see the hub as it was or as it should be, and the next one goes on.

One kill at each step that changes the disk; with JAN_TEST_KILLS=1000 in the environment so many more at random moments.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jan_registry.publish.errors import TreeDamaged
from jan_registry.publish.files import exclusive
from jan_registry.publish.keys import Keys
from jan_registry.publish.rotation import KeyChange, rotate
from jan_registry.publish.status import status
from tuf.api.exceptions import UnsignedMetadataError

from .hubmaker import Hub, Serve, key, nginx
from .publish_client import Client

__all__ = ["nginx"]
KILLS = int(os.environ.get("JAN_TEST_KILLS", "25"))
Publish = Callable[..., int]


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    hub = Hub(tmp_path)
    hub.set("models", [{"id": "m0", "name": "m0"}]).publish()
    return hub


@pytest.fixture
def publish(hub: Hub) -> Iterator[Publish]:
    """`publish(models=[…], step=… | after=…)`: in a process of its own; answers its exit code (-9: killed)."""
    names = [f"hub {role} {number}" for role, signers in hub.signers.items() for number in range(len(signers))]
    command = [sys.executable, Path(__file__).with_name("publish_nursery.py"), hub.tree, *names]
    nursery = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with nursery:
        assert nursery.stdin is not None
        assert nursery.stdout is not None

        def run(**job: Any) -> int:
            print(json.dumps(job), file=nursery.stdin, flush=True)
            return int(json.loads(nursery.stdout.readline()))  # type: ignore[union-attr]

        yield run
        nursery.stdin.close()
    assert nursery.returncode == 0


def test_a_publisher_killed_at_any_step_leaves_the_old_or_the_new_state_and_the_next_one_goes_on(
    hub: Hub, publish: Publish, nginx: Serve, tmp_path: Path
) -> None:
    before, wanted, after = ["m0"], ["m1", "other"], ["m2"]
    url, outcomes = nginx(hub.tree), []
    shutil.copytree(hub.tree, tmp_path / "before")
    for step in itertools.count():
        shutil.rmtree(hub.tree)
        shutil.copytree(tmp_path / "before", hub.tree)
        client = Client(tmp_path / f"client {step}", url, hub.root)
        assert client.ids() == before
        code = publish(models=wanted, step=step)
        outcomes.append(client.ids())
        assert publish(models=after) == 0
        assert client.ids() == after
        assert not (hub.tree / ".staged").exists()
        if code == 0:
            break
        assert code == -9
    changed = outcomes.index(wanted)
    assert outcomes == [before] * changed + [wanted] * (len(outcomes) - changed)
    assert changed > 20
    assert len(outcomes) > changed + 2


def test_a_publisher_killed_again_and_again_at_random_moments_leaves_a_hub_that_clients_believe(
    hub: Hub, publish: Publish, tmp_path: Path
) -> None:
    noise, client = random.Random(20261122), Client(tmp_path / "client", hub.url, hub.root)
    assert publish(models=["m0"]) == 0
    began = time.monotonic()
    assert publish(models=["m0", "m1"]) == 0
    whole = time.monotonic() - began
    possible, killed = [["m0", "m1"]], 0
    for number in range(KILLS):
        wanted = [f"m{id}" for id in sorted(noise.sample(range(10), 5))]
        code = publish(models=wanted, after=noise.uniform(0, whole))
        killed += code == -9
        possible.append(wanted)
        found = client.ids()
        # Undecided work of any earlier publisher is dropped by the next; decided work is finished by it.
        assert found in possible, number
        possible = possible[possible.index(found) :]
    assert killed > KILLS / 4
    assert publish(models=["end"]) == 0
    assert client.ids() == ["end"]
    assert not status(hub.tree, now=time.time()).interrupted


def test_of_two_processes_that_publish_at_once_the_second_is_refused(hub: Hub, publish: Publish) -> None:
    with exclusive(hub.tree):
        assert publish(models=["m1"]) == 75
    assert publish(models=["m1"]) == 0


def test_nothing_heavy_is_imported_before_something_is_signed() -> None:
    names = ["tree", "rotation", "package", "status", "keys", "pieces", "signing"]
    code = ["import sys", *(f"import jan_registry.publish.{name}" for name in names)]
    code += ["print(sorted({'tuf', 'securesystemslib', 'cryptography', 'filelock', 'sqlite3'} & set(sys.modules)))"]
    done = subprocess.run([sys.executable, "-c", "; ".join(code)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class Cut(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "root", "models"])
def test_a_rotation_cut_off_at_any_step_is_finished_by_the_next_publication(
    tmp_path: Path, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, outcomes = Path.replace, set()
    for step in range(100):
        hub = Hub(tmp_path / str(step))
        hub.models("a").publish()
        client = Client(tmp_path / f"client {step}", hub.url, hub.root)
        assert client.ids() == ["a"]
        new, old = key("new"), hub.signers[role][0]
        change = KeyChange(add=[new.public_key], remove=[old.public_key.keyid])
        left = iter(range(step))

        def cut(self: Path, target: Path, left: Iterator[int] = left) -> Path:
            if next(left, None) is None:
                raise Cut
            return replace(self, target)

        keys = Keys([*hub.keys, new])
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", cut)
            try:
                rotate(hub.tree, {role: change}, keys, now=time.time())
                break
            except Cut:
                pass
        try:
            assert client.ids() == ["a"]
            outcomes.add("seen")
        except UnsignedMetadataError:
            # Between the new root and what it names: refused, and nothing else.
            outcomes.add("refused")
            with pytest.raises(TreeDamaged, match="was cut off; publish again"):
                status(hub.tree, now=time.time())
        hub.models("a", "b").publish(keys=keys)
        assert client.ids() == ["a", "b"]
    else:
        pytest.fail("it never came to an end")
    assert client.ids() == ["a"]
    assert outcomes == ({"seen", "refused"} if role in ("timestamp", "snapshot", "targets") else {"seen"})
