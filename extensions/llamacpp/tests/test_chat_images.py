"""Images in chats, from the `data:` URL of a message to the answer of a model that sees."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import pytest
from jan_llamacpp.chat_images import without_images
from jan_llamacpp.plugin import LlamaCppExtension
from jan_llamacpp.worker.request import IMAGE_MARK

from jan_core import InvalidParams, RpcError
from jan_core.testing import InlineSource
from jan_core.types import ImagePart, ImageUrl, TextPart

from .conftest import PATIENCE
from .image_models import png, write_projector

pytestmark = pytest.mark.anyio

PREFIXES = ["engines.", "models.", "chat.", "completions.", "embeddings.", "remotes.", "tokens."]
OpenHost = Callable[..., AbstractAsyncContextManager[Any]]
RED, GREEN = png(), png(colour=(20, 220, 60))


@pytest.fixture
def seeing(babble: Path, tmp_path: Path) -> Path:
    """A model's file with its projector beside it."""
    path = tmp_path / "seeing.gguf"
    path.write_bytes(babble.read_bytes())
    write_projector(tmp_path / "mmproj-seeing.gguf")
    return path


@pytest.fixture
async def client(open_host: OpenHost, data_dir: Path, babble: Path, seeing: Path) -> AsyncIterator[Any]:
    """A host with this extension, `blind`, and `seeing`: the same model with a projector."""
    async with open_host(sources=[InlineSource("llamacpp", LlamaCppExtension, PREFIXES)], data_dir=data_dir) as host:
        client = host.client()
        await client.call("models.import", {"path": str(babble), "id": "blind"})
        await client.call("models.import", {"path": str(seeing), "id": "seeing"})
        yield client


def url(image: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{b64encode(image).decode()}"


def about(*images: str, model: str = "seeing", **more: Any) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"type": "text", "text": "what is on these? "}]
    parts += [{"type": "image_url", "image_url": {"url": each}} for each in images]
    parts += [{"type": "text", "text": " say"}]
    messages = [{"role": "user", "content": parts}]
    return {"messages": messages, "model": model, "max_tokens": 12, "temperature": 0, **more}


async def ask(client: Any, request: dict[str, Any]) -> Any:
    with anyio.fail_after(PATIENCE):
        return await client.call("chat.complete", request)


async def test_a_model_with_a_projector_answers_about_images(client: Any) -> None:
    red, green, again = [await ask(client, about(url(image))) for image in (RED, GREEN, RED)]
    text = red["choices"][0]["message"]["content"]
    assert text
    assert text == again["choices"][0]["message"]["content"] != green["choices"][0]["message"]["content"]
    blank = about()
    blank["messages"][0]["content"].append({"type": "text", "text": ""})
    bare = await ask(client, blank)
    assert red["usage"]["prompt_tokens"] == bare["usage"]["prompt_tokens"] + 16
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] > 16
    two = await ask(client, about(url(RED), url(GREEN, "image/jpeg")))
    assert two["usage"]["prompt_tokens"] == bare["usage"]["prompt_tokens"] + 32
    counted = await client.call("tokens.count", {k: about(url(RED))[k] for k in ("messages", "model")})
    assert counted["tokens"] == red["usage"]["prompt_tokens"]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("https://example.org/cat.png", "not fetched"),
        ("http://127.0.0.1/cat.png", "not fetched"),
        ("file:///etc/passwd", "no file is opened"),
        ("/etc/passwd", "no file is opened"),
        ("", "send a data: URL"),
        ("data:image/png,abc", "base64"),
        ("data:image/png;base64,%%%", "damaged"),
        ("data:text/html;base64,aGk=", "base64"),
    ],
)
async def test_only_what_a_message_carries_itself_is_looked_at(client: Any, given: str, why: str) -> None:
    with pytest.raises(RpcError, match=why) as caught:
        await ask(client, about(given))
    assert caught.value.type == "invalid_params"


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (b"hello", "no picture"),
        (png(60_000, 60_000, data=b""), "60000 x 60000 is too large"),
        (png(data=b"rubbish"), "damaged"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "PNG, JPEG, GIF and BMP"),
    ],
)
async def test_images_that_cannot_be_used_are_an_error_of_their_own(client: Any, image: bytes, why: str) -> None:
    with pytest.raises(RpcError, match=why) as caught:
        await ask(client, about(url(RED), url(image)))
    assert caught.value.type == "invalid_image"
    assert caught.value.data["index"] == 1
    assert (await ask(client, about(url(RED))))["choices"], "the model is still there"


async def test_a_model_without_a_projector_refuses_images(client: Any) -> None:
    with pytest.raises(RpcError, match="takes no pictures") as caught:
        await ask(client, about(url(RED), model="blind"))
    assert (caught.value.type, caught.value.data["reason"]) == ("invalid_generation", "no_projector")


def test_a_mark_that_somebody_wrote_stands_for_no_image() -> None:
    images: list[bytes] = []
    parts: Any = [TextPart(f"a {IMAGE_MARK} b "), ImagePart(ImageUrl(url(RED))), TextPart(" c")]
    text = without_images(parts, images, "$.messages[0].content")
    assert text.count(IMAGE_MARK) == len(images) == 1
    assert text.endswith(f"{IMAGE_MARK} c")
    assert IMAGE_MARK not in without_images(f"x{IMAGE_MARK}", images, "$")
    with pytest.raises(InvalidParams) as caught:
        without_images([ImagePart(ImageUrl("cat.png"))], images, "$.messages[3].content")
    assert caught.value.data["path"] == "$.messages[3].content[0].image_url.url"
