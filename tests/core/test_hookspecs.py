"""The specification file is the documentation: complete, typed, and called by the typed façade alone."""

from __future__ import annotations

import inspect
import re
import typing
from pathlib import Path

import pytest

from jan_core import hookspecs as specs
from jan_core.hooks import Hooks
from jan_core.hookspecs import HookSpec

PROMISED = [
    "jan_activate",
    "jan_deactivate",
    "jan_export_state",
    "jan_restore_state",
    "jan_methods",
    "jan_settings",
    "jan_event",
    "jan_engine_builds",
    "jan_select_engine_build",
    "jan_inference_engines",
    "jan_route_inference",
    "jan_before_inference",
    "jan_after_inference",
    "jan_model_sources",
    "jan_builtin_models",
    "jan_rollout_phase",
    "jan_filter_models",
    "jan_rank_models",
    "jan_download_sources",
    "jan_adopt_file",
    "jan_admit_download",
    "jan_assemble_context",
    "jan_message_added",
]

ALL = list(specs.hookspecs().values())


def test_the_promised_hooks_are_there_and_no_others() -> None:
    assert list(specs.hookspecs()) == PROMISED


@pytest.mark.parametrize("spec", ALL, ids=lambda s: s.name)
def test_a_hook_says_when_it_is_called_and_what_each_argument_is(spec: HookSpec) -> None:
    doc = inspect.getdoc(spec.function) or ""
    assert re.search(r"\bCalled\b|\bcalled\b|^The hard-coded list", doc, re.MULTILINE), "say when it is called"
    parameters = list(inspect.signature(spec.function).parameters)
    assert re.findall(r"^:param (\w+):", doc, re.MULTILINE) == parameters
    assert set(typing.get_type_hints(spec.function)) == {*parameters, "return"}
    assert 0 < spec.deadline <= 60


@pytest.mark.parametrize("spec", [s for s in ALL if s.mode != "single"], ids=lambda s: s.name)
def test_the_facade_has_a_typed_method_for_each_hook(spec: HookSpec) -> None:
    method = getattr(Hooks, spec.name.removeprefix("jan_"))
    assert list(inspect.signature(method).parameters)[1:] == list(inspect.signature(spec.function).parameters)


@pytest.mark.parametrize("spec", ALL, ids=lambda s: s.name)
def test_every_hook_is_used_by_a_test(spec: HookSpec) -> None:
    root = Path(__file__).parents[2]
    name = spec.name.removeprefix("jan_")
    pattern = re.compile(rf"def {spec.name}\b|hooks\.{name}\(")
    own = Path(__file__)
    tests = [p for folder in ("tests", "extensions", "sidecar") for p in (root / folder).rglob("test_*.py") if p != own]
    assert any(pattern.search(path.read_text(encoding="utf-8")) for path in tests)
