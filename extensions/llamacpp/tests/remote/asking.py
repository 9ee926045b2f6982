"""How the tests of remote engines add one and ask it."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from jan_core import Event, RpcError, hookimpl
from jan_core.types import ChatCompletion

from ..endpoint import Answer, Endpoint

KEY = "sk-test-0123456789abcdefghijklmnopqrstuvwxyz"


class Listener:
    """Hears what the house is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    @hookimpl
    def jan_event(self, event: Event) -> None:
        self.events.append(event)


async def add(client: Any, endpoint: Endpoint, *, key: str | None = None, **more: Any) -> Any:
    remote = {"id": "there", "base_url": endpoint.base_url, **more}
    return await client.call("remotes.add", {"remote": remote, "key": key, "replace": True})


def question(**more: Any) -> dict[str, Any]:
    return {"model": "there/m", "messages": [{"role": "user", "content": "Hello"}], **more}


async def ask(client: Any, **more: Any) -> ChatCompletion:
    with anyio.fail_after(30):
        answer: ChatCompletion = await client.call("chat.complete", question(**more), result=ChatCompletion)
    return answer


async def refused(client: Any, endpoint: Endpoint, answer: Answer, **remote: Any) -> RpcError:
    """The error that an answer comes to."""
    endpoint.answers = [answer]
    await add(client, endpoint, **remote)
    with pytest.raises(RpcError) as caught:
        await ask(client, stream=True)
    assert KEY not in str(caught.value.to_object())
    return caught.value
