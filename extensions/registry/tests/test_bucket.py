"""Shares of machines, and the number they are drawn from."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_registry.flags.bucket import BUCKETS, EXPERIMENTS, FLAGS, branch, bucket, within
from jan_registry.flags.identity import install_id
from jan_registry.local import open_local

VECTORS = Path(__file__).parents[3] / "docs" / "bucketing-vectors.json"
NODE = """
const { createHash } = require('node:crypto');
const { buckets, branches } = JSON.parse(require('node:fs').readFileSync(process.argv[1], 'utf8'));
const bucket = (namespace, salt, unit) =>
  Number(createHash('sha256').update(`${namespace}\\0${salt}\\0${unit}`, 'utf8').digest().readBigUInt64BE(0) % 10000n);
function branch(namespace, salt, unit, ratios) {
  const drawn = bucket(namespace, salt + ':branch', unit) * ratios.reduce((sum, ratio) => sum + ratio, 0);
  for (let place = 0, upto = 0; ; place++) {
    upto += ratios[place] * 10000;
    if (drawn < upto) return place;
  }
}
const wrong = [
  ...buckets.filter(v => bucket(v.namespace, v.salt, v.unit) !== v.bucket),
  ...branches.filter(v => branch(v.namespace, v.salt, v.unit, v.ratios) !== v.branch),
];
console.log(JSON.stringify({ checked: buckets.length + branches.length, wrong }));
"""

units = st.text(alphabet="0123456789abcdef", min_size=32, max_size=32)


def test_the_published_vectors_hold() -> None:
    vectors = json.loads(VECTORS.read_text("utf-8"))
    assert len(vectors["buckets"]) >= 20
    assert len(vectors["branches"]) >= 10
    for v in vectors["buckets"]:
        assert bucket(v["namespace"], v["salt"], v["unit"]) == v["bucket"], v
    for v in vectors["branches"]:
        assert branch(v["namespace"], v["salt"], v["unit"], v["ratios"]) == v["branch"], v


def test_another_language_computes_the_same(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    done = subprocess.run([node, "-e", NODE, str(VECTORS)], capture_output=True, text=True, timeout=60, check=True)
    answer = json.loads(done.stdout)
    assert answer["wrong"] == []
    assert answer["checked"] >= 30


@given(units, st.integers(0, 100), st.integers(0, 100))
def test_who_is_within_a_share_stays_so_while_it_grows(unit: str, one: int, other: int) -> None:
    drawn = bucket(FLAGS, "registry.phase", unit)
    if within(drawn, min(one, other)):
        assert within(drawn, max(one, other))
    assert within(drawn, 100)
    assert not within(drawn, 0)


def test_a_share_is_as_large_as_it_says_and_shares_of_other_salts_are_independent() -> None:
    n = 20_000
    members = [{str(i) for i in range(n) if within(bucket(FLAGS, salt, str(i)), 25)} for salt in ("a", "b")]
    for share in members:
        assert 0.24 < len(share) / n < 0.26  # 3 standard deviations are 0.9 %
    assert 0.23 < len(members[0] & members[1]) / len(members[0]) < 0.27


def test_arms_are_drawn_in_their_ratio_and_apart_from_the_enrolment() -> None:
    n = 20_000
    units = [str(i) for i in range(n)]
    drawn = Counter(branch(EXPERIMENTS, "s", unit, [1, 2, 1]) for unit in units)
    assert all(abs(drawn[place] / n - share) < 0.01 for place, share in enumerate((0.25, 0.5, 0.25)))
    enrolled = [unit for unit in units if within(bucket(EXPERIMENTS, "s", unit), 10)]
    second = sum(branch(EXPERIMENTS, "s", unit, [1, 1]) for unit in enrolled) / len(enrolled)
    assert 0.45 < second < 0.55, "those who are enrolled must not all get one arm"


@given(units, st.lists(st.integers(0, 1000), min_size=1, max_size=6))
def test_an_arm_is_one_with_a_share_and_other_ratios_are_refused(unit: str, ratios: list[int]) -> None:
    if sum(ratios):
        assert ratios[branch(EXPERIMENTS, "s", unit, ratios)] > 0
    else:
        with pytest.raises(ValueError, match="ratios"):
            branch(EXPERIMENTS, "s", unit, ratios)


@pytest.mark.parametrize("ratios", [[], [0], [2, -1]])
def test_ratios_that_are_none_are_refused(ratios: list[int]) -> None:
    with pytest.raises(ValueError, match="ratios"):
        branch(EXPERIMENTS, "s", "u", ratios)


def test_the_id_is_random_made_once_and_survives_a_restart(tmp_path: Path) -> None:
    ids = []
    for folder in (tmp_path / "a", tmp_path / "a", tmp_path / "b"):
        db = open_local(folder)
        ids.append(install_id(db))
        assert install_id(db) == ids[-1]
        db.close()
    assert ids[0] == ids[1] != ids[2]
    assert all(len(id) == 32 and int(id, 16) >= 0 for id in ids)


def test_processes_that_start_at_once_agree_on_the_id(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from jan_registry.local import open_local;"
        "from jan_registry.flags.identity import install_id; print(install_id(open_local(Path(sys.argv[1]))))"
    )

    def ask(_: int) -> str:
        command = [sys.executable, "-c", code, str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()

    with ThreadPoolExecutor(4) as pool:
        answers = set(pool.map(ask, range(4)))
    assert len(answers) == 1
    assert len(answers.pop()) == 32


def test_buckets_cover_their_range() -> None:
    drawn = [bucket("n", "s", str(i)) for i in range(5_000)]
    assert min(drawn) >= 0
    assert max(drawn) < BUCKETS
    assert min(drawn) < 50
    assert max(drawn) > BUCKETS - 50
