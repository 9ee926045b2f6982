"""The store on its own: paging, migration, damage, a full disk, a second process, memory only."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio.to_thread
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jan_conversational import schema
from jan_conversational.errors import IncognitoFull, MessageNotFound, ThreadBusy, ThreadNotFound
from jan_conversational.library import Library
from jan_conversational.shapes import (
    CreateMessage,
    CreateThread,
    ListMessages,
    ListThreads,
    MessageRef,
    Order,
    UpdateThread,
)
from jan_conversational.store import Store

from jan_core import JanError, StorageError
from jan_core.types import Message

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def opened(folder: Path, *, incognito: bool = False, incognito_bytes: int = 1 << 28) -> AsyncIterator[Store]:
    folder.mkdir(exist_ok=True)  # noqa: ASYNC240
    library = Library(folder, incognito_bytes=incognito_bytes)
    try:
        yield library.store(incognito=incognito)
    finally:
        await anyio.to_thread.run_sync(library.close)


async def fill(store: Store, count: int) -> tuple[str, list[str]]:
    thread = await store.create_thread(CreateThread())
    added = [await store.add_message(CreateMessage(thread_id=thread.id, content=str(i))) for i in range(count)]
    return thread.id, [message.id for _, message in added]


async def catch(work: Awaitable[object]) -> JanError | None:
    try:
        await work
    except JanError as error:
        return error
    return None


def answer(thread_id: str, id: str, text: str) -> Message:
    return Message(id, thread_id, 0, "assistant", text, "", status="streaming")


@pytest.mark.parametrize("incognito", [False, True])
@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(0, 12),
    gaps=st.sets(st.integers(0, 11)),
    limit=st.integers(1, 14),
    order=st.sampled_from(["asc", "desc"]),
)
def test_pages_of_any_size_hold_every_message_once_in_order(
    tmp_path_factory: pytest.TempPathFactory, incognito: bool, count: int, gaps: set[int], limit: int, order: Order
) -> None:
    async def check() -> None:
        async with opened(tmp_path_factory.mktemp("store"), incognito=incognito) as store:
            thread_id, ids = await fill(store, count)
            for gap in gaps:
                if gap < count:
                    await store.delete_message(MessageRef(thread_id, ids[gap]))
            expected = [id for i, id in enumerate(ids) if i not in gaps]
            seen: list[str] = []
            cursor, pages = "", 0
            while cursor or not pages:
                query = ListMessages(thread_id=thread_id, limit=limit, cursor=cursor, order=order)
                page = await store.list_messages(query)
                assert len(page.messages) <= limit
                seen += [m.id for m in page.messages]
                cursor, pages = page.cursor, pages + 1
            assert seen == (expected if order == "asc" else expected[::-1])
            assert pages == max(1, -(-len(expected) // limit))

    asyncio.run(check())


async def test_writes_that_come_together_are_all_kept_and_one_that_fails_costs_the_others_nothing(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as store:
        thread_id, _ = await fill(store, 0)
        wanted = [thread_id if i % 3 else "nobody" for i in range(300)]
        results = await asyncio.gather(
            *(store.add_message(CreateMessage(thread_id=t, content=str(i))) for i, t in enumerate(wanted)),
            return_exceptions=True,
        )
        assert [isinstance(r, ThreadNotFound) for r in results] == [t == "nobody" for t in wanted]
        page = await store.list_messages(ListMessages(thread_id=thread_id, limit=1000))
        assert [m.content for m in page.messages] == [str(i) for i in range(300) if i % 3]
        assert [m.sequence for m in page.messages] == list(range(1, 201))


async def test_two_processes_worth_of_connections_write_one_folder_without_loss(tmp_path: Path) -> None:
    async with opened(tmp_path) as one, opened(tmp_path) as two:
        thread_id, _ = await fill(one, 0)
        await asyncio.gather(
            *(
                store.add_message(CreateMessage(thread_id=thread_id, content="x"))
                for _ in range(100)
                for store in (one, two)
            )
        )
        page = await two.list_messages(ListMessages(thread_id=thread_id, limit=1000))
        assert [m.sequence for m in page.messages] == list(range(1, 201))


async def test_an_answer_under_way_elsewhere_makes_the_thread_busy_and_is_left_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as one, opened(tmp_path) as two:
        thread_id, _ = await fill(one, 0)
        run = await one.begin_run(thread_id, "question")
        await asyncio.wrap_future(one.put_answer(answer(thread_id, run.answer_id, "so far")))
        with pytest.raises(ThreadBusy):
            await two.begin_run(thread_id, "me too")
        with pytest.raises(ThreadBusy):
            await two.delete_thread(thread_id)
        with pytest.raises(ThreadBusy):
            await two.delete_message(MessageRef(thread_id, run.answer_id))
        page = await two.list_messages(ListMessages(thread_id=thread_id))
        assert [(m.content, m.status) for m in page.messages] == [("question", "complete"), ("so far", "streaming")]
        await one.end_run(run, None)
        second = await two.begin_run(thread_id, None)
        await two.end_run(second, None)


async def test_an_answer_whose_writer_died_is_failed_and_keeps_its_text(tmp_path: Path) -> None:
    async with opened(tmp_path) as survivor:
        async with opened(tmp_path) as victim:
            thread_id, _ = await fill(victim, 0)
            run = await victim.begin_run(thread_id, "question")
            await asyncio.wrap_future(victim.put_answer(answer(thread_id, run.answer_id, "so far")))
            page = await survivor.list_messages(ListMessages(thread_id=thread_id))
            assert page.messages[1].status == "streaming"
        page = await survivor.list_messages(ListMessages(thread_id=thread_id))
        assert [(m.content, m.status, m.error) for m in page.messages[1:]] == [("so far", "failed", "interrupted")]
        again = await survivor.begin_run(thread_id, None)
        await survivor.end_run(again, None)


async def test_owners_leave_no_files_behind(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        thread_id, _ = await fill(store, 0)
        await store.end_run(await store.begin_run(thread_id, None), None)
        assert len(list((tmp_path / "owners").iterdir())) == 1
        (tmp_path / "owners" / ("0" * 32 + ".lock")).touch()
    async with opened(tmp_path) as store:
        await store.end_run(await store.begin_run(thread_id, None), None)
        assert len(list((tmp_path / "owners").iterdir())) == 1
    assert not list((tmp_path / "owners").iterdir())


async def test_an_answer_to_a_deleted_thread_is_an_error_and_not_a_ghost(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        thread_id, _ = await fill(store, 0)
        run = await store.begin_run(thread_id, "x")
        with sqlite3.connect(tmp_path / "conversations.db") as connection:
            connection.execute("PRAGMA foreign_keys=1")
            connection.execute("DELETE FROM threads")
        connection.close()
        with pytest.raises(ThreadNotFound):
            await store.end_run(run, answer(thread_id, run.answer_id, "x"))


def damage_header(path: Path) -> None:
    path.write_bytes(b"This is not a database. " * 200)


def damage_pages(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100:] = os.urandom(len(data) - 100)
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [damage_header, damage_pages])
async def test_a_damaged_database_is_a_storage_error_that_says_what_to_do(tmp_path: Path, damage: object) -> None:
    async with opened(tmp_path) as store:
        await fill(store, 3)
    assert callable(damage)
    damage(tmp_path / "conversations.db")
    async with opened(tmp_path) as store:
        for _ in range(2):
            with pytest.raises(StorageError, match=r"damaged.*a new one is begun") as caught:
                await store.list_threads(ListThreads())
            assert caught.value.data["path"] == str(tmp_path / "conversations.db")
        (tmp_path / "conversations.db").rename(tmp_path / "aside.db")
        await fill(store, 1)  # without a restart


async def test_a_stored_field_that_does_not_decode_costs_itself_and_not_the_text(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        thread_id, _ = await fill(store, 2)
        with sqlite3.connect(tmp_path / "conversations.db") as connection:
            connection.execute("UPDATE messages SET extra = '{' WHERE sequence = 1")
            connection.execute("UPDATE threads SET metadata = '[]'")
        connection.close()
        page = await store.list_messages(ListMessages(thread_id=thread_id))
        assert [m.content for m in page.messages] == ["0", "1"]
        assert list(page.messages[0].metadata) == ["damaged"]
        assert list((await store.get_thread(thread_id)).metadata) == ["damaged"]


async def test_a_full_disk_is_a_storage_error_that_costs_nothing_else(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        thread_id, _ = await fill(store, 3)

        def limit(pages: int) -> None:
            # SQLite's own way to have a full disk: the same SQLITE_FULL, raised at the same place.
            store._database.submit(lambda c: c.execute(f"PRAGMA max_page_count={pages}").fetchall()).result()

        limit(1)
        with pytest.raises(StorageError, match="disk is full: free some space"):
            await store.add_message(CreateMessage(thread_id=thread_id, content="x" * 100_000))
        page = await store.list_messages(ListMessages(thread_id=thread_id))
        assert [m.content for m in page.messages] == ["0", "1", "2"]
        limit(1 << 30)
        run = await store.begin_run(thread_id, "x")
        limit(1)
        with pytest.raises(StorageError, match="disk is full"):
            await store.end_run(run, answer(thread_id, run.answer_id, "x" * 100_000))
        limit(1 << 30)
        await store.end_run(await store.begin_run(thread_id, None), None)  # the thread is free all the same
        await store.add_message(CreateMessage(thread_id=thread_id, content="x" * 100_000))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root writes everywhere")
async def test_a_folder_without_permission_is_a_storage_error(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    async with opened(folder) as store:
        with pytest.raises(StorageError):
            await fill(store, 1)


async def test_a_folder_that_is_gone_is_a_storage_error(tmp_path: Path) -> None:
    async with opened(tmp_path / "gone") as store:
        (tmp_path / "gone").rmdir()
        with pytest.raises(StorageError, match=r"conversations\.db: No such file"):
            await fill(store, 1)


async def test_the_folder_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("a b?c%20#ü'")
    async with opened(folder) as store:
        thread_id, _ = await fill(store, 1)
    async with opened(tmp_path / folder) as store:
        assert (await store.get_thread(thread_id)).id == thread_id


async def test_a_database_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await fill(store, 1)
    path = tmp_path / "conversations.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()
    async with opened(tmp_path) as store:
        with pytest.raises(StorageError, match="newer version"):
            await store.list_threads(ListThreads())
    assert path.read_bytes() == before


def test_a_migration_that_fails_half_way_changes_nothing() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    schema.migrate(connection)
    before = connection.execute("SELECT sql FROM sqlite_master").fetchall()
    broken = (*schema.MIGRATIONS, ("CREATE TABLE extra (a) STRICT",), ("CREATE TABLE more (a INTEGER)", "nonsense"))
    with pytest.raises(sqlite3.Error):
        schema.migrate(connection, broken)
    assert connection.execute("SELECT sql FROM sqlite_master").fetchall() == before
    assert connection.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
    working = (*schema.MIGRATIONS, ("ALTER TABLE threads ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'",))
    schema.migrate(connection, working)
    schema.migrate(connection, working)
    assert connection.execute("PRAGMA user_version").fetchone() == (schema.VERSION + 1,)
    connection.close()


async def test_a_database_of_the_first_version_is_brought_up_to_date_with_its_conversations(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "conversations.db", isolation_level=None)
    schema.migrate(connection, schema.MIGRATIONS[:1])
    connection.execute(
        "INSERT INTO threads (id, title, assistant_id, model, metadata, last_sequence, created_at, updated_at) "
        "VALUES ('old', 'kept', '', '', '{}', 0, 1, 1)"
    )
    connection.close()
    async with opened(tmp_path) as store:
        thread = await store.get_thread("old")
        assert (thread.title, thread.sensitivity) == ("kept", "normal")
        changed = await store.update_thread(UpdateThread(thread_id="old", sensitivity="sensitive"))
        assert changed.sensitivity == "sensitive"
    async with opened(tmp_path) as store:
        assert (await store.get_thread("old")).sensitivity == "sensitive"


async def test_a_commit_is_on_the_disk_before_it_is_acknowledged(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await fill(store, 1)
        values = store._database.submit(
            lambda c: [c.execute(f"PRAGMA {p}").fetchone()[0] for p in ("journal_mode", "synchronous")]
        )
        assert values.result() == ["wal", 2]  # 2: FULL


async def test_conversations_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        thread_id, _ = await fill(store, 1)
        await store.end_run(await store.begin_run(thread_id, None), None)
        if os.name != "nt":
            files = [p for p in tmp_path.rglob("*") if p.is_file()]  # noqa: ASYNC240
            assert len(files) == 4  # the database, its WAL and index, the owner's lock
            assert {oct(p.stat().st_mode & 0o777) for p in files} == {"0o600"}


async def test_incognito_memory_is_bounded_and_free_again_when_a_thread_is_deleted(tmp_path: Path) -> None:
    async with opened(tmp_path, incognito=True, incognito_bytes=2 << 20) as store:
        thread_id, _ = await fill(store, 1)
        large = CreateMessage(thread_id=thread_id, content="x" * 100_000)
        outcomes = [await catch(store.add_message(large)) for _ in range(30)]
        refused = [o for o in outcomes if o is not None]
        assert refused
        assert {type(o) for o in refused} == {IncognitoFull}
        kept = 1 + len(outcomes) - len(refused)
        assert len((await store.list_messages(ListMessages(thread_id=thread_id))).messages) == kept
        await store.delete_thread(thread_id)
        thread_id, _ = await fill(store, 1)
        await store.add_message(CreateMessage(thread_id=thread_id, content="x" * 100_000))


async def test_a_successor_takes_incognito_threads_over_and_strangers_do_not_see_them(tmp_path: Path) -> None:
    async with opened(tmp_path / "a", incognito=True) as old:
        thread_id, _ = await fill(old, 3)
        async with opened(tmp_path / "b", incognito=True) as stranger:
            assert (await stranger.list_threads(ListThreads())).threads == []
        successor = Library(tmp_path / "a")
        await successor.store_of(thread_id).get_thread(thread_id)
    page = await successor.store_of(thread_id).list_messages(ListMessages(thread_id=thread_id))
    assert [m.content for m in page.messages] == ["0", "1", "2"]
    await anyio.to_thread.run_sync(successor.close)
    async with opened(tmp_path / "a", incognito=True) as later:
        with pytest.raises(ThreadNotFound, match="end with the application"):
            await later.get_thread(thread_id)


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        thread_id, ids = await fill(store, 1)
    with pytest.raises(StorageError, match="closed"):
        await store.get_thread(thread_id)
    async with opened(tmp_path) as store:
        with pytest.raises(MessageNotFound):
            await store.delete_message(MessageRef(thread_id, "x"))
        await store.delete_message(MessageRef(thread_id, ids[0]))


async def test_a_wait_that_is_cancelled_takes_its_claim_on_the_thread_back(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        thread_id, _ = await fill(store, 0)
        for _ in range(20):
            task = asyncio.create_task(store.begin_run(thread_id, "x"))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises((asyncio.CancelledError, JanError)):
                await task
        run = await store.begin_run(thread_id, "y")
        await store.end_run(run, None)
