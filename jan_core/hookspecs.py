"""Every hook there is: when it is called, what it gets, what it returns.

An extension implements a hook by a function of the same name marked `@hookimpl`; it may take fewer arguments than the
specification names. Arguments and results are plain data (`jan_core.types`); behaviour is named by a method of the
table.

An implementation may be `async def` or `def` (`jan_methods` and `jan_settings`: `def` only), not a generator. An async
one runs on the event loop; a plain one runs in one of a few worker threads of its extension's own, so it may block but
must not touch the event loop. Each runs in its own scope: if it raises, passes its deadline or returns the wrong type,
its own result is lost, the failure is recorded against its extension, and the others are not disturbed. The deadline
counts from when it first waits for something, and ends it by a cancellation; swallowing that holds up whoever called,
where implementations run in order. What blocks the event loop is named in the log and in `system.metrics`. An
implementation that has nothing to say returns None.

Three modes say how results meet:

* *broadcast*: all implementations run at once; the caller gets the list of outcomes.
* *first*: they run in order; the first result that is not None decides.
* *pipeline*: they run in order; each gets the value the one before returned (None: unchanged).
* *single*: the hook of one extension, called by the host for that extension alone.

pluggy's `wrapper`, `hookwrapper` and `historic` options are refused: their meaning is false for async implementations
and for reloads. Order is `tryfirst`, then ordinary, then `trylast`, and within each the order of the extensions' ids.
"""

# No `from __future__ import annotations` here: the annotations are read at run time to check what implementations
# return.
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec
import pluggy

from .events import Event
from .methods import Method
from .types import (
    Admission,
    AdoptedFile,
    Assembly,
    Budget,
    BuildChoice,
    DownloadFile,
    DownloadJob,
    DownloadSource,
    EngineBuild,
    Evidence,
    Flags,
    Hardware,
    InferenceEngine,
    InferenceOutcome,
    InferenceRequest,
    Message,
    ModelContext,
    ModelLoad,
    ModelRecord,
    ModelSource,
    PhaseChoice,
    Route,
    Thread,
)

if TYPE_CHECKING:
    from .context import Context
else:
    Context = Any

__all__ = ["PROJECT", "HookSpec", "Mode", "hookimpl", "hookspecs"]

PROJECT = "jan"
Mode = Literal["broadcast", "first", "pipeline", "single"]
F = TypeVar("F", bound=Callable[..., Any])

hookimpl = pluggy.HookimplMarker(PROJECT)
_marker = pluggy.HookspecMarker(PROJECT)


@dataclass(frozen=True, slots=True)
class HookSpec:
    """How one hook is called. `deadline` in seconds is each implementation's own."""

    name: str
    mode: Mode
    deadline: float
    function: Callable[..., Any]


def spec(mode: Mode, *, deadline: float = 5.0) -> Callable[[F], F]:
    def mark(function: F) -> F:
        function.__jan_spec__ = HookSpec(function.__name__, mode, deadline, function)  # type: ignore[attr-defined]
        return _marker(function)

    return mark


def hookspecs() -> dict[str, HookSpec]:
    """All hooks by name, in the order of this file."""
    return {name: f.__jan_spec__ for name, f in globals().items() if hasattr(f, "__jan_spec__")}


# -- life of one extension
# ----------------------------------------------------------------------------------------------


@spec("single", deadline=30.0)
def jan_activate(ctx: Context) -> None:
    """Start the extension.

    Called once per generation, after it was checked and before its methods and hooks are reachable. What is registered
    through `ctx` is undone by it. Raising fails the activation: an older generation goes on serving.

    :param ctx: the extension's context.
    """


@spec("single", deadline=10.0)
def jan_deactivate(ctx: Context) -> None:
    """Stop the extension.

    Called once per activated generation, after its last call has ended and before its context is disposed of. Raising
    is recorded and stops nothing.

    :param ctx: the context that `jan_activate` got.
    """


@spec("single", deadline=1.0)
def jan_export_state() -> Any:
    """Hand over state to the next generation, as plain data (None, bool, numbers, str, bytes, lists, dicts, Structs).

    Called on the old generation during a reload, while it still serves. Raising fails the reload.
    """


@spec("single", deadline=1.0)
def jan_restore_state(state: Any) -> None:
    """Take over state from the generation before.

    Called on the new generation after `jan_activate`, only when the old one exported something. Fields may be missing
    or unknown: the old source wrote them. Raising fails the reload.

    :param state: what `jan_export_state` of the old generation returned, as builtin types.
    """


@spec("single")
def jan_methods() -> list[Method]:
    """Contribute methods to the table; see `jan_core.methods_of`.

    Called once per generation while it is checked, before `jan_activate`. Names must begin with a prefix that the
    manifest claims. Raising fails the generation.
    """


@spec("single")
def jan_settings() -> type[msgspec.Struct]:
    """Name the Struct of this extension's settings. Every field needs a default.

    Called once per generation while it is checked. The values are at `ctx.settings`. Raising fails the generation.
    """


@spec("broadcast")
def jan_event(event: Event) -> None:
    """Hear an event that was emitted anywhere in the host, this extension's own included.

    Called after the event was emitted, one event after the other; slow listeners do not hold up who emitted it.

    :param event: what happened.
    """


# -- engines and inference
# ----------------------------------------------------------------------------------------------


@spec("broadcast", deadline=10.0)
def jan_engine_builds(hardware: Hardware) -> list[EngineBuild]:
    """Name engine builds that could run on this machine, with `refused` set on those that cannot and why.

    Called when a build must be chosen or explained; may look at the disk, must not use the network.

    :param hardware: what was detected.
    """


@spec("first")
def jan_select_engine_build(hardware: Hardware, builds: list[EngineBuild]) -> BuildChoice:
    """Choose the engine build to use, or None to leave it to the next.

    Called after `jan_engine_builds`; a choice of a build that is not among `builds` is an error.

    :param hardware: what was detected.
    :param builds: all candidates, refused ones included.
    """


@spec("broadcast")
def jan_inference_engines() -> list[InferenceEngine]:
    """Name engines that can answer chat requests, local or remote.

    Called for each request; must be quick and must not use the network.
    """


@spec("first")
def jan_route_inference(request: InferenceRequest, candidates: list[InferenceEngine]) -> Route:
    """Choose the engine that answers, or None to leave it to the next.

    Called for each request after `jan_before_inference`. A sensitive request is only ever offered local candidates.

    :param request: what is asked.
    :param candidates: engines that policy allows.
    """


@spec("pipeline")
def jan_before_inference(request: InferenceRequest) -> InferenceRequest:
    """Change a request, or refuse it by setting `refused`.

    Called for each request before it is routed. The first refusal ends the pipeline.

    :param request: what is asked, as changed so far.
    """


@spec("broadcast")
def jan_after_inference(request: InferenceRequest, outcome: InferenceOutcome) -> None:
    """Observe how a request ended. Called once per request, also when it failed or was cancelled.

    :param request: what was asked.
    :param outcome: how it went; it does not hold the answer's text.
    """


@spec("broadcast")
def jan_admit_load(load: ModelLoad) -> Admission:
    """Vote on loading an installed model: one refusal keeps it from being loaded, and its reason is shown.

    Called before a model's process is started, also when it is started again. Not called for requests to a model that
    is loaded. Must be quick: a request may be waiting.

    :param load: the model, and the files that would be read.
    """


# -- models and their roll-out
# ------------------------------------------------------------------------------------------


@spec("broadcast")
def jan_model_sources() -> list[ModelSource]:
    """Name hubs and catalogues. Called when sources are listed or refreshed; must not use the network itself."""


@spec("broadcast")
def jan_builtin_models() -> list[ModelRecord]:
    """The hard-coded list. Called in the phases `fallback` and `mixed` only."""


@spec("first")
def jan_rollout_phase(flags: Flags, evidence: Evidence) -> PhaseChoice:
    """Choose the phase the model list is in, or None to leave it to the next.

    Called at start and when flags or evidence change.

    :param flags: evaluated flags by name.
    :param evidence: what was measured of the dynamic list so far.
    """


@spec("pipeline")
def jan_filter_models(models: list[ModelRecord], context: ModelContext) -> list[ModelRecord]:
    """Take models out of what is recommended. Called for each list shown.

    :param models: the list so far.
    :param context: for whom; it stays on this machine.
    """


@spec("pipeline")
def jan_rank_models(models: list[ModelRecord], context: ModelContext) -> list[ModelRecord]:
    """Order what is recommended, best first. Called for each list shown, after `jan_filter_models`.

    :param models: the list so far.
    :param context: for whom; it stays on this machine.
    """


# -- downloads
# ----------------------------------------------------------------------------------------------------------


@spec("broadcast")
def jan_download_sources(file: DownloadFile) -> list[DownloadSource]:
    """Name places where a file can be had. Called when a download starts and when its sources run dry.

    :param file: what is wanted; its own `url` is a source already.
    """


@spec("first", deadline=60.0)
def jan_adopt_file(sha256: str, size: int) -> AdoptedFile:
    """Find a copy that this machine already has, so that nothing is downloaded; None when there is none.

    Called before a download starts, when its SHA-256 is known. The copy is verified by the caller.

    :param sha256: lower-case hex.
    :param size: bytes; 0 when unknown.
    """


@spec("broadcast")
def jan_admit_download(job: DownloadJob) -> Admission:
    """Vote on a download: one refusal keeps it from starting, and its reason is shown.

    Called before a download starts or resumes.

    :param job: what would be fetched, where to, and the free disk space.
    """


# -- conversations
# ------------------------------------------------------------------------------------------------------


@spec("pipeline")
def jan_assemble_context(thread: Assembly, budget: Budget) -> Assembly:
    """Decide which messages go to the model, so that they fit the context window.

    Called for each turn. An implementation returns an assembly with fewer, or changed, messages.

    :param thread: the prompt so far, with token counts.
    :param budget: how many tokens it may take.
    """


@spec("broadcast")
def jan_message_added(thread: Thread, message: Message) -> None:
    """React to a message. Called after it was stored durably; not called for incognito threads.

    :param thread: the conversation.
    :param message: what was added.
    """
