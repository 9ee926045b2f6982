"""A list that its hub has confirmed is the list it was: nothing of it is read again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from jan_registry.listing import SignedListing, states_of
from jan_registry.search import index
from jan_registry.signed.fetching import fetcher
from jan_registry.signed.folder import FolderFetch
from jan_registry.signed.store import HubStore
from jan_registry.signed.sync import sync

from .hubmaker import Hub


@pytest.fixture
def fetched(hub: Hub) -> Iterator[tuple[HubStore, Callable[[float], None]]]:
    """A store with a hub's two models, and what asks the hub again so many seconds later."""
    hub.models("a/one", "a/two").set("featured", [{"id": "default", "models": ["a/two"]}])
    hub.set("flags", [{"kind": "flag", "id": "registry.shadow.enabled", "value": True}]).publish()
    store = HubStore(hub.tree.parent / "store")

    def ask(later: float) -> None:
        sync(
            store, fetcher(hub.url, lambda: None, timeout=9), hub.root, now=lambda: time.time() + later, on_models=index
        )

    ask(0)
    yield store, ask
    store.close()


def test_what_a_hub_confirms_is_not_read_again(fetched: tuple[HubStore, Callable[[float], None]]) -> None:
    store, ask = fetched
    before = SignedListing(store, states_of(store), "cache", "http://hub.test/")
    found = before.get("a/two")
    ask(60)
    states = states_of(store)
    assert states != before.states
    assert before.holds(states)
    after = before.confirmed(states, "network")
    assert after.get("a/two") is found
    assert after.flags is before.flags
    assert (after.origin, before.origin) == ("network", "cache")
    now = states["models"].checked_at
    assert after.provenance(now).age == 0
    assert (before.provenance(now).age or 0) >= 60


def test_flags_that_are_vouched_for_anew_expire_later(
    hub: Hub, fetched: tuple[HubStore, Callable[[float], None]]
) -> None:
    store, ask = fetched
    before = SignedListing(store, states_of(store), "network", "http://hub.test/")
    hub.publish(now=time.time() + 86_400)
    ask(86_400)
    states = states_of(store)
    assert before.holds(states)
    after = before.confirmed(states, "network")
    assert after.flags.expires_at == states["flags"].expires_at > before.flags.expires_at
    assert after.flags.flags == before.flags.flags


def test_other_content_is_not_the_same_list(hub: Hub, fetched: tuple[HubStore, Callable[[float], None]]) -> None:
    store, ask = fetched
    before = SignedListing(store, states_of(store), "network", "http://hub.test/")
    hub.set("featured", [{"id": "default", "models": ["a/one"]}]).publish()
    ask(1)
    assert not before.holds(states_of(store))


def test_a_list_that_was_swept_knows_its_unfit_models_without_looking_again(tmp_path: Path) -> None:
    hub = Hub(tmp_path)
    hub.models("fit", {"id": "unfit", "name": "Unfit", "files": [{"path": "../../x"}]}).publish()
    store = HubStore(tmp_path / "store")
    sync(store, FolderFetch(hub.tree), hub.root, now=time.time, on_models=index)
    listing = SignedListing(store, states_of(store), "cache", hub.url)
    assert listing.sweep(threading.Event()) == ["unfit"]
    assert listing.get("unfit") is None
    fit = listing.get("fit")
    assert fit is not None
    assert (fit.id, fit.files[0].size) == ("fit", 1_000_000_000)
    store.close()
