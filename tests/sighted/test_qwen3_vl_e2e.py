"""Qwen3-VL behind the real server, beside transformers' own model, processor and chat template."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from e2e.processes import Serving
from frontend.pictures import encoded
from PIL import Image
from sie_frontend.rows import Array
from sie_sdk import SIEClient
from sie_sdk.errors import RequestError
from sie_sdk.types import Item
from transformers import AutoTokenizer, Qwen2VLImageProcessorPil, Qwen3VLForConditionalGeneration

from .checkpoints import NAMES

pytestmark = pytest.mark.e2e
EMBEDDER, JUDGE = NAMES.values()
INSTRUCTION, RANKING = "Represent the user's input.", "Retrieve relevant documents for the query."
JUDGED = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".'
)


class Transformers:
    """The checkpoint, as SIE's adapters call transformers."""

    def __init__(self, folder: Path) -> None:
        self.model: Any = Qwen3VLForConditionalGeneration.from_pretrained(folder).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        bounds = {"shortest_edge": 256 * 28 * 28, "longest_edge": 1280 * 28 * 28}
        self.images: Any = Qwen2VLImageProcessorPil.from_pretrained(folder, size=bounds)

    def __call__(self, model: Any, system: str, content: list[Any]) -> Any:
        pictures = [part for part in content if not isinstance(part, str)]
        parts = [{"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in content]
        messages = [
            {"role": "system", "content": [{"type": "text", "text": system}]},
            {"role": "user", "content": parts},
        ]
        prompt = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        given: dict[str, Any] = dict(self.images(pictures, return_tensors="pt")) if pictures else {}
        first, *rest = prompt.split("<|image_pad|>")
        for grid, behind in zip(given.get("image_grid_thw", ()), rest, strict=True):
            first += "<|image_pad|>" * (int(grid.prod()) // 4) + behind
        ids = self.tokenizer(first, return_tensors="pt")["input_ids"]
        given["mm_token_type_ids"] = (ids == self.model.config.image_token_id).int()
        with torch.inference_mode():
            return model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **given)

    def vector(self, content: list[Any], system: str = INSTRUCTION) -> Array:
        state = self(self.model.model, system, content).last_hidden_state[0, -1]
        made: Array = torch.nn.functional.normalize(state, dim=0).numpy()
        return made

    def score(self, content: list[Any]) -> float:
        logits = self(self.model, JUDGED, [f"<Instruct>: {RANKING}", "<Query>:", *content]).logits[0, -1]
        yes, no = (self.tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no"))
        return torch.sigmoid(logits[yes] - logits[no]).item()


@pytest.fixture(scope="module")
def told(root: Path) -> Transformers:
    return Transformers(root / "checkpoint")


@pytest.fixture(scope="module")
def url(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = Serving(root / "repository", tmp_path_factory.mktemp("serving"))
    server.wait_ready()
    yield server.url
    assert server.stop() == 0


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[SIEClient]:
    with SIEClient(url) as made:
        yield made


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    random = np.random.default_rng(3)
    sizes = ((60, 50), (300, 40), (50, 60))
    return [Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]


def png(picture: Image.Image) -> bytes:
    return encoded(picture, "PNG")


def test_texts_and_pictures_of_one_request(client: SIEClient, told: Transformers, pictures: list[Image.Image]) -> None:
    """Each item is one row, whatever it has; other items of the request change nothing."""
    data = [png(picture) for picture in pictures]
    contents: list[list[Any]] = [
        ["retrieval systems embed"],
        [pictures[0]],
        [pictures[1], "a strip"],
        [pictures[2]],
        ["and"],
        [pictures[0], pictures[2], "both"],
    ]
    items = [
        Item(text="retrieval systems embed"),
        Item(images=[data[0]]),
        Item(text="a strip", images=[data[1]]),
        Item(images=[data[2]]),
        Item(text="and", images=[]),
        Item(text="both", images=[data[0], data[2]]),
    ]
    found = np.stack([result["dense"] for result in client.encode(EMBEDDER, items)])
    np.testing.assert_allclose(found, np.stack(list(map(told.vector, contents))), atol=1e-5, rtol=0)
    alone = client.encode(EMBEDDER, items[2])["dense"]
    np.testing.assert_allclose(alone, found[2], atol=1e-6, rtol=0)


def test_an_instruction_is_the_systems_text(client: SIEClient, told: Transformers, pictures: list[Image.Image]) -> None:
    item = Item(text="embed", images=[png(pictures[0])])
    found = client.encode(EMBEDDER, item, instruction="Find the words", is_query=True)["dense"]
    np.testing.assert_allclose(found, told.vector([pictures[0], "embed"], "Find the words."), atol=1e-5, rtol=0)


def test_pairs_are_scored_as_transformers_does(
    client: SIEClient, told: Transformers, pictures: list[Image.Image]
) -> None:
    data = [png(picture) for picture in pictures]
    query = Item(text="signals", images=[data[0]])
    items = [
        Item(id="text", text="sparse signals"),
        Item(id="picture", images=[data[1]]),
        Item(id="both", text="rare words", images=[data[2]]),
    ]
    asked = [pictures[0], "signals", "\n<Document>:"]
    right = {
        "text": told.score([*asked, "sparse signals"]),
        "picture": told.score([*asked, pictures[1]]),
        "both": told.score([*asked, pictures[2], "rare words"]),
    }
    found = {entry["item_id"]: entry["score"] for entry in client.score(JUDGE, query, items)["scores"]}
    assert found == pytest.approx(right, abs=1e-5)


def test_usage_counts_texts_and_pictures(url: str, told: Transformers, pictures: list[Image.Image]) -> None:
    """SIE reports the tokens of bare texts, and images by themselves: for these models alone, and none as 0."""
    picture = {"data": base64.b64encode(png(pictures[0])).decode()}
    tokens = len(told.tokenizer("retrieval systems")["input_ids"])
    for items, usage in (
        ([{"text": "retrieval systems"}], {"input_tokens": tokens, "images": 0}),
        ([{"images": [picture, picture]}], {"input_tokens": 0, "images": 2}),
        ([{"text": "retrieval systems", "images": [picture]}] * 2, {"input_tokens": 2 * tokens, "images": 2}),
    ):
        answer = httpx.post(
            f"{url}/v1/encode/{EMBEDDER}", json={"items": items}, headers={"accept": "application/json"}
        )
        assert answer.status_code == 200, answer.text
        assert answer.json()["usage"] == usage


def test_other_dialects_read_pictures_and_cut_texts(
    url: str, client: SIEClient, told: Transformers, pictures: list[Image.Image]
) -> None:
    shown = f"data:image/png;base64,{base64.b64encode(png(pictures[0])).decode()}"
    asked = {"model": EMBEDDER, "input": [shown, "embed"], "encoding_format": "float"}
    answer = httpx.post(f"{url}/v1/embeddings", json=asked, timeout=60).raise_for_status().json()
    found = np.array([entry["embedding"] for entry in answer["data"]], np.float32)
    np.testing.assert_allclose(found, np.stack([told.vector([pictures[0]]), told.vector(["embed"])]), atol=1e-5)
    text = "passages and queries and passages"
    cut = told.tokenizer.decode(told.tokenizer(text)["input_ids"][:3])
    ranked: dict[str, Any] = {"model": JUDGE, "query": "signals", "documents": [text], "max_tokens_per_doc": 3}
    answer = httpx.post(f"{url}/v2/rerank", json=ranked, timeout=60).raise_for_status().json()
    right = client.score(JUDGE, Item(text="signals"), [Item(text=cut)])["scores"][0]["score"]
    assert answer["results"][0]["relevance_score"] == pytest.approx(right, abs=1e-6)


def test_a_bad_item_names_its_place_and_the_next_call_works(client: SIEClient, pictures: list[Image.Image]) -> None:
    good = Item(images=[png(pictures[0])])
    before = client.encode(EMBEDDER, good)["dense"]
    strip = Item(images=[png(Image.new("RGB", (401, 2)))])
    for bad, said in ((strip, "one side may be at most 200 times the other"), (Item(), "requires either text, images")):
        with pytest.raises(RequestError, match=said):
            client.encode(EMBEDDER, [good, bad])
    assert np.array_equal(client.encode(EMBEDDER, good)["dense"], before)
