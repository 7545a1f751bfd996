"""Encoded pictures to RGB, with Pillow, which is what the contract's words are about: whoever wrote the bytes is a
stranger.

The size is read of the header before a pixel is decoded. As SIE has it, the first frame is taken, EXIF's orientation is
not followed, and alpha is dropped rather than composed.
"""

from __future__ import annotations

import io
import warnings
from typing import Final

# The formats that are served register themselves; Pillow's other ones are never asked.
from PIL import BmpImagePlugin, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

FORMATS: Final = tuple(
    plugin.format
    for plugin in (
        BmpImagePlugin.BmpImageFile,
        GifImagePlugin.GifImageFile,
        JpegImagePlugin.JpegImageFile,
        PngImagePlugin.PngImageFile,
        TiffImagePlugin.TiffImageFile,
        WebPImagePlugin.WebPImageFile,
    )
)

# A progressive JPEG is drawn over and over, once for each of its scans: ten are usual, and a scan may have no more than
# twenty bytes. What begins one occurs nowhere else in the data.
MAX_SCANS: Final = 100
_SCAN: Final = b"\xff\xda"
_JPEG: Final = b"\xff\xd8\xff"

# Pillow tells whoever runs it about odd pictures. Here they are somebody else's, and as many as somebody likes.
warnings.filterwarnings("ignore", module=r"PIL\.")


class Unreadable(Exception):
    """The bytes are no picture of a format that is served, or a damaged one; the message is one for the client."""

    def __init__(self, message: str = "image data is not a decodable image") -> None:
        super().__init__(message)


def decode(data: bytes, max_pixels: int) -> Image.Image:
    """The picture in mode `RGB`. Raises `Unreadable`, also for more than `max_pixels` pixels, and `MemoryError`."""
    if data.startswith(_JPEG) and (scans := data.count(_SCAN)) > MAX_SCANS:
        raise Unreadable(f"image data is a JPEG of {scans} scans, and at most {MAX_SCANS} are read")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > max_pixels:
                raise Unreadable(
                    f"image data has {width} x {height} pixels, and at most {max_pixels} are read; scale it down"
                )
            picture.load()
            # A palette's alpha has no say in what follows; Pillow would warn that it goes.
            picture.info.pop("transparency", None)
            return picture if picture.mode == "RGB" else picture.convert("RGB")
    except (Unreadable, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unreadable(f"image data has more pixels than the {max_pixels} that are read; scale it down") from error
    except Exception as error:  # a decoder may raise whatever its parser stumbles over
        raise Unreadable from error
