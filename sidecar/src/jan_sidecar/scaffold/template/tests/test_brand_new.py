"""The extension in a host of its own. The fixtures come with jan-core; `caller` reaches every method there is."""

import pytest

from jan_core import Caller, RpcError
from jan_core.testing import assert_extension_conforms


async def test_it_greets_by_name_and_counts(caller: Caller) -> None:
    assert await caller.call("brand_new.greet", {"name": "Ada"}) == {"text": "Hello, Ada!", "count": 1}
    assert await caller.call("brand_new.greet") == {"text": "Hello, world!", "count": 2}


async def test_a_changed_setting_is_used_at_once(caller: Caller) -> None:
    await caller.call("settings.set", {"extension": "brand-new", "values": {"greeting": "Hi"}})
    assert (await caller.call("brand_new.greet"))["text"] == "Hi, world!"


async def test_a_name_that_does_not_fit_is_refused(caller: Caller) -> None:
    with pytest.raises(RpcError) as refused:
        await caller.call("brand_new.greet", {"name": ""})
    assert (refused.value.type, refused.value.data["path"]) == ("invalid_params", "$.name")


async def test_the_count_survives_a_reload(caller: Caller) -> None:
    await caller.call("brand_new.greet")
    await caller.call("extensions.reload", {"id": "brand-new", "force": True})
    assert (await caller.call("brand_new.greet"))["count"] == 2


async def test_it_is_what_a_host_expects(extension: object) -> None:
    await assert_extension_conforms(extension)
