"""Images in their wire form: `{"data": <encoded bytes>, "format": "jpeg"}`.

Encoded bytes stay as they are and are labelled by their first bytes. A path, an array or a Pillow image becomes
JPEG of quality 95, which needs Pillow.
"""

from __future__ import annotations

import base64
import io
import re
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from sie_sdk.types import PillowImage

JPEG_QUALITY = 95

# What a media format is called in requests.
_TOKEN = re.compile(r"[A-Za-z0-9.+-]{1,32}")

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"BM", "bmp"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"II+\x00", "tiff"),
    (b"MM\x00+", "tiff"),
)


def detect_format(data: bytes) -> str:
    """The format of an image by its first bytes. Raises `ValueError` if it is none of the supported ones."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    raise ValueError("Could not detect encoded image format from bytes; send jpeg, png, gif, webp, bmp or tiff")


def wire_item(item: Any) -> Any:
    """The item as it travels: itself, or a copy with its images converted in place.

    Raises `ValueError` for data that is not an image or not of its declared format, `FileNotFoundError` for a
    path that does not exist, `ImportError` if Pillow is needed and missing.
    """
    if not isinstance(item, Mapping) or not item.get("images"):
        return item
    return {**item, "images": [_wire_image(image) for image in item["images"]]}


def convert_item_images(item: dict[str, Any]) -> dict[str, Any]:
    """The same dictionary, its `images` replaced by what travels. Raises as `wire_item` does."""
    item.update(wire_item(item))
    return item


def convert_images_for_json(images: Sequence[Any]) -> list[dict[str, str]]:
    """Images for a JSON body: `data` in base64. Raises as `wire_item` does."""
    return [
        {"data": base64.b64encode(image["data"]).decode("ascii"), "format": image["format"]}
        for image in map(_wire_image, images)
    ]


def _wire_image(image: Any) -> dict[str, Any]:
    declared = None
    if isinstance(image, Mapping) and "data" in image:
        image, declared = image["data"], image.get("format")
    data = image if isinstance(image, bytes) else to_jpeg_bytes(image)
    detected = detect_format(data)
    if declared is not None and _canonical(declared) != detected:
        raise ValueError(f"Image format mismatch: declared '{declared}', detected '{detected}'")
    return {"data": data, "format": detected}


def _canonical(declared: object) -> str:
    if not isinstance(declared, str) or not _TOKEN.fullmatch(declared):
        raise ValueError(f"Image format must be a short ASCII token such as `png`, got {declared!r:.50}")
    name = declared.lower()
    return "jpeg" if name in ("jpg", "jpe") else name


def to_jpeg_bytes(image: Any, *, quality: int = JPEG_QUALITY) -> bytes:
    """A path, an array (H, W) or (H, W, C), or a Pillow image as JPEG: gray stays gray, all else becomes RGB.

    Encoded bytes are returned as they are. Raises as `wire_item` does.
    """
    if isinstance(image, bytes):
        return image
    picture = _open(image)
    if picture.mode not in ("L", "RGB"):
        picture = picture.convert("RGB")
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def _open(image: Any) -> PillowImage:
    if isinstance(image, (str, Path)):
        if not Path(image).exists():
            raise FileNotFoundError(f"Image file not found: {image}")
        opened: PillowImage
        with _pillow("a path").open(image) as opened:  # a file of several frames would stay open otherwise
            opened.load()
        return opened
    if isinstance(image, np.ndarray):
        if image.ndim not in (2, 3):
            raise ValueError(f"Expected 2D (grayscale) or 3D (H,W,C) array, got {image.ndim}D")
        converted: PillowImage = _pillow("an array").fromarray(image)
        return converted
    # If the caller holds a Pillow image, Pillow is imported already.
    loaded = sys.modules.get("PIL.Image")
    if loaded is not None and isinstance(image, loaded.Image):
        picture: PillowImage = image
        return picture
    raise ValueError(
        f"Unsupported image type: {type(image).__name__}; pass encoded bytes, a path, an array or a Pillow image"
    )


def _pillow(what: str) -> Any:
    try:
        return import_module("PIL.Image")
    except ImportError as error:
        raise ImportError(
            f"sending {what} as an image needs Pillow; install `sie-triton-sdk[images]`, or pass encoded bytes"
        ) from error
