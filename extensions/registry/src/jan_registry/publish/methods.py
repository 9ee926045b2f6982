"""The methods `registry.operator.*`: an operator's folder made, edited, published and looked after.

Thin: they name paths and times, and leave the work to the modules beside, in worker threads. Nothing of signing is
imported before one of them is called.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread
import msgspec

from jan_core import Call, InvalidParams, StorageError, method

from ..hubs.errors import HubInvalid, HubRefused, HubUnreachable
from ..settings import SourceSetting
from . import answers, shapes
from .errors import (
    KeyUnusable,
    MissingSignatures,
    PublishBusy,
    PublishConflict,
    PublishInvalid,
    TreeDamaged,
    TreeUnknown,
    WorkspaceInvalid,
    WorkspaceUnknown,
)

if TYPE_CHECKING:
    from ..collections import Constraint, Record
    from ..hubs.base import HubClient
    from .changes import Changes

__all__ = ["OperatorMethods"]

T = TypeVar("T")
_READING = [WorkspaceUnknown, TreeDamaged]
_EDITING = [*_READING, WorkspaceInvalid]
_SIGNING = [*_EDITING, KeyUnusable, MissingSignatures, PublishBusy, PublishConflict, PublishInvalid, TreeUnknown]


class _CalledOff(Exception):
    """Whoever asked does not wait any more."""


class OperatorMethods:
    """Handlers. `sources`: the other hubs there are; `open_hub`: the client of one, which may use the network."""

    def __init__(
        self, sources: Callable[[], Sequence[SourceSetting]], open_hub: Callable[[SourceSetting], HubClient]
    ) -> None:
        self._sources, self._open_hub = sources, open_hub

    @method("registry.operator.init", errors=[WorkspaceInvalid, PublishInvalid, KeyUnusable, PublishBusy])
    async def init(self, params: shapes.Init) -> answers.Founded:
        """Make an operator's folder: keys for every role, an empty hub, and files to begin with."""
        from .founding import found

        if not params.passphrase and not params.unprotected:
            raise InvalidParams("give a passphrase for the private keys, or say `unprotected`", path="$.passphrase")
        work = partial(found, url=params.url, signers=params.signers, now=time.time())
        return await _thread(partial(work, _folder(params.folder), params.name, passphrase=_secret(params.passphrase)))

    @method("registry.operator.status", errors=_READING)
    async def status(self, params: shapes.Folder) -> answers.OperatorStatus:
        """How an operator's folder stands: what would be published, what is wrong, whose signature is due or waits."""
        from .publishing import status

        return await _thread(partial(status, _folder(params.folder), now=time.time()))

    @method("registry.operator.add", errors=_EDITING)
    async def add(self, params: shapes.Add, call: Call) -> answers.Changed:
        """Add a model to the folder, or change one: from what is given, a URL, or a GGUF file on this machine, whose
        pieces are hashed."""
        from .adding import add

        def progress(done: int, total: int) -> None:
            from anyio import from_thread

            try:
                from_thread.check_cancelled()
            except BaseException as error:  # of a class that each event loop has for itself
                raise _CalledOff from error
            from_thread.run_sync(partial(call.progress, "hashing", done=float(done), total=float(total)))

        try:
            return await _thread(partial(add, _folder(params.folder), params, progress))
        except _CalledOff:  # nothing was written so far
            await anyio.lowlevel.checkpoint()  # raises, for the call is cancelled
            raise

    @method("registry.operator.feature", errors=_EDITING)
    async def feature(self, params: shapes.Feature) -> answers.Changed:
        """Change a featured list; one that is not there is made."""
        from .editing import feature

        def edit(changes: Changes) -> str:
            shown = feature(
                changes,
                params.slot,
                params.models,
                at=params.at or None,
                remove=params.remove,
                only=params.only,
                title=params.title,
                priority=params.priority,
                target=None if params.where is None else _target(params.where),
            )
            return f"{params.slot}: {', '.join(shown) or 'nothing'}"

        return await _thread(partial(_edit, params.folder, edit))

    @method("registry.operator.flag", errors=_EDITING)
    async def flag(self, params: shapes.Flagging) -> answers.Changed:
        """Set a flag, for everybody or for some."""
        from .editing import set_flag

        def edit(changes: Changes) -> str:
            set_flag(
                changes,
                params.id,
                params.value,
                percent=params.percent,
                target=_target(params.where),
                only=params.only,
                remove=params.remove,
                salt=params.salt,
            )
            return ""

        return await _thread(partial(_edit, params.folder, edit))

    @method("registry.operator.experiment", errors=_EDITING)
    async def experiment(self, params: shapes.Experimenting) -> answers.Changed:
        """Begin, pause, go on with or end an experiment on featured lists."""
        from .editing import end_experiment, start_experiment

        def edit(changes: Changes) -> str:
            if params.state != "running":
                end_experiment(changes, params.id, params.state)
                return ""
            start_experiment(
                changes,
                params.id,
                [(branch.id, branch.slot, branch.ratio) for branch in params.branches],
                title=params.title,
                percent=params.percent,
                target=None if params.where is None else _target(params.where),
                metric=params.metric,
                salt=params.salt,
            )
            return ""

        return await _thread(partial(_edit, params.folder, edit))

    @method("registry.operator.revoke", errors=_EDITING)
    async def revoke(self, params: shapes.Revoke) -> answers.Changed:
        """Revoke a file or a model: clients neither download nor load it any more. It leaves the featured lists."""
        from .editing import revoke

        today = datetime.fromtimestamp(time.time(), UTC).date().isoformat()

        def edit(changes: Changes) -> str:
            given = {"sha256": params.sha256, "model": params.model, "reason": params.reason}
            return revoke(changes, **given, at=today, unknown=params.unknown)

        return await _thread(partial(_edit, params.folder, edit))

    @method("registry.operator.import", errors=[*_EDITING, HubUnreachable, HubRefused, HubInvalid])
    async def import_(self, params: shapes.Import, call: Call) -> answers.Imported:
        """Take models over from another hub, or from a copy of Jan's catalogue."""
        from .importing import catalogue_copy, collect, to_record, to_stats
        from .intake import take_in

        if bool(params.source) == bool(params.file):
            raise InvalidParams("name a source or a file", path="$.source")
        hub = catalogue_copy(_folder(params.file)) if params.file else self._hub(params)
        found = collect(
            hub,
            ids=params.ids,
            text=params.text,
            limit=params.limit,
            pin=not params.file,
            each=lambda done, total: call.progress("asking", done=done, total=total),
        )
        said = answers.Imported([], [], 0, [], [], [])
        endpoint = hub.url if hub.kind in ("huggingface", "cortexso") else ""
        records: list[Record] = []
        stats = []
        async for id, model, notes in found:
            said.notes += notes
            if not id:
                continue
            try:
                if model is None:
                    raise ValueError("there is no such model, or nothing in it that can be used")
                records.append(to_record(model, endpoint=endpoint))
                stats.append(to_stats(model) if params.stats else None)
            except ValueError as error:
                said.skipped.append(answers.NotImported(id, str(error)))
        work = partial(take_in, _folder(params.folder), records, [one for one in stats if one], said)
        return await _thread(partial(work, write_it=not params.dry_run))

    @method("registry.operator.publish", errors=_SIGNING)
    async def publish(self, params: shapes.Publish) -> answers.Publication:
        """Sign the folder into the tree that clients read; with `dry_run` only say what they would see."""
        from .publishing import publish_folder

        work = partial(publish_folder, _folder(params.folder), now=time.time(), dry_run=params.dry_run)
        expect = params.expect if params.expect >= 0 else None
        return await _thread(partial(work, only=params.only, passphrase=_secret(params.passphrase), expect=expect))

    @method("registry.operator.sign", errors=[PublishInvalid, KeyUnusable])
    async def sign(self, params: shapes.Sign) -> answers.Signed:
        """Sign metadata that wait for keys kept on this machine. Needs no network and no operator's folder."""
        from .ceremony import sign_waiting

        paths = [_folder(key) for key in params.keys]
        passphrase = _secret(params.passphrase)
        return await _thread(partial(sign_waiting, _folder(params.pending), paths, passphrase, show=params.show))

    @method("registry.operator.rotate_keys", errors=_SIGNING)
    async def rotate_keys(self, params: shapes.Rotate) -> answers.Changed:
        """Give a role other keys, or sign root or targets for another lifetime, and publish."""
        from .ceremony import renew_role, rotate_keys

        folder, passphrase, now = _folder(params.folder), _secret(params.passphrase), time.time()
        if params.renew:
            await _thread(partial(renew_role, folder, params.role, passphrase=passphrase, now=now))
            return answers.Changed([])
        add = [_folder(path) for path in params.add]
        work = partial(rotate_keys, folder, params.role, remove=params.remove, add=add, threshold=params.threshold)
        _, made = await _thread(partial(work, stolen=params.stolen, passphrase=passphrase, now=now))
        return answers.Changed(made)

    def _hub(self, params: shapes.Import) -> HubClient:
        for setting in self._sources():
            if setting.id == params.source:
                url = params.url or setting.url
                return self._open_hub(msgspec.structs.replace(setting, url=url))
        known = ", ".join(setting.id for setting in self._sources())
        raise InvalidParams(f"there is no source {params.source}; there are {known}", path="$.source")


def _edit(folder: str, edit: Callable[[Changes], str]) -> answers.Changed:
    from .changes import Changes

    changes = Changes(_folder(folder))
    note = edit(changes)
    return answers.Changed(changes.save(), note)


def _target(where: Sequence[str]) -> list[Constraint]:
    from .conditions import condition

    return [condition(text) for text in where]


def _folder(path: str) -> Path:
    found = Path(path)
    if not found.is_absolute():
        raise InvalidParams(f"the path must be absolute: {path[:200]}", path="$.folder")
    return found


def _secret(passphrase: str) -> bytes | None:
    return passphrase.encode() or None


async def _thread(work: Callable[[], T]) -> T:
    """Not given up when the caller goes: what was begun with keys and files is brought to its end."""

    def run() -> T:
        try:
            return work()
        except OSError as error:
            raise StorageError(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from error

    return await anyio.to_thread.run_sync(run)
