"""Each hook once, through its typed method: arguments arrive, results come back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from jan_core import Event, hookimpl
from jan_core.host import Host
from jan_core.types import (
    Admission,
    AdoptedFile,
    Assembly,
    Budget,
    BuildChoice,
    ChatMessage,
    ChatRequest,
    DownloadFile,
    DownloadJob,
    DownloadSource,
    EngineBuild,
    Evidence,
    Hardware,
    InferenceEngine,
    InferenceOutcome,
    InferenceRequest,
    Message,
    ModelContext,
    ModelFile,
    ModelLoad,
    ModelRecord,
    ModelSource,
    PhaseChoice,
    Route,
    Thread,
)

HARDWARE = Hardware("linux", "x86_64", "some cpu", 2, 4, ["avx2"], 8, 4)
BUILD = EngineBuild("cpu-1", "cpu", "1.0")
ENGINE = InferenceEngine("local", "local", "chat.complete")
REQUEST = InferenceRequest(ChatRequest(messages=[ChatMessage("user", "hi")]))
OUTCOME = InferenceOutcome("local", "m", 1.0)
MODEL = ModelRecord("m", "M")
FILE = DownloadFile("f", "http://localhost/f")
JOB = DownloadJob("1", FILE, "/tmp/f", 1)
THREAD = Thread("t", "T", "now", "now")
MESSAGE = Message("m", "t", 1, "user", "hi", "now")
ASSEMBLY = Assembly(THREAD, [ChatMessage("user", "hi")], [1], ["m"])


class All:
    """Implements every hook that many may answer, and keeps what it was given."""

    def __init__(self) -> None:
        self.given: dict[str, Any] = {}

    @hookimpl
    async def jan_event(self, event: Event) -> None:
        self.given.setdefault("events", []).append(event.name)

    @hookimpl
    async def jan_engine_builds(self, hardware: Hardware) -> list[EngineBuild]:
        self.given["hardware"] = hardware
        return [BUILD]

    @hookimpl
    async def jan_select_engine_build(self, hardware: Hardware, builds: list[EngineBuild]) -> BuildChoice:
        return BuildChoice(builds[0].id, "the only one")

    @hookimpl
    async def jan_inference_engines(self) -> list[InferenceEngine]:
        return [ENGINE]

    @hookimpl
    async def jan_route_inference(self, request: InferenceRequest, candidates: list[InferenceEngine]) -> Route:
        return Route(candidates[-1].id, request.origin)

    @hookimpl
    async def jan_before_inference(self, request: InferenceRequest) -> InferenceRequest:
        return InferenceRequest(request.chat, origin="changed")

    @hookimpl
    async def jan_after_inference(self, request: InferenceRequest, outcome: InferenceOutcome) -> None:
        self.given["outcome"] = outcome

    @hookimpl
    async def jan_admit_load(self, load: ModelLoad) -> Admission:
        return Admission(False, load.files[0].name)

    @hookimpl
    async def jan_model_sources(self) -> list[ModelSource]:
        return [ModelSource("hub", "Hub", "registry.hub")]

    @hookimpl
    async def jan_builtin_models(self) -> list[ModelRecord]:
        return [MODEL]

    @hookimpl
    async def jan_rollout_phase(self, flags: dict[str, Any], evidence: Evidence) -> PhaseChoice:
        return PhaseChoice("mixed" if flags.get("mixed") else "fallback", f"{evidence.requests} requests")

    @hookimpl
    async def jan_filter_models(self, models: list[ModelRecord], context: ModelContext) -> list[ModelRecord]:
        return [m for m in models if m.id != context.query]

    @hookimpl
    async def jan_rank_models(self, models: list[ModelRecord], context: ModelContext) -> list[ModelRecord]:
        return models[::-1]

    @hookimpl
    async def jan_download_sources(self, file: DownloadFile) -> list[DownloadSource]:
        return [DownloadSource(file.url)]

    @hookimpl
    async def jan_adopt_file(self, sha256: str, size: int) -> AdoptedFile:
        return AdoptedFile(f"/{sha256}", str(size))

    @hookimpl
    async def jan_admit_download(self, job: DownloadJob) -> Admission:
        return Admission(False, job.id)

    @hookimpl
    async def jan_assemble_context(self, thread: Assembly, budget: Budget) -> Assembly:
        thread.notes.append(f"{budget.prompt} tokens")
        return thread

    @hookimpl
    async def jan_message_added(self, thread: Thread, message: Message) -> None:
        self.given["message"] = message

    @hookimpl
    def jan_export_state(self) -> Any:
        return {"kept": 1}

    @hookimpl
    def jan_restore_state(self, state: Any) -> None:
        self.given["state"] = state


@pytest.fixture
def plugin() -> All:
    return All()


@pytest.fixture
async def host(open_host: Any, plugin: All) -> AsyncIterator[Host]:
    async with open_host(plugin) as opened:
        yield opened


async def test_engine_hooks(host: Host, plugin: All) -> None:
    assert (await host.hooks.engine_builds(HARDWARE)).values == [[BUILD]]
    assert plugin.given["hardware"] == HARDWARE
    chosen = await host.hooks.select_engine_build(HARDWARE, [BUILD])
    assert chosen is not None
    assert chosen.value == BuildChoice("cpu-1", "the only one")


async def test_inference_hooks(host: Host, plugin: All) -> None:
    assert (await host.hooks.inference_engines()).values == [[ENGINE]]
    route = await host.hooks.route_inference(REQUEST, [ENGINE])
    assert route is not None
    assert route.value == Route("local", "chat.complete")
    assert (await host.hooks.before_inference(REQUEST)).origin == "changed"
    await host.hooks.after_inference(REQUEST, OUTCOME)
    assert plugin.given["outcome"] == OUTCOME


async def test_model_hooks(host: Host) -> None:
    load = ModelLoad("m", [ModelFile("m.gguf")])
    assert (await host.hooks.admit_load(load)).values == [Admission(False, "m.gguf")]
    assert (await host.hooks.model_sources()).values[0][0].id == "hub"
    assert (await host.hooks.builtin_models()).values == [[MODEL]]
    phase = await host.hooks.rollout_phase({"mixed": True}, Evidence(requests=3))
    assert phase is not None
    assert phase.value == PhaseChoice("mixed", "3 requests")
    assert await host.hooks.filter_models([MODEL], ModelContext(query="m")) == []
    other = ModelRecord("n", "N")
    assert await host.hooks.rank_models([MODEL, other], ModelContext()) == [other, MODEL]


async def test_download_hooks(host: Host) -> None:
    assert (await host.hooks.download_sources(FILE)).values == [[DownloadSource("http://localhost/f")]]
    adopted = await host.hooks.adopt_file("ab", 7)
    assert adopted is not None
    assert adopted.value == AdoptedFile("/ab", "7")
    assert (await host.hooks.admit_download(JOB)).values == [Admission(False, "1")]


async def test_conversation_hooks(host: Host, plugin: All) -> None:
    assembly = await host.hooks.assemble_context(ASSEMBLY, Budget("m", 100, 40))
    assert assembly.notes == ["60 tokens"]
    await host.hooks.message_added(THREAD, MESSAGE)
    assert plugin.given["message"] == MESSAGE


async def test_the_event_hook(host: Host, plugin: All) -> None:
    await host.hooks.event(Event("hello"))
    assert "hello" in plugin.given["events"]


async def test_the_hand_over_hooks_of_one_generation(host: Host, plugin: All) -> None:
    generation = host.lifecycle.extensions["test"].current
    assert generation is not None
    exported = await host.dispatcher.single(generation, "jan_export_state")
    assert exported is not None
    assert exported.value == {"kept": 1}
    await host.dispatcher.single(generation, "jan_restore_state", state=exported.value)
    assert plugin.given["state"] == {"kept": 1}
    assert await host.dispatcher.single(generation, "jan_settings") is None
