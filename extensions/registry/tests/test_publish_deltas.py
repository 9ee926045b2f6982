"""Deltas lead from every version they are offered for to the signed one, and no further back than is worth it."""

from __future__ import annotations

import gzip
import itertools
import json
import random
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from jan_registry.collections import canonical
from jan_registry.publish.content import Content, pack
from jan_registry.publish.deltas import DAYS, RECENT, History, Point, advance, delta, largest
from jan_registry.publish.state import read

from .hubmaker import Hub

DAY = 86400
NOW = 1_800_000_000.0
Versions = list[dict[str, int]]


def content(values: dict[str, int]) -> Content:
    return Content({id: canonical({"id": id, "value": value}) for id, value in values.items()})


def apply(before: Content, difference: bytes) -> Content:
    """As a client does it: upsert, then delete."""
    found = json.loads(difference)
    records = dict(before.records) | {record["id"]: canonical(record) for record in found["upsert"]}
    for id in found["delete"]:
        records.pop(id, None)
    return Content(records)


@given(st.lists(st.dictionaries(st.sampled_from("abcdeü😀"), st.integers(0, 3)), min_size=2, max_size=12))
def test_a_delta_from_any_version_leads_to_the_present_one(versions: Versions) -> None:
    contents = [content(values) for values in versions]
    history = History([Point(1, contents[0].sha256, 0)], {}, {})
    for seq, (before, after) in enumerate(itertools.pairwise(contents), 2):
        history = advance(history, before, after, seq=seq, now=float(seq))
        assert [point.seq for point in history.points] == list(range(1, seq + 1))
        for point in history.points[:-1]:
            difference = delta("models", history, after.records, point.seq)
            assert canonical(json.loads(difference)) == difference
            assert json.loads(difference) | {"upsert": 0, "delete": 0} == {
                "collection": "models",
                "from": point.seq,
                "to": seq,
                "upsert": 0,
                "delete": 0,
            }
            assert apply(contents[point.seq - 1], difference).sha256 == after.sha256


def test_deltas_are_offered_from_the_last_versions_and_from_one_of_each_day() -> None:
    """Five versions a day for sixty days."""
    now, present, history = NOW - NOW % DAY, content({"a": 0}), History([], {}, {})
    published: list[tuple[int, int]] = []
    for seq in range(1, 301):
        now += DAY / 5
        following = content({"a": seq})
        history = advance(history, present, following, seq=seq, now=now)
        present = following
        published.append((seq, int(now // DAY)))
    last_of_day = {day: seq for seq, day in published}
    expected = {seq for seq, _ in published if 300 > seq >= 300 - RECENT}
    expected |= {seq for day, seq in last_of_day.items() if now // DAY - DAYS <= day and seq < 300}
    offered = {point.seq for point in history.points[:-1]}
    assert offered >= {seq for seq in expected if published[seq - 1][1] > now // DAY - DAYS}
    assert offered <= expected
    assert len(offered) == RECENT + (DAYS - len({published[seq - 1][1] for seq in range(300 - RECENT, 300)}))


def test_the_history_forgets_what_no_delta_needs() -> None:
    history, present = History([], {}, {}), content({})
    for seq in range(1, 200):
        following = content({f"id{seq}": seq})  # everything else goes away
        history = advance(history, present, following, seq=seq, now=NOW)
        present = following
    assert len(history.points) == RECENT + 1
    assert len(history.deleted) + len(history.changed) <= RECENT + 1


def models(hub: Hub, changed: dict[str, Any]) -> Hub:
    """Three hundred records, of which none packs well."""
    noise = random.Random(7)
    records = [{"id": f"m{number:03}", "name": noise.randbytes(300).hex()} for number in range(300)]
    return hub.set("models", [record | {"name": changed.get(record["id"], record["name"])} for record in records])


def test_a_published_delta_is_small_and_one_that_is_half_of_everything_is_not_offered(tmp_path: Path) -> None:
    hub = Hub(tmp_path, now=NOW)
    models(hub, {}).publish(now=NOW)
    (one,) = models(hub, {"m007": "changed"}).publish(now=NOW).collections
    assert (one.delta_from, one.updated) == ([1], ["m007"])
    assert 0 < one.delta_bytes < one.full_bytes / 100
    noise = {f"m{number:03}": random.Random(number).randbytes(300).hex() for number in range(200)}
    (many,) = models(hub, noise).publish(now=NOW).collections
    assert (len(many.updated), many.delta_from, many.delta_bytes) == (200, [], 0)
    (again,) = models(hub, {}).publish(now=NOW).collections
    assert (again.seq, again.delta_from) == (4, [])
    assert largest(again.full_bytes) == again.full_bytes // 2
    assert largest(10) == 4096


def test_every_delta_that_the_tree_offers_leads_from_its_version_to_the_signed_one(tmp_path: Path) -> None:
    hub, noise, contents = Hub(tmp_path, now=NOW), random.Random(11), {}
    ids = [f"m{number}" for number in range(12)]
    for step in range(1, 20):
        chosen = [{"id": id, "name": str(noise.randrange(3))} for id in ids if noise.random() < 0.7]
        hub.set("models", chosen).publish(now=NOW + step * 3600)
        state = read(hub.tree)
        target, now = state.target("models"), state.content("models")
        assert target is not None
        assert now is not None
        contents[target.seq] = now
        assert target.delta_from == list(range(1, target.seq))
        for since in target.delta_from:
            packed = (hub.tree / "deltas" / "models" / f"{since}-{target.seq}.json.gz").read_bytes()
            assert apply(contents[since], gzip.decompress(packed)).sha256 == target.sha256


def test_packed_content_has_no_time_in_it() -> None:
    assert pack(b"content")[4:8] == bytes(4)  # RFC 1952, MTIME
    assert gzip.decompress(pack(b"content")) == b"content"


def test_a_lost_history_is_begun_anew_from_the_version_before(tmp_path: Path) -> None:
    hub = Hub(tmp_path, now=NOW)
    for step in range(4):
        hub.models(f"m{step}").publish(now=NOW + step)
    for path in (hub.tree / "deltas" / "models").glob("history-*"):
        path.write_bytes(b"damaged")
    (models,) = hub.models("other").publish(now=NOW + 9).collections
    assert (models.seq, models.delta_from) == (5, [4])
