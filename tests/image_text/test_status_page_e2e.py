"""The status page's box with pictures: a file that is uploaded ranks as its vector does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from e2e.processes import Serving
from PIL import Image
from sie_sdk import SIEClient
from sie_sdk.types import Item
from status_page.browser import Browser, find_browser

from .builds import MODEL

PROGRAM = find_browser()
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(PROGRAM is None, reason="no Chromium: install Debian's chromium-headless-shell"),
]
QUERY = "retrieval systems"


def test_pictures_are_ranked_beside_texts(clip_serving: Serving, tmp_path: Path) -> None:
    random = np.random.default_rng(16)
    paths = [tmp_path / name for name in ("one.png", "<b>two.png")]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (200, 300, 3), dtype=np.uint8)).save(path)
    with SIEClient(clip_serving.url) as client:
        asked: Any = client.encode(MODEL, Item(text=QUERY), is_query=True)
        items = [Item(text="hello, WORLD"), *(Item(images=[path.read_bytes()]) for path in paths)]
        found: Any = client.encode(MODEL, items)
    vectors = [one["dense"] / np.linalg.norm(one["dense"]) for one in (asked, *found)]
    alike = dict(zip(("hello, WORLD", "one.png", "<b>two.png"), np.stack(vectors[1:]) @ vectors[0], strict=True))
    assert PROGRAM is not None
    with Browser(PROGRAM) as browser:
        browser.open(f"{clip_serving.url}/")
        browser.until("document.querySelector('#models table') && !document.getElementById('picking').hidden")
        browser.choose("#model", MODEL)
        browser.fill("#query", QUERY)
        browser.fill("#texts", "hello, WORLD")
        browser.upload("#images", *paths)
        browser.run("document.getElementById('go').click()")
        browser.until("document.querySelector('#result table')")
        cells = (
            "[...document.querySelector('#result table').tBodies[0].rows].map(r => [...r.cells].map(c => c.innerText))"
        )
        rows = browser.run(cells)
        assert [row[1] for row in rows] == sorted(alike, key=lambda name: -alike[name])
        np.testing.assert_allclose([float(row[2]) for row in rows], sorted(alike.values(), reverse=True), atol=1e-4)
        assert browser.complaints == []
