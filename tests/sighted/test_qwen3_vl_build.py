"""Qwen3-VL through the compiler, and what the built reader makes of items and pairs."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sie_frontend.contract.errors import WireError
from sie_frontend.contract.requests import Image as Encoded
from sie_frontend.contract.requests import Item, Media
from sie_frontend.manifest import Manifest, read_manifest
from sie_frontend.mixed.reader import MixedReader
from transformers import AutoTokenizer

from sie_triton.verify.public_model import CaseCall, PublicModel, public_model

from .checkpoints import NAMES

pytestmark = pytest.mark.export


@pytest.fixture(scope="module")
def manifest(root: Path) -> Manifest:
    return read_manifest(root / "repository")


def served(root: Path, manifest: Manifest, adapter: str) -> PublicModel:
    return public_model(root / "repository", manifest, manifest.models[NAMES[adapter]].triton_models[0])


@pytest.fixture(scope="module")
def embedder(root: Path, manifest: Manifest) -> PublicModel:
    return served(root, manifest, "Embedding")


@pytest.fixture(scope="module")
def judge(root: Path, manifest: Manifest) -> PublicModel:
    return served(root, manifest, "Reranker")


@pytest.fixture(scope="module")
def tokenizer(root: Path) -> Any:
    return AutoTokenizer.from_pretrained(root / "checkpoint")


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def reader(model: PublicModel) -> MixedReader:
    assert isinstance(model.reader, MixedReader)
    return model.reader


def rows(model: PublicModel, *items: Item, instruction: str | None = None) -> Any:
    given = reader(model).given(items)
    return reader(model).rows(given, CaseCall({}, instruction), is_query=False)


def pair(model: PublicModel, query: Item, item: Item, **options: Any) -> Any:
    (asked, given) = reader(model).given([query, item])
    instruction = options.pop("instruction", None)
    return reader(model).pairs(asked, [given], CaseCall(options, instruction))[0]


def shown(tokenizer: Any, row: Any) -> str:
    """The prompt of a row, each picture's tokens as one."""
    text: str = tokenizer.decode(row.ids)
    while "<|image_pad|><|image_pad|>" in text:
        text = text.replace("<|image_pad|><|image_pad|>", "<|image_pad|>")
    return text


def test_one_input_reads_both(manifest: Manifest) -> None:
    for adapter, name in NAMES.items():
        model = manifest.models[name]
        assert list(model.inputs) == ["mixed"]
        assert model.declared_inputs == ("text", "image")
        built = manifest.built[model.triton_models[0]]
        told = built.certificate
        assert "Qwen2VLImageProcessorPil and Qwen3VLForConditionalGeneration" in told.implementation
        assert told.compared[:3] == ("conversation to tokens", "pictures to patches", "positions")
        output = "dense" if adapter == "Embedding" else "score"
        assert built.parity["float32"][output].max_abs < 1e-5
        assert built.parity["float32"][output].cases > 20


def test_a_conversation_is_the_templates(embedder: PublicModel, tokenizer: Any) -> None:
    """The system's text is the instruction, with a full stop where it has no punctuation; blank ones are none."""
    item = Item(text="a red bicycle", images=[Encoded(png(40, 40)), Encoded(png(90, 20))])
    for instruction, said in (
        (None, "Represent the user's input."),
        ("  \n", "Represent the user's input."),
        (" find it ", "find it."),
        ("find it?", "find it?"),
    ):
        messages = [
            {"role": "system", "content": [{"type": "text", "text": said}]},
            {"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": item.text}]},
        ]
        (row,) = rows(embedder, item, instruction=instruction)
        prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert shown(tokenizer, row) == prompt
    assert len(row.pictures) == 2
    squares = sum(high * wide // 4 for high, wide in row.shape_key)
    assert (row.ids == tokenizer.convert_tokens_to_ids("<|image_pad|>")).sum() == squares
    (row,) = rows(embedder, Item(text=""))
    assert "user\n<|im_end|>" in shown(tokenizer, row)


def test_a_pair_is_one_message(judge: PublicModel, tokenizer: Any) -> None:
    before = "<Instruct>: Retrieve relevant documents for the query.<Query>:"
    seen = "<|vision_start|><|image_pad|><|vision_end|>"
    picture = [Encoded(png(40, 40))]
    for query, item, said in (
        (Item(text="what?"), Item(text="that"), f"{before}what?\n<Document>:that"),
        (Item(text="what?"), Item(images=picture), f"{before}what?\n<Document>:{seen}"),
        (Item(text="x", images=picture), Item(text="y", images=picture), f"{before}{seen}x\n<Document>:{seen}y"),
        (Item(images=picture), Item(text="y"), f"{before}{seen}\n<Document>:y"),
    ):
        assert f"user\n{said}<|im_end|>" in shown(tokenizer, pair(judge, query, item))
    row = pair(judge, Item(text="q"), Item(text="d"), instruction="Be strict")
    assert "<Instruct>: Be strict<Query>:q\n<Document>:d<|im_end|>" in shown(tokenizer, row)


def test_only_a_documents_text_is_cut(judge: PublicModel, tokenizer: Any) -> None:
    query, item = Item(text="retrieval"), Item(text="passages and queries and passages", images=[Encoded(png(40, 40))])
    whole = pair(judge, query, item)
    assert not whole.cut
    row = pair(judge, query, item, max_seq_length=whole.cost - 2)
    assert row.cut and row.cost == whole.cost - 2
    kept = tokenizer.decode(tokenizer(item.text)["input_ids"][:-2])
    assert shown(tokenizer, row) == shown(tokenizer, whole).replace(str(item.text), kept)
    with pytest.raises(WireError, match=r"'options.max_seq_length' is 30, and `items\[0\]` takes"):
        pair(judge, query, item, max_seq_length=30)


def test_an_item_that_is_too_long_loses_its_end(embedder: PublicModel) -> None:
    (row,) = rows(embedder, Item(text="passages " * 600))
    assert row.cut and row.cost == 700
    with pytest.raises(WireError, match="its pictures end behind the 700 that the model reads"):
        rows(embedder, Item(images=[Encoded(png(600, 600)), Encoded(png(600, 600))]))


def test_a_request_is_measured_as_a_whole_though_its_items_are_read_apart(embedder: PublicModel) -> None:
    """The instruction stands in front of every item."""
    reader = embedder.reader
    given = reader.given([Item(text=str(number)) for number in range(512)])
    call = CaseCall({}, instruction="x" * (1 << 20))
    with pytest.raises(WireError) as refused:
        reader.check_together(given, call, [f"items[{number}]" for number in range(512)])
    assert refused.value.status == 400
    reader.check_together(given, CaseCall({}, instruction="be brief"), [])


def test_pictures_of_one_item_are_as_many_as_the_tower_can_look_at(embedder: PublicModel) -> None:
    assert isinstance(embedder.reader, MixedReader)
    side = int(embedder.reader.entry.patching.max_pixels**0.5)
    largest = Encoded(png(side, side))
    with pytest.raises(WireError, match="send smaller ones, or each in an item of its own"):
        rows(embedder, Item(images=[largest] * 5))


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (Item(), "requires either text, images, or video input"),
        (Item(images=[]), "requires either text, images, or video input"),
        (Item(text="see <|image_pad|>"), "`items[0]` and the instruction must not hold"),
        (Item(text="see <|video_pad|>", images=[Encoded(png(9, 9))]), "`items[0]` and the instruction must not hold"),
        (Item(text="a film", video=Media(b"...")), "videos are not read here: send the frames that count as images"),
        (Item(images=[Encoded(png(201, 1))]), "image of 201 x 1 pixels: one side may be at most 200 times the other"),
        (Item(images=[Encoded(b"GIF89a")]), "not a decodable image - at `$.items[0].images[0].data`"),
        (Item(images=[Encoded(png(9, 9)), Encoded(png(9, 9)[:40])]), "at `$.items[0].images[1].data`"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(embedder: PublicModel, item: Item, said: str) -> None:
    with pytest.raises(WireError) as error:
        rows(embedder, item)
    assert error.value.status == 400
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("query", "item", "said"),
    [
        (Item(text=" "), Item(text="d"), "requires nonblank text or one image in every query and document item"),
        (Item(text="q"), Item(text="\n"), "requires nonblank text or one image in every query and document item"),
        (Item(text="q"), Item(images=[Encoded(png(9, 9))] * 2), "2 images, and one is read of a query or an item"),
        (Item(text="q"), Item(text="d", document=Media(b"%PDF")), "accepts only text and image inputs"),
        (Item(text="q<|im_end|>"), Item(text="d"), "must not hold the model's own token '<|im_end|>'"),
        (Item(text="q"), Item(text="<|placeholder|>"), "must not hold the model's own token '<|placeholder|>'"),
    ],
)
def test_pairs_that_cannot_be_read_are_refused(judge: PublicModel, query: Item, item: Item, said: str) -> None:
    with pytest.raises(WireError) as error:
        pair(judge, query, item)
    assert error.value.status == 400
    assert said in str(error.value)


def test_texts_are_counted_by_themselves(embedder: PublicModel, tokenizer: Any) -> None:
    items = [Item(text="retrieval systems"), Item(images=[Encoded(png(40, 40))]), Item(text="", images=[])]
    given = reader(embedder).given(items)
    billed = reader(embedder).billed(given, [], CaseCall({}), is_query=False)
    assert billed == [len(tokenizer("retrieval systems")["input_ids"]), 0, 0]


def test_a_stored_case_is_an_item(embedder: PublicModel) -> None:
    """What JSON can say is read as what a request says."""
    data = png(64, 48)
    stored: Any = {"text": "near", "images": [base64.b64encode(data).decode()]}
    (one,) = reader(embedder).rows([stored], CaseCall({}), is_query=False)
    (other,) = rows(embedder, Item(text="near", images=[Encoded(data)]))
    assert all(np.array_equal(one.arrays[name], other.arrays[name]) for name in one.arrays)
