"""What a picture's bytes say of it before anything decodes them: its format and its size.

A picture of some kilobytes can announce a hundred thousand pixels a side; the decoder would take the memory for it. So
what is announced is read here first, and judged. The formats are those that mtmd's decoder (stb_image) and this module
both know; it knows more, and is given none of them. No pixel is decoded here.
"""

from __future__ import annotations

from .refusal import Refusal

__all__ = ["MOST_BYTES", "MOST_PICTURES", "check_pictures", "size_of"]

MOST_PICTURES = 16
MOST_BYTES = 20 << 20
"""Of all pictures of a request together."""
MOST_PIXELS = 50_000_000
LONGEST_SIDE = 16_384

_FRAMES = frozenset((0xC0, 0xC1, 0xC2))
"""JPEG markers of the frame headers stb_image decodes: baseline, extended, progressive."""


def check_pictures(pictures: list[bytes]) -> None:
    """Raises Refusal("invalid_image") for what is too many, too large, or no picture of a format that is read here."""
    if len(pictures) > MOST_PICTURES:
        raise Refusal("invalid_image", f"{len(pictures)} pictures are more than {MOST_PICTURES}")
    if sum(map(len, pictures)) > MOST_BYTES:
        raise Refusal("invalid_image", f"the pictures have more than {MOST_BYTES} bytes together")
    for index, data in enumerate(pictures):
        width, height = size_of(data) or (0, 0)
        if not width or not height:
            raise Refusal("invalid_image", "this is no picture: PNG, JPEG, GIF and BMP are read", index=index)
        if width * height > MOST_PIXELS or max(width, height) > LONGEST_SIDE:
            message = f"a picture of {width} x {height} is too large: {MOST_PIXELS} pixels, {LONGEST_SIDE} a side"
            raise Refusal("invalid_image", message, index=index)


def size_of(data: bytes) -> tuple[int, int] | None:
    """Width and height that a picture announces, in pixels; None where it is none."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _two(data, 16, 4, "big") if data[12:16] == b"IHDR" else None
    if data.startswith((b"GIF87a", b"GIF89a")):
        return _two(data, 6, 2, "little")
    if data.startswith(b"BM"):
        if int.from_bytes(data[14:18], "little") == 12:  # OS/2's
            return _two(data, 18, 2, "little")
        size = _two(data, 18, 4, "little", signed=True)
        return size and (size[0], abs(size[1]))  # a negative height: from top to bottom
    return _jpeg(data) if data.startswith(b"\xff\xd8") else None


def _two(data: bytes, at: int, width: int, order: str, *, signed: bool = False) -> tuple[int, int] | None:
    if len(data) < at + 2 * width:
        return None
    parts = (data[at : at + width], data[at + width : at + 2 * width])
    first, second = (int.from_bytes(part, "big" if order == "big" else "little", signed=signed) for part in parts)
    return first, second


def _jpeg(data: bytes) -> tuple[int, int] | None:
    """The size in the frame header that stb_image takes: it steps over what stands between two segments."""
    at = 2
    while (at := data.find(b"\xff", at)) >= 0:
        while at < len(data) and data[at] == 0xFF:
            at += 1
        if at + 3 > len(data):
            return None
        marker, length = data[at], int.from_bytes(data[at + 1 : at + 3], "big")
        if marker in _FRAMES:
            size = _two(data, at + 4, 2, "big")
            return size and (size[1], size[0])
        if marker in (0x00, 0xD9, 0xDA) or 0xD0 <= marker <= 0xD8 or length < 2:
            return None  # an end, or data, before there was a frame
        at += 1 + length
    return None
