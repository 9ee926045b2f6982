"""Our flags as OpenFeature knows flags."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import openfeature.provider._registry as process_wide
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_registry.collections import Constraint, Flag, Rule
from jan_registry.flags.bucket import FLAGS, bucket
from jan_registry.flags.provider import FlagClient, FlagProvider
from jan_registry.flags.rules import FlagList, evaluate, read_flags
from openfeature import api
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import Reason
from openfeature.provider import ProviderStatus
from openfeature.provider.in_memory_provider import InMemoryFlag, InMemoryProvider

UNIT = "0123456789abcdef0123456789abcdef"
LINUX = [Constraint("os", "in", ["linux"])]


def client(*flags: Flag, unit: str | None = UNIT, stale: bool = False, **facts: str | int) -> FlagClient:
    return FlagClient(FlagProvider(FlagList({flag.id: flag for flag in flags}), facts, lambda: unit, stale=stale))


def value_for(flag: Flag, unit: str) -> object:
    return evaluate(flag, {}, lambda: unit).value


def test_a_flag_without_rules_is_static() -> None:
    details = client(Flag(id="f", value="on")).get_string_details("f", "off")
    assert (details.value, details.reason, details.variant) == ("on", Reason.STATIC, "on")
    assert details.error_code is None


def test_a_rule_decides_for_those_it_is_meant_for() -> None:
    flag = Flag(id="f", value=False, rules=[Rule(value=True, target=LINUX)])
    details = client(flag, os="linux").get_boolean_details("f", False)
    assert (details.value, details.reason, details.variant) == (True, Reason.TARGETING_MATCH, "true")
    assert details.flag_metadata == {"rule": 0, "evaluated": "TARGETING_MATCH"}
    details = client(flag, os="macos").get_boolean_details("f", True)
    assert (details.value, details.reason, details.flag_metadata["rule"]) == (False, Reason.DEFAULT, -1)


def test_a_share_decides_for_those_within_it_and_rules_share_one_bucket() -> None:
    flag = Flag(id="f", value=0, rules=[Rule(value=1, percent=20), Rule(value=2, percent=60)])
    seen = {}
    for i in range(200):
        unit = f"{i:032x}"
        details = client(flag, unit=unit).get_integer_details("f", -1)
        drawn = bucket(FLAGS, "f", unit)
        assert details.value == (1 if drawn < 2000 else 2 if drawn < 6000 else 0)
        assert details.reason == (Reason.SPLIT if drawn < 6000 else Reason.DEFAULT)
        seen[details.value] = True
    assert set(seen) == {0, 1, 2}


def test_another_salt_draws_everybody_anew() -> None:
    one, other = (Flag(id="f", value=False, salt=salt, rules=[Rule(value=True, percent=50)]) for salt in ("", "again"))
    units = [f"{i:032x}" for i in range(200)]
    assert [value_for(one, unit) for unit in units] != [value_for(other, unit) for unit in units]


def test_a_machine_whose_bucket_is_unknown_is_in_no_share_but_all() -> None:
    flag = Flag(id="f", value=0, rules=[Rule(value=1, percent=99), Rule(value=2)])
    details = client(flag, unit=None).get_integer_details("f", -1)
    assert (details.value, details.reason) == (2, Reason.STATIC)


def test_nothing_is_drawn_where_everybody_or_nobody_is_meant() -> None:
    def never() -> str:
        raise AssertionError("it was drawn")

    flag = Flag(id="f", value=0, rules=[Rule(value=1, percent=5, target=LINUX), Rule(value=2)])
    assert FlagClient(FlagProvider(FlagList({"f": flag}), {}, never)).get_integer_value("f", 0) == 2


def test_flags_that_have_expired_keep_their_value_and_say_so() -> None:
    stale = client(Flag(id="f", value=7), stale=True)
    details = stale.get_integer_details("f", 0)
    assert (details.value, details.reason, details.flag_metadata["evaluated"]) == (7, Reason.STALE, "STATIC")
    assert stale.get_provider_status() == ProviderStatus.STALE


def test_a_flag_that_is_not_there_is_the_default() -> None:
    details = client().get_string_details("f", "default")
    assert (details.value, details.reason) == ("default", Reason.ERROR)
    assert details.error_code == ErrorCode.FLAG_NOT_FOUND


VALUES: list[Any] = [True, 3, "text"]
ASK = {
    "boolean": (bool, False),
    "integer": (int, 9),
    "string": (str, "default"),
    "float": (float, 1.5),
    "object": (dict, {"a": 1}),
}


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("kind", ASK)
async def test_a_flag_of_another_type_is_the_default_with_an_error(kind: str, value: Any) -> None:
    type_, default = ASK[kind]
    flags = client(Flag(id="f", value=value))
    for details in (
        getattr(flags, f"get_{kind}_details")("f", default),
        await getattr(flags, f"get_{kind}_details_async")("f", default),
    ):
        if type(value) is type_:
            assert (details.value, details.error_code) == (value, None)
        else:
            assert (details.value, details.reason) == (default, Reason.ERROR)
            assert details.error_code == ErrorCode.TYPE_MISMATCH


def test_what_a_caller_says_counts_only_where_this_machine_knows_nothing() -> None:
    flag = Flag(id="f", value=False, rules=[Rule(value=True, target=LINUX)])
    said = EvaluationContext("another unit", {"os": "linux"})
    assert client(flag, os="macos").get_boolean_value("f", False, said) is False
    assert client(flag).get_boolean_value("f", False, said) is True


def test_the_unit_is_drawn_here_and_shown_to_nobody() -> None:
    seen: list[Any] = []

    class Curious:
        def before(self, hook_context: Any, hints: Any) -> None:
            seen.append(hook_context.evaluation_context)

        def after(self, hook_context: Any, details: Any, hints: Any) -> None:
            seen.append(details)

        def error(self, *args: Any) -> None:
            pass

        def finally_after(self, *args: Any) -> None:
            pass

        def supports_flag_value_type(self, flag_type: Any) -> bool:
            return True

    api.add_hooks([Curious()])  # type: ignore[list-item]
    try:
        client(Flag(id="f", value=0, rules=[Rule(value=1, percent=50)])).get_integer_details("f", 0)
    finally:
        api.clear_hooks()
    assert len(seen) == 2
    assert UNIT not in repr(seen)


def test_an_applications_own_provider_is_neither_replaced_nor_asked() -> None:
    theirs = InMemoryProvider({"f": InMemoryFlag("on", {"on": "theirs"})})
    api.set_provider_and_wait(theirs)
    try:
        before = dict(process_wide.provider_registry._providers)
        ours = client(Flag(id="f", value="ours"))
        assert ours.get_string_value("f", "") == "ours"
        assert api.get_client().get_string_value("f", "") == "theirs"
        assert api.get_client("jan-registry").get_string_value("f", "") == "theirs"
        ours.close()
        assert api.get_client().get_string_value("f", "") == "theirs"
        assert process_wide.provider_registry._providers == before
    finally:
        api.clear_providers()


def test_after_it_is_closed_it_answers_defaults() -> None:
    ours = client(Flag(id="f", value="ours"))
    ours.close()
    details = ours.get_string_details("f", "default")
    assert (details.value, details.error_code) == ("default", ErrorCode.PROVIDER_NOT_READY)


RELOAD = """
import gc, sys, weakref
from jan_registry.collections import Flag
from jan_registry.flags.provider import FlagClient, FlagProvider
from jan_registry.flags.rules import FlagList

client = FlagClient(FlagProvider(FlagList({"f": Flag(id="f", value=1)}), {}, lambda: "unit"))
assert client.get_integer_value("f", 0) == 1
client.close()
gone = [weakref.ref(thing) for thing in (client, FlagClient, FlagProvider, FlagList, Flag)]
del client, FlagClient, FlagProvider, FlagList, Flag
for name in [name for name in sys.modules if name.partition(".")[0] == "jan_registry"]:
    del sys.modules[name]
gc.collect()
print([ref() for ref in gone if ref() is not None])
"""


def test_a_reload_leaves_nothing_of_the_generation_before() -> None:
    done = subprocess.run([sys.executable, "-c", RELOAD], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_records_that_are_not_understood_are_passed_over() -> None:
    records = [
        b'{"id":"a","kind":"flag","value":1}',
        b'{"id":"b","kind":"flag","value":[1]}',
        b'{"id":"c","kind":"hologram","value":1}',
        b'{"id":"d","kind":"flag","value":1,"rules":[{"value":2,"percent":400}]}',
        b'{"branches":[{"id":"x"},{"id":"y"}],"id":"e","kind":"experiment"}',
        b"\xff",
    ]
    flags = read_flags(records, expires_at=5.0)
    assert set(flags.flags) == {"a"}
    assert not flags.stale(4.9)
    assert flags.stale(5.0)
    assert not read_flags([]).stale(1e12)


def test_a_list_is_read_from_what_is_published() -> None:
    record = {
        "id": "registry.phase",
        "kind": "flag",
        "value": "fallback",
        "rules": [{"value": "mixed", "percent": 5, "target": [{"field": "os", "op": "in", "values": ["linux"]}]}],
    }
    flag = read_flags([json.dumps(record).encode()]).flags["registry.phase"]
    assert flag == Flag(id="registry.phase", value="fallback", rules=[Rule(value="mixed", percent=5, target=LINUX)])


@given(st.integers(0, 100), st.integers(0, 100), st.text(alphabet="0123456789abcdef", min_size=32, max_size=32))
def test_who_has_a_value_keeps_it_while_its_share_grows(one: int, other: int, unit: str) -> None:
    small, large = (
        Flag(id="f", value=False, rules=[Rule(value=True, percent=percent)]) for percent in sorted((one, other))
    )
    if value_for(small, unit):
        assert value_for(large, unit)
