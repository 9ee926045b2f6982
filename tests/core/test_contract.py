"""What every client may rely on, however it reaches the host: in memory, over pipes, over reader and writer threads."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from jan_core import RpcError
from jan_core.events import Event

from .conftest import Client, Number, Sample


async def test_a_call_answers_with_its_result(client: Client) -> None:
    assert await client.call("test.double", {"value": 21}) == {"value": 42}


async def test_an_answer_can_be_had_as_its_type(client: Client) -> None:
    assert await client.call("test.double", Number(4), result=Number) == Number(8)


async def test_text_of_any_script_and_with_control_characters_survives(client: Client) -> None:
    text = 'Grüße 你好 👩‍🚀 \u2028 \x00 \n "quoted" \\'
    assert await client.call("test.echo", {"text": text}) == {"text": text}


async def test_no_params_count_as_none_given(client: Client) -> None:
    assert await client.call("test.double") == {"value": 0}


async def test_a_handler_knows_who_calls(client: Client) -> None:
    assert await client.call("test.caller") in ("direct", "wire")


async def test_stream_items_come_in_order_before_the_result(client: Client) -> None:
    async with client.stream("test.count", {"value": 500}, item=Number, result=Number) as stream:
        values = [item.value async for item in stream]
        assert await stream.result() == Number(500)
    assert values == list(range(500))


async def test_a_streaming_method_can_be_called_for_its_result_alone(client: Client) -> None:
    assert await client.call("test.count", {"value": 3}) == {"value": 3}


async def test_leaving_a_stream_early_cancels_the_call(client: Client, sample: Sample) -> None:
    with anyio.fail_after(5):
        async with client.stream("test.count", {"value": 1_000_000}) as stream:
            async for item in stream:
                if item["value"] == 10:
                    break
        assert sample.sent < 1_000_000
        assert await client.call("test.double", {"value": 1}) == {"value": 2}


async def test_a_stream_left_by_cancellation_is_over_when_its_block_is(client: Client, sample: Sample) -> None:
    with anyio.fail_after(5):
        with anyio.CancelScope() as scope:
            async with client.stream("test.wait"):
                await sample.running.wait()
                scope.cancel()
                await anyio.sleep_forever()
        assert sample.cancelled.is_set()


async def test_a_stream_that_fails_gives_its_items_and_then_the_error(client: Client) -> None:
    async with client.stream("test.half") as stream:
        assert [item async for item in stream] == [{"value": 1}]
        with pytest.raises(RpcError) as caught:
            await stream.result()
    assert (caught.value.code, caught.value.type, caught.value.retryable) == (-32099, "kettle_empty", True)
    assert caught.value.data == {"litres": 0}


async def test_progress_is_reported_to_who_asked(client: Client) -> None:
    reports: list[Any] = []
    assert await client.call("test.work", {"value": 3}, progress=lambda *report: reports.append(report)) == "done"
    assert reports == [("boiling", 0, 3), ("boiling", 1, 3), ("boiling", 2, 3)]


async def test_cancelling_the_caller_cancels_the_handler(client: Client, sample: Sample) -> None:
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(client.call, "test.wait")
            await sample.running.wait()
            group.cancel_scope.cancel()
        await sample.cancelled.wait()


async def test_slow_calls_do_not_hold_up_quick_ones(client: Client, sample: Sample) -> None:
    answers: list[Any] = []

    async def slow() -> None:
        answers.append(await client.call("test.wait"))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(slow)
            await sample.running.wait()
            assert await client.call("test.double", {"value": 3}) == {"value": 6}
            assert answers == []
            sample.release.set()
    assert answers == ["released"]


@pytest.mark.parametrize(
    ("method", "params", "code", "type", "data"),
    [
        ("no.such", {}, -32601, "method_not_found", {"method": "no.such"}),
        ("test.no", {}, -32601, "method_not_found", {"method": "test.no"}),
        ("test.double", {"value": "x"}, -32602, "invalid_params", {"path": "$.value"}),
        ("test.double", {"valu": 1}, -32602, "invalid_params", {"path": "$"}),
        ("test.double", {"value": 1.5}, -32602, "invalid_params", {"path": "$.value"}),
        ("test.double", [1], -32602, "invalid_params", {"path": "$"}),
        ("test.half", {}, -32099, "kettle_empty", {"litres": 0}),
    ],
)
async def test_errors_are_typed(
    client: Client, method: str, params: Any, code: int, type: str, data: dict[str, Any]
) -> None:
    with pytest.raises(RpcError) as caught:
        await client.call(method, params)
    assert (caught.value.code, caught.value.type, caught.value.data) == (code, type, data)


async def test_params_nested_without_end_are_refused_and_harm_nobody(client: Client) -> None:
    deep: Any = []
    for _ in range(2_000):
        deep = [deep]
    with pytest.raises((RpcError, RecursionError)):  # the wire's client cannot even write it down
        await client.call("test.echo", {"text": deep})
    assert await client.call("test.double", {"value": 1}) == {"value": 2}


DEFECTS = ["boom", "boom_sync", "nonsense", "exit", "exit_sync", "stray"]


@pytest.mark.parametrize("method", [f"test.{name}" for name in DEFECTS])
async def test_a_defect_gives_an_id_that_is_in_the_log_and_no_detail(
    client: Client, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(RpcError) as caught:
        await client.call(method)
    assert caught.value.code == -32603
    assert "secret" not in str(caught.value)
    assert caught.value.data["errorId"] in caplog.text
    assert await client.call("test.double", {"value": 1}) == {"value": 2}


async def test_events_reach_whoever_listens(client: Client) -> None:
    heard: list[Event] = []
    arrived = anyio.Event()

    def listen(event: Event) -> None:
        if event.name == "test.happened":
            heard.append(event)
            arrived.set()

    with client.notifications(listen):
        await client.call("test.emit", {"text": "now"})
        with anyio.fail_after(5):
            await arrived.wait()
    assert heard[0].data == {"text": "now"}


async def test_a_hundred_calls_at_once_are_each_answered_once(client: Client) -> None:
    answers: dict[int, Any] = {}

    async def one(value: int) -> None:
        answers[value] = await client.call("test.double", {"value": value})

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            for value in range(100):
                group.start_soon(one, value)
    assert answers == {value: {"value": value * 2} for value in range(100)}
