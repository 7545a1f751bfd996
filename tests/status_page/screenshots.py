"""The pictures in docs/status-page.md, of a server that runs: `PYTHONPATH=tests python -m status_page.screenshots`.

The server is one that has the model: `sie-triton up -m sentence-transformers/all-MiniLM-L6-v2`, for example.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from PIL import Image

from status_page.browser import Browser, find_browser

QUERY = "How do plants make sugar?"
TEXTS = (
    "Photosynthesis turns light, water and carbon dioxide into glucose.",
    "The mitochondrion is the powerhouse of the cell.",
    "A sonata has three movements.",
    "Leaves look green because chlorophyll reflects green light.",
)
COLOURS = 64


def main() -> None:
    """Take both pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="where the server is")
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2", help="what the box is tried with")
    parser.add_argument("--folder", type=Path, default=Path("docs"), help="where the pictures go")
    given = parser.parse_args()
    program = find_browser()
    if program is None:
        parser.exit(1, "no Chromium is installed\n")
    with Browser(program) as browser:
        browser.look(width=980, height=600)
        browser.open(f"{given.url}/")
        browser.until("document.querySelector('#models table')")
        browser.choose("#model", given.model)
        browser.fill("#query", QUERY)
        browser.fill("#texts", "\n".join(TEXTS))
        for _ in range(20):
            browser.run("document.getElementById('result').replaceChildren()")
            browser.run("document.getElementById('go').click()")
            browser.until("document.querySelector('#result table') && !document.getElementById('go').disabled", 120)
        browser.run("document.activeElement.blur()")
        browser.run("document.dispatchEvent(new Event('visibilitychange'))")  # a report of what was just done
        browser.run("new Promise(go => setTimeout(go, 500))")
        save(browser.screenshot(), given.folder / "status-page.png")
        browser.look(width=390, height=780, dark=True)
        browser.run("scrollTo(0, 0)")
        save(browser.screenshot(whole=False), given.folder / "status-page-phone.png")


def save(picture: bytes, path: Path) -> None:
    """As a PNG of few colours, which is a third of the size."""
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(COLOURS).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
