"""A folder of pictures, ranked by a sentence: `sie_sdk`, a running server, and one page of HTML to look at.

    python examples/image_search.py my_pictures "a dog on a beach" --model openai/clip-vit-base-patch32

Every picture is sent once, as the bytes of its file; so is the sentence. Texts and pictures of CLIP and SigLIP have
vectors of length 1 in one space, whose product is the similarity. The page has small copies of the pictures in it, best
first: it is one file that needs nothing else. Pictures that the server cannot read are named and left out.

The exit code is 0 if a page was written, 2 if the folder has no pictures or the server gives no vectors.
"""

from __future__ import annotations

import argparse
import base64
import html
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from sie_sdk import SIEClient
from sie_sdk.errors import RequestError, SIEError
from sie_sdk.types import Item

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
# A request may have 34 MB, and pictures of phones have up to 8.
AT_A_TIME = 4
THUMBNAIL = (240, 240)
PAGE = """\
<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{query}</title>
<style>
body {{ font-family: sans-serif; margin: 2rem; }}
main {{ display: flex; flex-wrap: wrap; gap: 1rem; }}
figure {{ margin: 0; width: 240px; }}
img {{ max-width: 240px; }}
</style>
<h1>{query}</h1>
<main>
{figures}
</main>
</html>
"""
FIGURE = '<figure><img src="{url}" alt="{name}"><figcaption>{place}. {name} ({score:.3f})</figcaption></figure>'


class NothingToShowError(Exception):
    """No page can be made: the cause, and on a line of its own the cure."""

    def __init__(self, cause: str, cure: str) -> None:
        super().__init__(f"{cause}\n  hint: {cure}")


@dataclass(frozen=True)
class Found:
    """A picture and how near it is to the sentence, -1 to 1."""

    path: Path
    score: float


def rank(url: str, model: str, folder: Path, query: str) -> list[Found]:
    """The pictures of a folder, best first. Raises `NothingToShowError`."""
    paths = pictures_of(folder)
    found: list[Found] = []
    with SIEClient(url) as client:
        try:
            asked = client.encode(model, Item(text=query), wait_for_capacity=False)["dense"]
            for start in range(0, len(paths), AT_A_TIME):
                part = paths[start : start + AT_A_TIME]
                found += [Found(path, float(vector @ asked)) for path, vector in vectors_of(client, model, part)]
        except SIEError as error:
            cure = f"start one with `sie-triton up -m {model}`, or name another with `--url`"
            raise NothingToShowError(f"the server at {url} gives no vectors of `{model}`: {error}", cure) from None
    if not found:
        raise NothingToShowError(f"the server could read no picture of `{folder}`", "the lines above say why")
    return sorted(found, key=lambda one: -one.score)


def pictures_of(folder: Path) -> list[Path]:
    """What looks like a picture by its name, below a folder. Raises `NothingToShowError`."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        kinds = ", ".join(sorted(SUFFIXES))
        raise NothingToShowError(f"no picture in `{folder}`", f"name a folder that has files ending in {kinds}")
    return paths


def vectors_of(client: SIEClient, model: str, paths: Sequence[Path]) -> list[tuple[Path, np.ndarray]]:
    """The pictures of one request with their vectors. One that is refused is told of, and the others are sent again."""
    try:
        results = client.encode(model, [Item(images=[path.read_bytes()]) for path in paths])
    except (RequestError, ValueError) as refusal:  # the SDK itself refuses bytes that no picture begins with
        if len(paths) > 1:
            return [one for path in paths for one in vectors_of(client, model, [path])]
        if isinstance(refusal, RequestError) and refusal.status_code != 400:
            raise
        print(f"left out `{paths[0]}`: {refusal}", file=sys.stderr)
        return []
    return [(path, result["dense"]) for path, result in zip(paths, results, strict=True)]


def page(query: str, found: Sequence[Found]) -> str:
    """One file of HTML, with the pictures in it."""
    figures = [
        FIGURE.format(url=thumbnail(one.path), name=html.escape(one.path.name), place=place, score=one.score)
        for place, one in enumerate(found, start=1)
    ]
    return PAGE.format(query=html.escape(query), figures="\n".join(figures))


def thumbnail(path: Path) -> str:
    """A small copy as a `data:` URL."""
    with Image.open(path) as picture:
        small = picture.convert("RGB")
    small.thumbnail(THUMBNAIL)
    written = io.BytesIO()
    small.save(written, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(written.getvalue()).decode()}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder with pictures, searched with all below it")
    parser.add_argument("query", help="what to look for, as a sentence")
    parser.add_argument("--model", default="openai/clip-vit-base-patch32")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--page", type=Path, default=Path("found.html"), help="the file to write")
    options = parser.parse_args()
    try:
        found = rank(options.url, options.model, options.folder, options.query)
    except NothingToShowError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options.page.write_text(page(options.query, found), encoding="utf-8")
    for place, one in enumerate(found[:10], start=1):
        print(f"{place:2}. {one.score:.3f}  {one.path}")
    print(f"{len(found)} pictures in {options.page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
