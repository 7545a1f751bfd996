"""`examples/image_search.py` against the real server: the order is transformers' own, and the page needs nothing."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from e2e.processes import Serving
from frontend.pictures import encoded, noise
from PIL import Image

from .builds import MODEL
from .served import Reference

pytestmark = pytest.mark.e2e

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "image_search.py"
QUERY = "retrieval <systems> embed"
SIZES = {"a.png": (50, 80), "b.jpg": (300, 40), "below/c.gif": (24, 24), "d.webp": (64, 90), "below/e.bmp": (33, 20)}
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".gif": "GIF", ".webp": "WEBP", ".bmp": "BMP"}


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLE), *map(str, arguments), "--model", MODEL]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "pictures"
    (place / "below").mkdir(parents=True)
    for name, size in SIZES.items():
        path = place / name
        path.write_bytes(encoded(Image.fromarray(noise(*size)), FORMATS[path.suffix]))
    (place / "notes.txt").write_text("no picture")
    (place / "broken.png").write_bytes((place / "a.png").read_bytes()[:60])
    (place / "text.jpg").write_text("no picture either")
    return place


def test_pictures_are_ranked_and_shown(clip_serving: Serving, clip_root: Path, folder: Path, tmp_path: Path) -> None:
    shown = tmp_path / "found.html"
    done = run(folder, QUERY, "--url", clip_serving.url, "--page", shown)
    assert done.returncode == 0, done.stderr
    assert sorted(re.findall(r"left out `[^`]*/([^`]*)`", done.stderr)) == ["broken.png", "text.jpg"]
    reference = Reference(clip_root / "checkpoint")
    pictures = [Image.open(io.BytesIO((folder / name).read_bytes())).convert("RGB") for name in SIZES]
    scores = reference.seen(pictures) @ reference.read([QUERY])[0]
    best = [list(SIZES)[number] for number in np.argsort(-scores)]
    page = shown.read_text(encoding="utf-8")
    assert re.findall(r'alt="(.*?)"', page) == [Path(name).name for name in best]
    told = [float(score) for score in re.findall(r"\((-?[0-9.]+)\)</figcaption>", page)]
    np.testing.assert_allclose(told, np.sort(scores)[::-1], atol=1e-3)
    urls = re.findall(r'src="data:image/jpeg;base64,(.*?)"', page)
    first = Image.open(io.BytesIO(base64.b64decode(urls[0])))
    assert (len(urls), max(first.size) <= 240) == (len(SIZES), True)
    assert "<h1>retrieval &lt;systems&gt; embed</h1>" in page
    assert "http" not in page


def test_what_it_says_where_there_is_nothing_to_show(tmp_path: Path, folder: Path) -> None:
    done = run(tmp_path / "nowhere", QUERY)
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: no picture in" in done.stderr
    done = run(folder, QUERY, "--url", "http://127.0.0.1:9")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"hint: start one with `sie-triton up -m {MODEL}`" in done.stderr
