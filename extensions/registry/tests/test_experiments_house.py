"""Experiments, usage and revocations in a house with a real hub: what is shown and refused, and what is not sent."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from jan_registry.local import open_local

from jan_core import Event
from jan_core.types import (
    Admission,
    ChatRequest,
    DownloadFile,
    DownloadJob,
    InferenceOutcome,
    InferenceRequest,
    ModelFile,
    ModelLoad,
)

from .conftest import House, OpenHouse, Request, Web
from .hubmaker import Hub, model

pytestmark = pytest.mark.anyio

BIG, MID, SMALL = "org/big", "org/mid", "org/small"
ORDERS = {"control": [BIG, MID, SMALL], "small-first": [SMALL, MID, BIG]}
EXPERIMENT: dict[str, Any] = {
    "kind": "experiment",
    "id": "canary-experiment",
    "branches": [{"id": "control"}, {"id": "small-first", "slot": "small-first"}],
}


def sha256(id: str) -> str:
    """Of the one file of a model that the tests' hubs make."""
    return hashlib.sha256(id.encode()).hexdigest()


def publish(hub: Hub, *flags: dict[str, Any], **collections: list[dict[str, Any]]) -> Hub:
    hub.models(BIG, MID, SMALL).set("flags", flags)
    slots: list[dict[str, Any]] = [{"id": "default", "models": ORDERS["control"], "priority": 1},
             {"id": "small-first", "models": ORDERS["small-first"]}]  # fmt: skip
    hub.set("featured", slots)
    for name, records in collections.items():
        hub.set(name, records)
    hub.publish()
    return hub


async def featured(house: House) -> tuple[str, list[str]]:
    answer = await house.call("featured")
    assert answer["experiment"] == ("canary-experiment" if answer["branch"] else "")
    return answer["branch"], [each["id"] for each in answer["models"]]


async def until(holds: Callable[[], Any]) -> None:
    with anyio.fail_after(20):
        while not await holds():
            await anyio.lowlevel.checkpoint()


async def chat(house: House, id: str, times: int = 1) -> None:
    """As if a model had answered, and wait until that is counted."""
    usage = house.host.lifecycle.extensions["registry"].current.plugin._services.experiments.usage
    before = usage.scores(time.time()).get(id, 0.0)
    for _ in range(times):
        request = InferenceRequest(ChatRequest(messages=[], model=id))
        await house.host.hooks.after_inference(request, InferenceOutcome("llamacpp", id, 1.0))
    assert usage.scores(time.time())[id] == pytest.approx(before + times)


async def report(house: House) -> dict[str, Any]:
    [found] = (await house.call("experiments"))["experiments"]
    return dict(found)


async def test_a_machine_is_shown_its_branch_keeps_it_and_counts_itself(open_house: OpenHouse, hub: Hub) -> None:
    publish(hub, EXPERIMENT)
    async with open_house(hub=hub, phase="dynamic") as house:
        await house.call("refresh")
        branch, ids = await featured(house)
        assert ids == ORDERS[branch]

        async def exposed() -> bool:
            return [b["exposed"] for b in (await report(house))["branches"] if b["branch"] == branch] == [1]

        await until(exposed)
    publish(hub, EXPERIMENT | {"percent": 0})
    async with open_house(hub=hub, phase="dynamic") as house:
        await house.call("refresh")
        assert await featured(house) == (branch, ORDERS[branch])
        found = await report(house)
        assert (found["status"], found["branch"], found["state"]) == ("enrolled", branch, "running")


async def test_a_setting_or_the_operator_ends_it_and_everybody_sees_the_same(open_house: OpenHouse, hub: Hub) -> None:
    publish(hub, EXPERIMENT)
    async with open_house(hub=hub, phase="dynamic") as house:
        await house.call("refresh")
        assert (await featured(house))[0]
        await house.client.call("settings.set", {"extension": "registry", "values": {"experiments": False}})
        assert await featured(house) == ("", ORDERS["control"])
        assert (await report(house))["reason"] == "opt-out"
        await house.client.call("settings.set", {"extension": "registry", "values": {"experiments": True}})
        assert await featured(house) == ("", ORDERS["control"]), "who left does not come back"
        publish(hub, EXPERIMENT | {"salt": "again"})
        await house.call("refresh")
        assert (await featured(house))[0]
        publish(hub, EXPERIMENT | {"salt": "again", "state": "ended"})
        await house.call("refresh")
        assert await featured(house) == ("", ORDERS["control"])


async def test_the_operator_can_switch_all_experiments_off_and_on_again(open_house: OpenHouse, hub: Hub) -> None:
    publish(hub, EXPERIMENT)
    async with open_house(hub=hub, phase="dynamic") as house:
        await house.call("refresh")
        branch, ids = await featured(house)
        publish(hub, EXPERIMENT, {"kind": "flag", "id": "experiments.enabled", "value": False})
        await house.call("refresh")
        assert await featured(house) == ("", ORDERS["control"])
        assert (await house.call("experiments"))["enabled"] is False
        publish(hub, EXPERIMENT, {"kind": "flag", "id": "experiments.enabled", "value": True})
        await house.call("refresh")
        assert await featured(house) == (branch, ids)


async def test_a_list_that_has_no_flags_ends_no_experiment(open_house: OpenHouse, hub: Hub) -> None:
    publish(hub, EXPERIMENT)
    async with open_house(hub=hub, phase="dynamic") as house:
        await house.call("refresh")
        branch, _ = await featured(house)
    async with open_house(phase="dynamic") as house:  # without a hub: nothing is listed
        assert await featured(house) == ("", [])
    async with open_house(hub=hub, phase="dynamic") as house:
        assert (await featured(house))[0] == branch


async def test_what_is_used_passes_its_neighbours_and_a_download_is_an_outcome(open_house: OpenHouse, hub: Hub) -> None:
    publish(hub, EXPERIMENT)
    async with open_house(hub=hub, phase="dynamic") as house:
        await house.call("refresh")
        _, ids = await featured(house)
        data = {"id": "1", "state": "completed", "sha256": sha256(MID), "actual_sha256": sha256(MID)}
        db = open_local(house.data_dir)

        async def shown() -> bool:
            with db.read() as reading:
                return bool(reading.execute("SELECT count(*) FROM shown").fetchone() == (3,))

        async def noted() -> bool:
            with db.read() as reading:
                outcomes = reading.execute("SELECT kind, count FROM outcome").fetchall()
                return outcomes == [("download", 1)] and bool(reading.execute("SELECT 1 FROM usage").fetchall())

        await until(shown)
        house.host.bus.emit(Event("downloads.changed", data))
        await until(noted)
        db.close()
        await chat(house, ids[1], times=30)
        assert (await featured(house))[1] == [ids[1], ids[0], ids[2]]


async def test_what_is_revoked_is_neither_shown_downloaded_nor_loaded(open_house: OpenHouse, hub: Hub) -> None:
    publish(hub, revocations=[{"id": "r1", "reason": "steals passwords", "sha256": sha256(MID)},
                              {"id": "r2", "reason": "withdrawn", "model": SMALL, "at": "2026-11-01"}])  # fmt: skip

    def job(file: DownloadFile) -> DownloadJob:
        return DownloadJob("1", file, "x", 1)

    async with open_house(hub=hub, phase="dynamic") as house:
        hooks = house.host.hooks
        load = ModelLoad("mine", [ModelFile("m.gguf", sha256(MID).upper())])
        assert (await hooks.admit_load(load)).values == []
        await house.call("refresh")
        assert (await featured(house))[1] == [BIG]
        told = "the operator of the model list has revoked it"
        assert (await hooks.admit_load(load)).values == [Admission(False, f"{told}: steals passwords")]
        by_origin = ModelLoad("mine", [ModelFile("m.gguf")], origin=SMALL)
        assert (await hooks.admit_load(by_origin)).values == [Admission(False, f"{told} since 2026-11-01: withdrawn")]
        for file in (
            DownloadFile("m", sha256=sha256(MID)),
            DownloadFile("m", url=f"https://files.test/{SMALL}/model.gguf"),
        ):
            [vote] = (await hooks.admit_download(job(file))).values
            assert not vote.allowed
        assert (await hooks.admit_download(job(DownloadFile("m", sha256=sha256(BIG))))).values == []
        assert (await hooks.admit_load(ModelLoad("mine", [ModelFile("m", sha256(BIG))], origin=BIG))).values == []


async def test_what_is_not_meant_for_this_machine_is_hidden_and_what_is_deprecated_comes_last(
    open_house: OpenHouse, hub: Hub
) -> None:
    records = [
        model("org/old", deprecated={"reason": "there is a newer one"}),
        model("org/other-system", target=[{"field": "os", "op": "in", "values": ["beos"]}]),
        model("org/unknown", target=[{"field": "shoe_size", "op": "gte", "values": [1]}]),
        model("org/newer-app", requires={"app": ">=999"}),
        model("org/any"),
    ]
    hub.models(*records).set("featured", [{"id": "default", "models": [each["id"] for each in records]}]).publish()
    async with open_house(hub=hub, phase="dynamic") as house:
        await house.call("refresh")
        assert (await featured(house))[1] == ["org/any", "org/old"]


class Recorder:
    """All that is asked of a server, to the last header."""

    def __init__(self, web: Web, hub: Hub) -> None:
        self.asked: list[str] = []
        web.serve(hub.tree)
        answer = web.reply

        def reply(request: Request) -> None:
            self.asked.append(f"{request.requestline}\n{request.headers}")
            answer(request)

        web.reply = reply


async def test_requests_are_the_same_bytes_whatever_a_person_did(
    open_house: OpenHouse, hub: Hub, web: Web, tmp_path: Any
) -> None:
    asked: list[list[str]] = []
    secrets = ["canary-experiment", "small-first", "control"]
    for used in (False, True):
        publish(hub, EXPERIMENT)
        recorder = Recorder(web, hub)
        async with open_house(hub=hub, url=web.url, phase="dynamic") as house:
            await house.call("refresh")
            if used:
                for id in (BIG, MID, SMALL):
                    await chat(house, id, times=3)
                await featured(house)
                await house.call("experiments")
                db = open_local(house.data_dir)
                with db.read() as reading:
                    secrets.append(reading.execute("SELECT value FROM identity").fetchone()[0])
                    secrets += [row[0] for row in reading.execute("SELECT session FROM exposure")]
                db.close()
            publish(hub, EXPERIMENT, revocations=[{"id": "r", "reason": "x", "model": "org/none"}])
            await house.call("refresh")
        asked.append(sorted(recorder.asked))
        (tmp_path / "data").rename(tmp_path / f"data of {'somebody' if used else 'nobody'}")
        hub = Hub(tmp_path, name=f"hub{used}")
    assert len(secrets) >= 4
    everything = "".join(asked[0] + asked[1]).lower()
    assert [each for each in [*secrets, BIG, MID, SMALL] if each.lower() in everything] == []
    # Names of files are hashes of what is in them, and the same hub published twice is the same but for its time.
    shape = [sorted(_without_hashes(each) for each in requests) for requests in asked]
    assert shape[0] == shape[1]


def _without_hashes(request: str) -> str:
    return re.sub(r"[0-9a-f]{64}", "HASH", request)
