"""Other people's clients with pictures, unmodified: what they get is what transformers makes of the same pictures."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from frontend.pictures import encoded, noise
from image_text.served import Reference
from PIL import Image

from .calls import QUERY
from .conftest import drive
from .environment import Unavailable, image_interpreter
from .image_driver import GIF, JPEG, PNG

pytestmark = pytest.mark.official

Outcomes = Mapping[str, Any]
OURS = ("bytes", "wire form", "pillow", "array", "path", "mixed", "async", "no picture")
SMALL = (*(f"sie {name}" for name in OURS), *(f"openai {name}" for name in ("urls", "floats", "urls and a text")))
OTHERS = (
    *(f"llamaindex {name}" for name in ("image", "stream", "batch", "async", "query")),
    *(f"langchain {name}" for name in ("urls", "query")),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("pictures")
    (place / PNG).write_bytes(encoded(Image.fromarray(noise(61, 47)), "PNG"))
    (place / JPEG).write_bytes(encoded(Image.fromarray(noise(24, 16)).resize((120, 80)), "JPEG"))
    (place / GIF).write_bytes(encoded(Image.fromarray(noise(40, 33)).quantize(200), "GIF"))
    return place


@pytest.fixture(scope="module")
def small(interpreter: Path, url: str, folder: Path) -> Outcomes:
    """What SIE's and OpenAI's clients returned and raised."""
    return drive(interpreter, "image_driver", url, str(folder), "sie", "openai")


@pytest.fixture(scope="module")
def others(url: str, folder: Path) -> Outcomes:
    """What the classes of LlamaIndex and LangChain returned and raised."""
    if not os.environ.get("SIE_TRITON_ALL_CLIENTS"):
        pytest.skip("their packages take minutes to install: `SIE_TRITON_ALL_CLIENTS=1 make e2e` does")
    try:
        return drive(image_interpreter(), "image_driver", url, str(folder), "llamaindex", "langchain")
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def right(clip_checkpoint: Path, folder: Path) -> Mapping[str, Any]:
    """By name: a picture as it is, `…, sent as JPEG` as the SDK sends one, and the text."""
    reference = Reference(clip_checkpoint)
    pictures = {name: Image.open(io.BytesIO((folder / name).read_bytes())).convert("RGB") for name in (PNG, JPEG, GIF)}
    for name, one in {"array": pictures[PNG], "grey": Image.fromarray(np.asarray(pictures[PNG])[..., 0])}.items():
        pictures[name] = _as_jpeg(one)
    pictures["path"] = _as_jpeg(pictures[JPEG])
    vectors = dict(zip(pictures, reference.seen(list(pictures.values())), strict=True))
    return {**vectors, "text": reference.read([QUERY])[0]}


def _as_jpeg(picture: Image.Image) -> Image.Image:
    return Image.open(io.BytesIO(encoded(picture, "JPEG", quality=95))).convert("RGB")


def check(call: str, outcome: Any, right: Mapping[str, Any]) -> None:
    """Every vector is the reference's, or the refusal reached the caller in words."""
    png, gif, jpeg = (right[name] for name in (PNG, GIF, JPEG))
    if call.endswith("no picture"):
        assert "image data is not a decodable image - at `$.items[0].images[0].data`" in outcome["raised"]
        return
    wanted = {
        "bytes": [png, gif, jpeg],
        "wire form": [png],
        "pillow": [right["array"]],
        "array": [right["array"], right["grey"]],
        "path": [right["path"]] * 2,
        "mixed": [right["text"], (png + jpeg) / 2, gif],
        "async": [png],
        "urls": [png, gif, jpeg],
        "floats": [png, gif, jpeg],
        "urls and a text": [right["text"], png, gif, jpeg],
        "image": [right["path"]],
        "stream": [png],
        "batch": [png, gif, jpeg],
        "query": [right["text"]],
    }[call.partition(" ")[2]]
    assert isinstance(outcome, list), outcome
    np.testing.assert_allclose(outcome, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("call", SMALL)
def test_what_the_small_clients_get(call: str, small: Outcomes, right: Mapping[str, Any]) -> None:
    check(call, small[call], right)


def test_every_call_of_theirs_is_looked_at(small: Outcomes) -> None:
    assert sorted(small) == sorted(SMALL)


@pytest.mark.parametrize("call", OTHERS)
def test_what_llamaindex_and_langchain_get(call: str, others: Outcomes, right: Mapping[str, Any]) -> None:
    check(call, others[call], right)
