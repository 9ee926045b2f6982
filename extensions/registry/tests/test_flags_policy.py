"""What somebody at this machine has fixed, and what a flag may be."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_registry.flags.known import CEILING, EXPERIMENTS, KNOWN, PERCENT, PHASE, REFRESH, SHADOW, fit, fit_text
from jan_registry.flags.policy import PolicyFile, from_environment, from_settings, policy_path
from jan_registry.settings import RegistrySettings

SAFE = {PHASE: "fallback", CEILING: "fallback", PERCENT: 0, SHADOW: False, EXPERIMENTS: False}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "policy.toml"


def test_without_a_file_nothing_is_fixed(path: Path) -> None:
    policy = PolicyFile(path).read(0.0)
    assert (policy.values, policy.note) == ({}, "")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('[flags]\n"registry.phase" = "mixed"\n', {PHASE: "mixed"}),
        ('[flags]\nregistry.phase = "mixed"\nexperiments.enabled = false', {PHASE: "mixed", EXPERIMENTS: False}),
        ("[flags.registry]\nmixed.percent = 25\nrefresh_s = 900\n", {PERCENT: 25, REFRESH: 900}),
        ("[flags]\n", {}),
    ],
)
def test_a_policy_fixes_what_it_names(path: Path, text: str, values: dict[str, object]) -> None:
    path.write_text(text)
    policy = PolicyFile(path).read(0.0)
    assert (policy.values, policy.note) == (values, "")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'[flags]\n"registry.phase" = "turbo"\n', "registry.phase: must be one of"),
        (b"[flags]\nregistry.phase = 2\n", "registry.phase: must be one of"),
        (b"[flags]\nregistry.mixed.percent = 101\n", "from 0 to 100"),
        (b"[flags]\nregistry.mixed.percent = true\n", "whole number"),
        (b"[flags]\nexperiments.enabled = 0\n", "true or false"),
        (b'[flags]\n"registry.phas" = "fallback"\n', "there is no such flag"),
        (b'[flag]\n"registry.phase" = "fallback"\n', "'flag'"),
        (b"", "[flags] is missing"),
        (b"flags = 3", "[flags] is missing"),
        (b"[flags\n", "policy.toml"),
        (b"\xff\xfe", "policy.toml"),
        (b"# " + b"x" * (65 << 10), "larger than"),
        (b"flags = " + b"[" * 5000, "policy.toml"),
    ],
)
def test_a_damaged_policy_fixes_the_safest_values_and_says_why(path: Path, content: bytes, why: str) -> None:
    path.write_bytes(content)
    policy = PolicyFile(path).read(0.0)
    assert policy.values == SAFE
    assert why in policy.note
    assert "the safest values hold" in policy.note
    assert "\n" not in policy.note


def test_a_policy_that_cannot_be_read_fixes_the_safest_values(path: Path) -> None:
    path.mkdir()
    assert PolicyFile(path).read(0.0).values == SAFE
    if hasattr(os, "mkfifo"):  # reading it would wait for ever
        pipe = path / "pipe"
        os.mkfifo(pipe)
        assert PolicyFile(pipe).read(0.0).values == SAFE


@pytest.mark.skipif(sys.platform == "win32" or (hasattr(os, "geteuid") and os.geteuid() == 0), reason="root reads all")
def test_a_policy_without_permission_fixes_the_safest_values(path: Path) -> None:
    path.write_text("[flags]\n")
    path.chmod(0)
    assert PolicyFile(path).read(0.0).values == SAFE


def test_a_changed_policy_holds_within_half_a_minute_and_is_not_looked_at_for_every_question(path: Path) -> None:
    file = PolicyFile(path)
    none = file.read(1000.0)
    path.write_text('[flags]\n"registry.phase" = "mixed"\n')
    assert file.read(1029.0) is none
    mixed = file.read(1030.0)
    assert mixed.values == {PHASE: "mixed"}
    assert file.read(1100.0) is mixed
    path.unlink()
    assert file.read(900.0).values == {}, "a clock that was set back is no reason not to look"


def test_the_environment_does_not_choose_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = policy_path()
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert policy_path() == before
    assert before.name == "policy.toml"
    assert before.parent.name == "jan"


def test_the_environment_names_flags_in_capitals() -> None:
    said = from_environment(
        {
            "JAN_REGISTRY_PHASE": "Mixed",
            "JAN_REGISTRY_MIXED_PERCENT": "50",
            "JAN_EXPERIMENTS_ENABLED": "false",
            "A": "b",
        }
    )
    assert (said.values, said.note) == ({PHASE: "mixed", PERCENT: 50, EXPERIMENTS: False}, "")


@pytest.mark.parametrize("text", ["turbo", "-", "1e3"])
def test_what_the_environment_says_wrongly_does_not_count_and_is_noted(text: str) -> None:
    said = from_environment({"JAN_REGISTRY_PHASE": text, "JAN_REGISTRY_PHASE_CEILING": "mixed"})
    assert said.values == {CEILING: "mixed"}
    assert "JAN_REGISTRY_PHASE in the environment is not used" in said.note


def test_a_setting_at_its_default_was_not_chosen() -> None:
    assert from_settings(RegistrySettings()) == {}
    chosen = from_settings(RegistrySettings(phase="dynamic", experiments=False, refresh_seconds=60))
    assert chosen == {PHASE: "dynamic", EXPERIMENTS: False, REFRESH: 60}


def test_every_default_and_safe_value_is_one_that_the_flag_may_have() -> None:
    for name, known in KNOWN.items():
        assert fit(name, known.default) == known.default
        assert known.safe is None or fit(name, known.safe) == known.safe


@given(st.sampled_from([*KNOWN, "registry.other"]), st.text(max_size=30) | st.integers() | st.booleans() | st.floats())
def test_a_flag_has_a_value_of_its_own_kind_or_refuses_it(name: str, value: object) -> None:
    readings: list[tuple[Callable[[str, Any], object], object]] = [(fit, value), (fit_text, str(value))]
    for read, said in readings:
        try:
            fitted = read(name, said)
        except ValueError:
            continue
        assert type(fitted) is type(KNOWN[name].default)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_whatever_stands_in_the_file_there_is_a_policy(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("policy") / "policy.toml"
    path.write_bytes(content)
    policy = PolicyFile(path).read(0.0)
    assert policy.values == SAFE or not policy.note
