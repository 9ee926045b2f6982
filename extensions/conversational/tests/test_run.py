"""One assistant turn through the real host: stored, streamed, cancelled, broken, too long."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest

from jan_core import RpcError, hookimpl
from jan_core.testing import InlineSource
from jan_core.types import Assembly, Budget, Message

from .conftest import EchoEngine, House, OpenHouse, WorkerDied

pytestmark = pytest.mark.anyio


async def run(house: House, thread_id: str, content: str | None = None, **params: Any) -> dict[str, Any]:
    values = {"thread_id": thread_id, **params} | ({} if content is None else {"content": content})
    result: dict[str, Any] = await house.call("threads.run", values)
    return result


async def test_a_turn_stores_the_question_and_the_streamed_answer(house: House) -> None:
    id = await house.thread()
    params = {"thread_id": id, "content": "one two three"}
    async with house.client.stream("threads.run", params) as stream:
        items = [item async for item in stream]
        result = await stream.result()
    question, answer = await house.messages(id)
    assert items[0] == {
        "type": "started",
        "user_message_id": question.id,
        "assistant_message_id": answer.id,
        "omitted": [],
        "notes": [],
    }
    assert items[1:] == [{"type": "delta", "text": t} for t in ("one", " two", " three")]
    assert (question.role, question.content, question.status) == ("user", "one two three", "complete")
    assert (answer.role, answer.content, answer.status) == ("assistant", "one two three", "complete")
    assert (answer.model, answer.finish_reason) == ("echo", "stop")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3
    assert msgspec.convert(result["message"], Message) == answer
    assert result["usage"]["total_tokens"] == 4


async def test_the_model_is_shown_instructions_history_and_question_in_order(house: House) -> None:
    id = await house.thread()
    await run(house, id, "first")
    await run(house, id, "second")
    shown = [(m.role, m.text()) for m in house.engine.requests[-1].messages]
    assert shown == [
        ("system", "You are a helpful assistant."),
        ("user", "first"),
        ("assistant", "first"),
        ("user", "second"),
    ]
    assert house.engine.requests[-1].thread_id == id


async def test_the_run_wins_over_the_thread_which_wins_over_the_assistant(house: House) -> None:
    assistant = await house.call(
        "assistants.create",
        {
            "name": "Poet",
            "instructions": "Rhyme.",
            "model": "a",
            "parameters": {"temperature": 0.5, "top_k": 7},
        },
    )
    id = await house.thread(assistant_id=assistant["id"], model="t")
    await run(house, id, "x", parameters={"temperature": 1.0})
    await run(house, id, "x", model="r")
    first, second = house.engine.requests
    assert first.messages[0].text() == "Rhyme."
    assert (first.model, first.temperature, first.top_k) == ("t", 1.0, 7)
    assert (second.model, second.temperature, second.top_k) == ("r", 0.5, 7)


async def test_system_messages_that_meet_become_one_because_templates_take_one(house: House) -> None:
    id = await house.thread()
    await house.call("messages.create", {"thread_id": id, "role": "system", "content": "Speak French."})
    await run(house, id, "hello")
    shown = [(m.role, m.text()) for m in house.engine.requests[0].messages]
    assert shown == [("system", "You are a helpful assistant.\n\nSpeak French."), ("user", "hello")]


async def test_progress_of_counting_and_answering_reaches_the_caller(house: House) -> None:
    reports: list[Any] = []
    params = {"thread_id": await house.thread(), "content": "hello"}
    await house.client.call("threads.run", params, progress=lambda *report: reports.append(report))
    assert reports == [("loading", 1, 2), ("waiting", None, None)]


async def test_a_deleted_assistant_is_replaced_by_the_default_one_and_the_run_says_so(house: House) -> None:
    id = await house.thread(assistant_id="gone")
    result = await run(house, id, "x")
    assert house.engine.requests[0].messages[0].text() == "You are a helpful assistant."
    assert "gone is no longer there" in result["notes"][0]


async def test_without_the_assistant_extension_the_model_answers_without_instructions(
    open_house: OpenHouse,
) -> None:
    async with open_house(without=("assistant",)) as house:
        result = await run(house, await house.thread(), "x")
        assert [m.role for m in house.engine.requests[0].messages] == ["user"]
        assert "assistants are not available" in result["notes"][0]


async def test_a_cancelled_run_keeps_what_had_arrived(house: House) -> None:
    house.engine.pause_after = 2
    id = await house.thread()
    second_word = anyio.Event()

    async def listen() -> None:
        async with house.client.stream("threads.run", {"thread_id": id, "content": "one two three"}) as stream:
            async for item in stream:
                if item.get("text") == " two":
                    second_word.set()

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            await second_word.wait()
            group.cancel_scope.cancel()
        answer = await house.answer(id, "cancelled")  # a client that was cancelled does not wait for the end
    assert answer.content == "one two"
    house.engine.pause_after = -1
    assert (await run(house, id, "again"))["message"]["content"] == "again"


async def test_leaving_the_stream_half_way_keeps_what_had_arrived(house: House) -> None:
    house.engine.pause_after = 2
    id = await house.thread()
    with anyio.fail_after(30):
        async with house.client.stream("threads.run", {"thread_id": id, "content": "one two three"}) as stream:
            async for item in stream:
                if item.get("text") == " two":
                    break
    _, answer = await house.messages(id)
    assert (answer.status, answer.content) == ("cancelled", "one two")


async def test_a_run_cancelled_before_its_first_word_leaves_an_empty_cancelled_answer(house: House) -> None:
    house.engine.pause_after = 0
    id = await house.thread()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(run, house, id, "one two")
            await house.engine.paused.wait()
            group.cancel_scope.cancel()
        assert (await house.answer(id, "cancelled")).content == ""


async def test_a_run_cancelled_while_its_prompt_is_put_together_keeps_the_question_alone(house: House) -> None:
    house.engine.counts_slowly = True
    id = await house.thread()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(run, house, id, "hello")
            await house.engine.paused.wait()
            group.cancel_scope.cancel()
        house.engine.counts_slowly = False
        await run(house, id)  # the thread is free
    assert [(m.role, m.status) for m in await house.messages(id)] == [("user", "complete"), ("assistant", "complete")]


async def test_an_engine_that_dies_leaves_a_failed_answer_with_its_part_and_its_own_error(
    house: House,
) -> None:
    house.engine.pause_after, house.engine.fail_with = 2, WorkerDied("the worker is gone", exit_code=-9)
    id = await house.thread()
    with pytest.raises(RpcError) as caught:
        await run(house, id, "one two three")
    _, answer = await house.messages(id)
    assert (answer.status, answer.content, answer.error) == ("failed", "one two", "worker_died")
    assert answer.metadata == {"error_message": "the worker is gone"}
    assert (caught.value.code, caught.value.type, caught.value.retryable) == (-32041, "worker_died", True)
    assert caught.value.data == {"exit_code": -9, "thread_id": id, "message_id": answer.id}


async def test_a_defect_of_the_engine_is_an_internal_error_and_the_part_is_kept(house: House) -> None:
    house.engine.pause_after, house.engine.fail_with = 1, ZeroDivisionError("secret")
    id = await house.thread()
    with pytest.raises(RpcError) as caught:
        await run(house, id, "one two")
    assert caught.value.type == "internal_error"
    _, answer = await house.messages(id)
    assert (answer.status, answer.content, answer.error) == ("failed", "one", "internal_error")


async def test_a_broken_off_answer_can_be_tried_again_without_asking_twice(house: House) -> None:
    house.engine.pause_after, house.engine.fail_with = 1, WorkerDied("gone")
    id = await house.thread()
    with pytest.raises(RpcError):
        await run(house, id, "one two")
    house.engine.pause_after = -1
    result = await run(house, id)
    broken = (await house.messages(id))[1]
    assert [m.role for m in house.engine.requests[-1].messages] == ["system", "user"]
    assert result["omitted"] == [broken.id]
    assert [m.content for m in await house.messages(id)] == ["one two", "one", "one two"]


async def test_a_run_with_nothing_to_answer_is_refused(house: House) -> None:
    id = await house.thread()
    for _ in range(2):  # an empty thread, then one whose newest message is an answer
        with pytest.raises(RpcError) as caught:
            await run(house, id)
        assert (caught.value.code, caught.value.data["path"]) == (-32602, "$.content")
        await run(house, id, "hello")


async def test_a_second_run_in_a_thread_is_told_that_it_is_busy(house: House) -> None:
    house.engine.pause_after = 1
    id, other = await house.thread(), await house.thread()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(run, house, id, "one two")
            await house.engine.paused.wait()
            for method, params in [
                ("threads.run", {"content": "me too"}),
                ("threads.delete", {}),
            ]:
                with pytest.raises(RpcError) as caught:
                    await house.call(method, {"thread_id": id, **params})
                assert (caught.value.code, caught.value.type) == (-32027, "thread_busy")
                assert caught.value.retryable
            answer = await house.answer(id, "streaming")
            for method in ("messages.update", "messages.delete"):
                with pytest.raises(RpcError, match="being written"):
                    await house.call(method, {"thread_id": id, "message_id": answer.id})
            house.engine.pause_after = -1
            await run(house, other, "not in my thread")
            house.engine.go_on.set()
    assert [m.content for m in await house.messages(id)] == ["one two", "one two"]
    await house.call("threads.delete", {"thread_id": id})


async def test_what_does_not_fit_is_left_out_oldest_first_with_its_answers(house: House) -> None:
    house.engine.context = 64  # 48 for the prompt, of which the template takes 2 and the instructions 5
    id = await house.thread()
    for turn in range(6):
        await run(house, id, f"turn{turn} " + "word " * 7 + "end")  # 9 words
    result = await run(house, id, "newest")
    messages = await house.messages(id)
    shown = [m.text() for m in house.engine.requests[-1].messages]
    assert shown == [
        "You are a helpful assistant.",
        *(m.content for m in messages[8:12]),
        "newest",
    ]
    assert result["omitted"] == [m.id for m in messages[:8]]
    assert "8 older messages were left out" in result["notes"][0]


async def test_what_the_template_adds_counts_too(house: House) -> None:
    id = await house.thread()
    await run(house, id, "word " * 20 + "end")
    house.engine.context = 64  # 48 for the prompt: 5 + 21 + 21 + 1 of messages, and 2 of the template
    assert len((await run(house, id, "newest"))["omitted"]) == 2
    assert [m.text() for m in house.engine.requests[-1].messages] == ["You are a helpful assistant.", "newest"]


async def test_a_turn_in_a_long_thread_counts_what_may_fit_and_not_all_of_it(house: House) -> None:
    id = await house.thread()
    ids = [
        (await house.call("messages.create", {"thread_id": id, "content": "w " * 9 + "w", "pinned": n == 5}))["id"]
        for n in range(700)
    ]
    result = await run(house, id)
    shown = house.engine.requests[0].messages
    assert len(shown) == 1 + 1 + 73  # of 1000 tokens 250 are kept free, 2 are the template's, 5 the instructions
    assert house.engine.counted == [1 + 1 + 64, 1 + 1 + 512, len(shown)]
    assert result["omitted"] == [id for n, id in enumerate(ids[:-73]) if n != 5]
    assert result["notes"][0] == "187 older messages were not considered"


async def test_pinned_messages_stay_when_older_ones_go(house: House) -> None:
    house.engine.context = 64
    id = await house.thread()
    params = {"thread_id": id, "content": "remember this", "pinned": True}
    pinned = await house.call("messages.create", params)
    for _ in range(6):
        await run(house, id, "word " * 8 + "end")
    assert "remember this" in [m.text() for m in house.engine.requests[-1].messages]
    assert pinned["id"] in [m.id for m in await house.messages(id)]


async def test_a_question_larger_than_the_window_is_a_context_overflow_and_stays_stored(house: House) -> None:
    house.engine.context = 64
    id = await house.thread()
    with pytest.raises(RpcError) as caught:
        await run(house, id, "word " * 100)
    assert (caught.value.code, caught.value.type) == (-32032, "context_overflow")
    assert caught.value.data == {"tokens": 107, "context": 64, "reserved": 16}
    assert [m.role for m in await house.messages(id)] == ["user"]
    assert not house.engine.requests
    house.engine.context = 1000
    await run(house, id)  # the thread was released


async def test_without_a_token_counter_an_estimate_is_used_and_said(open_house: OpenHouse) -> None:
    async with open_house(serves=("chat.",)) as house:
        id = await house.thread()
        for _ in range(3):
            result = await run(house, id, "x" * 3000)
        assert "estimated" in result["notes"][0]
        assert len(house.engine.requests[-1].messages) < 6
        assert house.engine.requests[-1].messages[0].role == "system"


async def test_another_extension_can_change_the_prompt_and_is_held_to_the_window(
    open_house: OpenHouse,
) -> None:
    class Verbose:
        words = 10

        @hookimpl
        async def jan_assemble_context(self, thread: Assembly, budget: Budget) -> Assembly:
            newest = msgspec.structs.replace(thread.messages[-1], content="word " * self.words)
            return msgspec.structs.replace(thread, messages=[*thread.messages[:-1], newest])

    verbose = Verbose()
    async with open_house(also=(InlineSource("verbose", verbose),)) as house:
        id = await house.thread()
        await run(house, id, "x")
        assert house.engine.requests[0].messages[-1].text() == "word " * 10
        verbose.words = 2000
        with pytest.raises(RpcError, match="2007 tokens"):
            await run(house, id, "x")


async def test_an_engine_that_does_not_stream_is_heard_too(house: House) -> None:
    house.engine.streams = False
    async with house.client.stream("threads.run", {"thread_id": await house.thread(), "content": "a b"}) as s:
        items = [item async for item in s]
        assert (await s.result())["message"]["content"] == "a b"
    assert items[1:] == [{"type": "delta", "text": "a b"}]


async def test_what_a_sensitive_thread_asks_is_sensitive(house: House) -> None:
    id = await house.thread(sensitivity="sensitive")
    await house.call("threads.run", {"thread_id": id, "content": "hush"})
    assert (await house.call("threads.update", {"thread_id": id, "sensitivity": "normal"})).get("sensitivity") is None
    await house.call("threads.run", {"thread_id": id, "content": "aloud"})
    assert [request.sensitivity for request in house.engine.requests] == ["sensitive", "normal"]


async def test_a_run_without_streaming_sends_no_items(house: House) -> None:
    params = {"thread_id": await house.thread(), "content": "a b", "stream": False}
    async with house.client.stream("threads.run", params) as stream:
        assert [item async for item in stream] == []
        assert (await stream.result())["message"]["content"] == "a b"


async def test_events_and_the_message_hook_tell_of_question_and_answer(house: House) -> None:
    heard: list[Any] = []
    id = await house.thread()
    with house.client.notifications(lambda event: heard.append((event.name, event.data))):
        await run(house, id, "hello")
    assert heard == [("threads.changed", {"thread_id": id})] * 2
    with anyio.fail_after(30):
        while len(house.engine.added) < 2:
            await anyio.lowlevel.checkpoint()
    assert [m.role for m in house.engine.added] == ["user", "assistant"]


async def test_an_answer_is_on_the_disk_while_it_comes(house: House) -> None:
    house.engine.pause_after = 1
    id = await house.thread()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(run, house, id, "one two")
            assert (await house.answer(id, "streaming")).content == "one"
            house.engine.go_on.set()


async def test_a_run_in_a_thread_that_is_not_there_is_refused(house: House) -> None:
    for id in ("nobody", "incognito-nobody"):
        with pytest.raises(RpcError) as caught:
            await run(house, id, "x")
        assert (caught.value.code, caught.value.type) == (-32025, "thread_not_found")


async def test_the_engine_is_not_there(open_house: OpenHouse) -> None:
    async with open_house(engine=EchoEngine(), serves=("tokens.",)) as house:
        id = await house.thread()
        with pytest.raises(RpcError) as caught:
            await run(house, id, "hello")
        assert caught.value.type == "method_not_found"
        assert [m.status for m in await house.messages(id)] == ["complete", "failed"]
