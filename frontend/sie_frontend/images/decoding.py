"""Encoded pictures, which strangers sent, to RGB. Pillow decodes them: the contract's vectors are of what it gives.

The size is read of the header before a pixel is decoded. As SIE has it, the first frame is taken, EXIF's orientation is
not followed (Pillow itself turns a TIFF), and alpha is dropped rather than composed; a `View` says otherwise.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
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

# How files begin that Pillow might read and that are not served. Others are no pictures, or none that SIE reads either.
_OTHERS: Final = (
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\1\0", "ICO"),
    (b"8BPS", "PSD"),
    (b"qoif", "QOI"),
    (b"DDS ", "DDS"),
)
_AVIF: Final = (b"ftypavif", b"ftypavis")

# A progressive JPEG is drawn over and over, once for each of its scans: ten are usual, and a scan may have no more than
# twenty bytes. What begins one occurs nowhere else in the data.
MAX_SCANS: Final = 100
_SCAN: Final = b"\xff\xda"
_JPEG: Final = b"\xff\xd8\xff"

# What stands before the pixels is read piece by piece, in Python: markers of a JPEG, chunks of a PNG, blocks of a GIF.
# A picture has dozens, and a PNG of the largest body that is served in chunks of a kilobyte a hundred thousand. A body
# of nothing else has thirty million, which took half a minute.
MAX_PIECES: Final = 200_000

# Comments of a PNG are inflated although nobody asks for them, 64 megabytes of them unless Pillow is told otherwise.
PngImagePlugin.MAX_TEXT_MEMORY = 8 << 20

# Pillow tells whoever runs it about odd pictures. Here they are somebody else's, and as many as somebody likes.
warnings.filterwarnings("ignore", module=r"PIL\.")


# What EXIF's orientations ask for, by the number that stands for each; 1 is upright.
_ORIENTATION: Final = 0x0112
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class View:
    """What is done to a picture beside decoding it.

    `turned`: the way that its EXIF says. `on_white`: what alpha lets through is white, and does not count as if alpha
    were not there.
    """

    turned: bool = False
    on_white: bool = False


AS_STORED: Final = View()
"""As SIE has it: neither."""


class Unreadable(Exception):
    """The bytes are no picture of a format that is served, or a damaged one; the message is one for the client."""

    def __init__(self, message: str = "image data is not a decodable image") -> None:
        super().__init__(message)


class _Pieces(io.BytesIO):
    """The bytes of one file, which may be read in so many pieces and no more."""

    left = MAX_PIECES

    def read(self, size: int | None = -1, /) -> bytes:
        """As every file has it. Raises `Unreadable` where there is no end to it."""
        self.left -= 1
        if self.left < 0:
            raise Unreadable(f"image data has more than {MAX_PIECES} pieces; save it anew")
        return super().read(size)


def decode(data: bytes, max_pixels: int, view: View = AS_STORED) -> Image.Image:
    """The picture in mode `RGB`. Raises `Unreadable`, also for more than `max_pixels` pixels, and `MemoryError`."""
    if data.startswith(_JPEG) and (scans := data.count(_SCAN)) > MAX_SCANS:
        raise Unreadable(f"image data is a JPEG of {scans} scans, and at most {MAX_SCANS} are read")
    try:
        with Image.open(_Pieces(data), formats=FORMATS) as picture:
            for width, height in (picture.size, _tile_of(picture)):
                if width * height > max_pixels:
                    raise Unreadable(
                        f"image data has {width} x {height} pixels, and at most {max_pixels} are read; scale it down"
                    )
            picture.load()
            orientation = _orientation(picture) if view.turned else None
            rgb = _on_white(picture) if view.on_white and picture.has_transparency_data else _without_alpha(picture)
            return rgb if orientation is None else rgb.transpose(orientation)
    except (Unreadable, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unreadable(f"image data has more pixels than the {max_pixels} that are read; scale it down") from error
    except Exception as error:  # a decoder may raise whatever its parser stumbles over
        if (other := _other_format(data)) is not None:
            message = f"image data is {other}, which is not read; send JPEG, PNG, GIF, WebP, BMP or TIFF"
            raise Unreadable(message) from error
        raise Unreadable from error


def _other_format(data: bytes) -> str | None:
    if data[4:12] in _AVIF:
        return "AVIF"
    return next((name for start, name in _OTHERS if data.startswith(start)), None)


def _without_alpha(picture: Image.Image) -> Image.Image:
    # A palette's alpha has no say in what follows; Pillow would warn that it goes.
    picture.info.pop("transparency", None)
    rgb: Image.Image = picture if picture.mode == "RGB" else picture.convert("RGB")
    return rgb


def _on_white(picture: Image.Image) -> Image.Image:
    """The picture over white, rounded as Pillow pastes through a mask."""
    seen = picture.convert("RGBA")
    canvas = Image.new("RGB", seen.size, (255, 255, 255))
    canvas.paste(seen, (0, 0), seen)
    return canvas


def _orientation(picture: Image.Image) -> Image.Transpose | None:
    """How the picture is to be turned. A damaged EXIF is none."""
    try:
        return _TURNS.get(picture.getexif().get(_ORIENTATION, 1))
    except MemoryError:
        raise
    except Exception:  # a parser of somebody's bytes may raise whatever it stumbles over
        return None


def _tile_of(picture: Image.Image) -> tuple[int, int]:
    """Width and height of a TIFF's tiles, which are decoded whole, however little of one is in the picture; else 0."""
    if not isinstance(picture, TiffImagePlugin.TiffImageFile):
        return 0, 0
    width, height = (picture.tag_v2.get(tag, 0) for tag in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH))
    return int(width), int(height)
