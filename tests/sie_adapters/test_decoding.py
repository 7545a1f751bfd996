"""SIE's own decoder on files of every kind that clients send: the same pixels as ours, or refused as here."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from frontend.pictures import encoded, noise
from PIL import Image, ImageCms
from sie_frontend.contract.errors import WireError
from sie_frontend.contract.requests import Limits
from sie_frontend.images.opening import Opener
from sie_frontend.images.options import view_of

pytestmark = pytest.mark.official

THEIRS = """
import hashlib, json, sys
from pathlib import Path
from sie_server.types.inputs import decode_image
told = {}
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        made = decode_image({"data": path.read_bytes(), "format": None}, image_index=0)
    except ValueError:
        told[path.name] = None
    else:
        told[path.name] = [made.mode, *made.size, hashlib.sha256(made.tobytes()).hexdigest()]
print(json.dumps(told))
"""


def files() -> Iterator[tuple[str, bytes]]:
    """Names and bytes."""
    random = np.random.default_rng(1)
    picture = Image.fromarray(noise(37, 53)).resize((200, 150), Image.Resampling.BICUBIC)
    clear = picture.convert("RGBA")
    clear.putalpha(Image.fromarray(random.integers(0, 256, (150, 200), dtype=np.uint8)))
    few = picture.quantize(16)

    def made(image: Image.Image, format: str, **settings: Any) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, format, **settings)
        return buffer.getvalue()

    deep = Image.fromarray(random.integers(0, 65536, (30, 40), dtype=np.uint16))
    yield from ((f"deep.{kind}", made(deep, kind)) for kind in ("PNG", "TIFF"))
    yield "float.TIFF", made(Image.fromarray(random.random((30, 40), dtype=np.float32)), "TIFF")
    yield from ((f"ink.{kind}", made(picture.convert("CMYK"), kind)) for kind in ("JPEG", "TIFF"))
    yield from ((f"bits.{kind}", made(picture.convert("1"), kind)) for kind in ("PNG", "TIFF", "BMP"))
    yield from ((f"clear.{kind}", made(clear, kind)) for kind in ("PNG", "TIFF", "BMP"))
    yield "clear.WEBP", made(clear, "WEBP", lossless=True)
    yield "few.PNG", made(few, "PNG", transparency=bytes(range(16)))
    yield "few.GIF", made(few, "GIF", transparency=2)
    yield "grey.PNG", made(picture.convert("L"), "PNG", transparency=100)
    yield "lab.TIFF", made(picture.convert("LAB"), "TIFF")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    yield from ((f"profile.{kind}", made(picture, kind, icc_profile=profile)) for kind in ("JPEG", "PNG"))
    yield "progressive.JPEG", made(picture, "JPEG", progressive=True)
    for number in range(5, 9):
        exif = Image.Exif()
        exif[0x0112] = number
        yield from ((f"turned{number}.{kind}", made(picture, kind, exif=exif)) for kind in ("JPEG", "PNG", "TIFF"))
    more = {"save_all": True, "append_images": [picture.rotate(20), picture.rotate(40)]}
    yield from ((f"several.{kind}", made(picture, kind, **more)) for kind in ("WEBP", "GIF", "PNG", "TIFF", "MPO"))
    for size in ((1, 5000), (5000, 1), (1, 1), (3, 1), (1, 3)):
        yield f"{size[0]}x{size[1]}.PNG", encoded(Image.fromarray(noise(*size)), "PNG")
    whole = made(picture, "JPEG")
    yield from (("tail.JPEG", whole + b"rest" * 50), ("cut.JPEG", whole[:-2]), ("half.JPEG", whole[: len(whole) // 2]))
    whole = made(picture, "PNG")
    yield from (("tail.PNG", whole + b"rest"), ("cut.PNG", whole[:-12]), ("half.PNG", whole[: len(whole) // 2]))


def ours(data: bytes) -> list[Any] | None:
    def told(image: Image.Image) -> list[Any]:
        return [image.mode, *image.size, hashlib.sha256(image.tobytes()).hexdigest()]

    try:
        (made,) = Opener(Limits(), view_of({})).opened([data], "items[0]", told)
    except WireError as refusal:
        assert refusal.status == 400
        return None
    return made


def test_every_file_has_the_same_pixels(tmp_path: Path) -> None:
    python = os.environ.get("SIE_TRITON_SIE_SERVER_PYTHON")
    if not python:
        pytest.skip("SIE_TRITON_SIE_SERVER_PYTHON names no interpreter with sie-server 0.10.1")
    given = dict(files())
    for name, data in given.items():
        (tmp_path / name).write_bytes(data)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [python, "-c", THEIRS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=tmp_path)
    theirs = json.loads(done.stdout.splitlines()[-1])
    assert {name: ours(data) for name, data in given.items()} == theirs
    assert sum(found is None for found in theirs.values()) >= 2
