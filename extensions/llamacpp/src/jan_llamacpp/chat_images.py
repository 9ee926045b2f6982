"""The images of a chat's messages: taken out of their `data:` URLs, with a mark left in the text where each stood.

Nothing is fetched and no file is opened for a message: what an image is, it says itself. Whether the bytes are a
picture, and a bearable one, is judged where they are decoded (`worker/pictures.py`).
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode

from jan_core import InvalidParams
from jan_core.types import AudioPart, ContentPart, ImagePart, TextPart

from .worker.request import IMAGE_MARK

__all__ = ["without_images"]

_DATA = re.compile(r"data:(?:image/[\w.+-]+)?(?:;[\w=.+-]+)*;base64,", re.IGNORECASE | re.ASCII)


def without_images(content: str | list[ContentPart], images: list[bytes], path: str) -> str:
    """The content of a message as text, with `IMAGE_MARK` for each image, whose bytes are added to `images`.

    `path`: of the content, for errors. Raises InvalidParams for sound, and for what is not a `data:` URL.
    """
    if isinstance(content, str):
        return _plain(content)
    texts: list[str] = []
    for number, part in enumerate(content):
        match part:
            case TextPart(text):
                texts.append(_plain(text))
            case ImagePart(image):
                images.append(_bytes(image.url, f"{path}[{number}].image_url.url"))
                texts.append(IMAGE_MARK)
            case AudioPart():
                raise InvalidParams("no engine here listens: text and images only", path=f"{path}[{number}]")
    return "".join(texts)


def _plain(text: str) -> str:
    """A mark that somebody wrote stands for no image."""
    return text.replace(IMAGE_MARK, IMAGE_MARK.replace("__>", "__ >"))


def _bytes(url: str, path: str) -> bytes:
    found = _DATA.match(url)
    if found is None:
        if url[:5].lower() == "data:":
            raise InvalidParams("an image's data: URL must be in base64", path=path)
        message = "images are not fetched, and no file is opened for one: send a data: URL (data:image/png;base64,…)"
        raise InvalidParams(message, path=path)
    try:
        return b64decode(url[found.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise InvalidParams("the image's base64 is damaged", path=path) from None
