"""Items with images from HTTP to Triton and back, beside texts."""

from __future__ import annotations

import asyncio
import base64
import gc
import io
import json
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from aiohttp import web
from compiler import tiny
from numpy.typing import NDArray
from PIL import Image
from sie_frontend.contract.errors import WireError
from sie_frontend.contract.requests import Image as EncodedImage
from sie_frontend.contract.requests import Item
from sie_frontend.images.decoding import decode
from sie_frontend.images.entry import ImageInput
from sie_frontend.manifest import dump_manifest, read_manifest
from sie_frontend.outputs.multivector import MultiVectorHead
from sie_frontend.outputs.sparse import SparseHead
from sie_frontend.serving.served import ServedModel
from sie_frontend.settings import Settings, SettingsError
from sie_sdk.images import wire_item

from frontend.conftest import Service
from frontend.fake_triton import FakeTriton, Run, expected, expected_of, tensors
from frontend.pictures import encoded, noise
from frontend.repository import token_ids
from frontend.wire import ENCODE, JSON, answer, dense, encode, refusal

SIZE = 8
REQUIRES = "TwoWayAdapter requires either text or images input"
BAD = b"GIF89a and no more"


def picture(number: int) -> bytes:
    """One of many pictures, all different, wider than high."""
    return encoded(Image.fromarray(noise(20 + number, 11)), "PNG")


def vector(data: bytes) -> NDArray[np.float32]:
    """What Triton gives for a picture that Pillow alone has made ready."""
    with Image.open(io.BytesIO(data)) as opened:
        rgb = opened.convert("RGB")
    width = int(SIZE * rgb.width / rgb.height)
    left = (width - SIZE) // 2
    scaled = rgb.resize((width, SIZE), Image.Resampling.BICUBIC).crop((left, 0, left + SIZE, SIZE))
    return expected_of(np.asarray(scaled))


def item(*pictures: bytes, **more: Any) -> dict[str, Any]:
    return {"images": [{"data": data, "format": "png"} for data in pictures], **more}


def url_of(data: bytes, head: str = "data:image/png;base64,") -> str:
    return head + base64.b64encode(data).decode()


@pytest.fixture(scope="session")
def two_way(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository of the texts, whose model takes images as well."""
    folder = Path(shutil.copytree(repository, tmp_path_factory.mktemp("two-way") / "repository"))
    manifest = read_manifest(folder)
    for model_id, model in manifest.models.items():
        text = model.inputs["text"]
        reads = msgspec.structs.replace(model.text, requires_text=REQUIRES)
        entry = ImageInput("pixels", SIZE, "crop", "bicubic", REQUIRES)
        image = msgspec.structs.replace(text, triton_model=f"{text.triton_model}.image", reads=entry)
        inputs = {"text": msgspec.structs.replace(text, reads=reads), "image": image}
        manifest.models[model_id] = msgspec.structs.replace(model, inputs=inputs, declared_inputs=("text", "image"))
    (folder / "manifest.json").write_bytes(dump_manifest(manifest))
    return folder


@pytest.fixture
def sees(two_way: Path, triton: FakeTriton) -> Service:
    return Service(Settings(repository=two_way, triton_url=triton.url))


@pytest.mark.asyncio
async def test_images_alone_have_vectors_in_order_and_no_usage(sees: Service, triton: FakeTriton) -> None:
    pictures = [picture(number) for number in range(7)]
    async with sees.open() as client:
        response = await encode(client, {"items": [item(data, id=f"i{n}") for n, data in enumerate(pictures)]})
    body = answer(response)
    assert list(body) == ["model", "items", "timing"]
    assert [found["id"] for found in body["items"]] == [f"i{n}" for n in range(7)]
    for found, data in zip(dense(response), pictures, strict=True):
        np.testing.assert_array_equal(found, vector(data))
    assert {run.model for run in triton.runs} == {f"{tiny.TRITON_NAME}.image"}


@pytest.mark.asyncio
async def test_json_has_them_in_base64(sees: Service) -> None:
    data = picture(0)
    body = {"items": [{"images": [{"data": base64.b64encode(data).decode()}]}]}
    async with sees.open() as client:
        response = await client.post(ENCODE, content=json.dumps(body), headers=JSON)
        broken = {"items": [{"images": [{"data": "no base64!"}]}]}
        told = refusal(await client.post(ENCODE, content=json.dumps(broken), headers=JSON))
    assert "usage" not in response.json()
    np.testing.assert_array_equal(np.float32(response.json()["items"][0]["dense"]["values"]), vector(data))
    assert told == (400, "INVALID_INPUT", "Invalid base64 encoded string - at `$.items[0].images[0].data`")


@pytest.mark.asyncio
async def test_texts_and_images_of_one_request_keep_their_order(sees: Service, two_way: Path) -> None:
    """The large picture takes longest to read, and texts are there at once."""
    large = encoded(Image.fromarray(noise(900, 700)), "PNG")
    given = [{"text": "the cell"}, item(large), {"text": ""}, item(picture(1)), item(large), {"text": "search"}]
    async with sees.open() as client:
        response = await encode(client, {"items": given})
    ids = {number: token_ids(two_way, given[number]["text"]) for number in (0, 2, 5)}
    wanted = [vector(large) if "images" in one else expected(ids[number]) for number, one in enumerate(given)]
    wanted[3] = vector(picture(1))
    for found, right in zip(dense(response), wanted, strict=True):
        np.testing.assert_array_equal(found, right)
    assert answer(response)["usage"] == {"input_tokens": sum(map(len, ids.values()))}


@pytest.mark.asyncio
async def test_images_win_over_a_text_and_no_images_do_not(sees: Service, two_way: Path) -> None:
    mislabelled = {"images": [{"data": picture(1), "format": "image/jpeg"}]}
    given = {"items": [item(picture(0), text="x"), item(text="the cell"), mislabelled]}
    async with sees.open() as client:
        both, none, other = dense(await encode(client, given))
    np.testing.assert_array_equal(other, vector(picture(1)))
    np.testing.assert_array_equal(both, vector(picture(0)))
    np.testing.assert_array_equal(none, expected(token_ids(two_way, "the cell")))


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.asyncio
async def test_several_images_are_the_mean_of_unit_vectors(sees: Service, dtype: str) -> None:
    pictures = [picture(number) for number in range(3)]
    given = {"items": [item(picture(1)), item(*pictures), item(pictures[0], pictures[0])]}
    async with sees.open() as client:
        one, mean, twice = dense(await encode(client, {**given, "params": {"output_dtype": dtype}}))
    right = np.mean([vector(data).astype(np.float64) for data in pictures], axis=0)
    assert np.linalg.norm(right) < 0.9
    if dtype == "int8":
        right = np.round(right / np.abs(right).max() * 127)
    np.testing.assert_allclose(mean.astype(np.float64), right, atol=1 if dtype == "int8" else 1e-3)
    assert one.dtype == mean.dtype == np.dtype(dtype)
    if dtype == "float32":
        np.testing.assert_allclose(mean, right, atol=1e-7)
        np.testing.assert_array_equal(one, vector(pictures[1]))
        np.testing.assert_array_equal(twice, vector(pictures[0]))


@pytest.mark.asyncio
async def test_concurrent_requests_keep_their_images_apart_and_share_runs(sees: Service, triton: FakeTriton) -> None:
    async def ask(client: httpx.AsyncClient, number: int) -> None:
        pictures = [picture(10 * number + k) for k in range(number % 4 + 1)]
        given = [item(data) for data in pictures] + [item(*pictures)]
        *alone, mean = dense(await encode(client, {"items": given}))
        for found, data in zip(alone, pictures, strict=True):
            np.testing.assert_array_equal(found, vector(data))
        np.testing.assert_allclose(mean, np.mean([vector(data) for data in pictures], axis=0), atol=1e-7)

    async with sees.open() as client:
        await asyncio.gather(*(ask(client, number) for number in range(12)))
    assert len(triton.runs) < sum(run.pixels.shape[0] for run in triton.runs if run.pixels is not None)


@pytest.mark.asyncio
async def test_equal_items_are_computed_once(sees: Service, triton: FakeTriton) -> None:
    async with sees.open() as client:
        found = dense(await encode(client, {"items": [item(picture(0))] * 50}))
    assert sum(run.pixels.shape[0] for run in triton.runs if run.pixels is not None) == 1
    assert len(found) == 50


# Refusals


@pytest.mark.asyncio
async def test_one_bad_image_fails_its_request_and_no_other(sees: Service) -> None:
    """The first that is wrong is told, whichever is found out first."""
    good = [{"text": "x"}, *(item(picture(number)) for number in range(4))]
    large = encoded(Image.fromarray(noise(1500, 1500)), "PNG")
    bad = [*good, item(picture(9), large[: len(large) // 2]), item(BAD), *good]
    async with sees.open() as client:
        for _ in range(5):
            told, right = await asyncio.gather(encode(client, {"items": bad}), encode(client, {"items": good}))
            assert refusal(told) == (
                400,
                "INVALID_INPUT",
                "image data is not a decodable image - at `$.items[5].images[1].data`",
            )
            np.testing.assert_array_equal(dense(right)[4], vector(picture(3)))


@pytest.mark.asyncio
async def test_what_was_refused_is_let_go_of(sees: Service) -> None:
    """At once: what waits for a collection was a gigabyte after a hundred photographs that were cut."""
    large = encoded(Image.fromarray(noise(300, 200)), "PNG")
    given = {"items": [item(picture(0)), item(large[: len(large) // 2]), item(BAD, large)]}
    async with sees.open() as client:
        await encode(client, given)
        gc.collect()
        before = pictures_alive()
        gc.disable()
        try:
            for _ in range(3):
                assert refusal(await encode(client, given))[0] == 400
            await asyncio.sleep(0.05)  # what a thread is at when the first refusal is told
            after = pictures_alive()
        finally:
            gc.enable()
    assert {id(one) for one in after} <= {id(one) for one in before}


def pictures_alive() -> list[Image.Image]:
    return [thing for thing in gc.get_objects() if isinstance(thing, Image.Image)]


@pytest.mark.asyncio
async def test_limits(sees: Service) -> None:
    cases: list[tuple[dict[str, int], list[dict[str, Any]], str]] = [
        ({"max_image_pixels": 219}, [item(picture(0))], "20 x 11 pixels, and at most 219 are read; scale it down"),
        ({"max_image_bytes": 100}, [item(picture(0))], "bytes, and at most 100 are read - at `$.items[0].images[0].d"),
        ({"max_item_images": 2}, [{"text": "x"}, item(*[picture(0)] * 3)], "at most 2 are read of one item - at `$.it"),
        ({"max_images": 5}, [item(picture(0))] * 6, "Request has 6 images but at most 5 images are read per request"),
    ]
    for settings, items, message in cases:
        async with sees.having(**settings).open() as client:
            status, code, told = refusal(await encode(client, {"items": items}))
            assert (status, code) == (400, "INVALID_INPUT")
            assert message in told
            assert dense(await encode(client, {"items": [{"text": "x"}]}))
    with pytest.raises(SettingsError, match=r"SIE_TRITON_MAX_IMAGE_PIXELS.* from 1 to 89478485"):
        Settings(max_image_pixels=89_478_486)
    with pytest.raises(SettingsError, match="SIE_TRITON_IMAGE_THREADS"):
        Settings(image_threads=0)


@pytest.mark.asyncio
async def test_images_that_wait_are_counted_by_themselves(sees: Service, triton: FakeTriton) -> None:
    """Their pixels are held. A request may always come where nothing waits."""
    arrived, let = threading.Event(), threading.Event()

    async def hold(run: Run) -> web.StreamResponse:
        arrived.set()
        await asyncio.to_thread(let.wait, 10)
        return tensors(run)

    triton.answer = hold
    three = {"items": [item(picture(0), picture(1), picture(2))]}
    async with sees.having(pending_images=4).open() as client:
        first = asyncio.ensure_future(encode(client, three))
        await asyncio.to_thread(arrived.wait, 10)
        status, code, _ = refusal(await encode(client, {"items": [item(picture(4), picture(5))]}))
        assert (status, code) == (503, "QUEUE_FULL")
        assert "sie_frontend_pending_images 3.0" in (await client.get("/metrics")).text
        others = [asyncio.ensure_future(encode(client, {"items": [one]})) for one in (item(picture(3)), {"text": "x"})]
        await asyncio.sleep(0)
        let.set()
        for response in await asyncio.gather(first, *others):
            assert dense(response)
        assert dense(await encode(client, {"items": [item(*(picture(number) for number in range(9)))]}))
        assert "sie_frontend_pending_images 0.0" in (await client.get("/metrics")).text


@pytest.mark.asyncio
async def test_items_that_have_nothing_to_read(sees: Service, service: Service) -> None:
    async with sees.open() as client:
        assert refusal(await encode(client, {"items": [{"id": "a"}]})) == (400, "INVALID_INPUT", REQUIRES)
        assert refusal(await encode(client, {"items": [{"images": []}]})) == (400, "INVALID_INPUT", REQUIRES)
        missing = refusal(await encode(client, {"items": [{"images": [{"format": "png"}]}]}))
        assert missing[2] == "image data is not a decodable image - at `$.items[0].images[0].data`"
    async with service.open() as client:  # of texts alone, which never looks at an image
        status, code, message = refusal(await encode(client, {"items": [item(BAD)]}))
        assert (status, code) == (400, "INVALID_INPUT")
        assert message.endswith("requires text input")
        unread = [item(BAD, text="the cell"), {"text": "x", "images": [{}]}]
        assert len(dense(await encode(client, {"items": unread}))) == 2


@pytest.mark.asyncio
async def test_numbers_that_are_not_finite_are_the_items(sees: Service, triton: FakeTriton) -> None:
    async def spoiled(run: Run) -> web.StreamResponse:
        assert run.pixels is not None
        made = np.stack([expected_of(pixels) for pixels in run.pixels])
        made[[bool((pixels == 255).all()) for pixels in run.pixels]] = np.nan
        return tensors(run, {"dense": made})

    triton.answer = spoiled
    white = encoded(Image.new("RGB", (9, 9), "white"), "PNG")
    async with sees.open() as client:
        given = {"items": [item(picture(0), picture(1)), item(picture(2), white)]}
        status, code, message = refusal(await encode(client, given))
    assert (status, code) == (500, "INFERENCE_ERROR")
    assert "`items[1]` gave numbers that are not finite" in message


@pytest.mark.asyncio
async def test_images_are_read_off_the_loop_by_threads_of_their_own(
    sees: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: set[str] = set()

    def watched(data: bytes, *asked: Any) -> Image.Image:
        names.add(threading.current_thread().name)
        return decode(data, *asked)

    monkeypatch.setattr("sie_frontend.images.opening.decode", watched)
    async with sees.having(image_threads=3).open() as client:
        await encode(client, {"items": [item(picture(number)) for number in range(30)]})
    assert names
    assert all(name.startswith("read-images") for name in names)


def test_several_images_of_what_has_no_mean() -> None:
    with pytest.raises(WireError, match="output type 'sparse' of this model is made of one image, got 2"):
        SparseHead("ids", "weights").joined([np.zeros(3), np.zeros(3)])


def test_several_images_of_one_item_are_joined_along_their_positions() -> None:
    first, second = np.full((3, 4), 1, np.float32), np.full((2, 4), 2, np.float32)
    joined = MultiVectorHead("vectors").joined([first, second])
    np.testing.assert_array_equal(joined, [[1] * 4] * 3 + [[2] * 4] * 2)


@pytest.mark.parametrize(
    ("queries", "calls"),
    [("like_items", "image image text"), ("text_first", "text image text"), ("text_only", "text text text")],
)
def test_what_reads_a_query_that_has_both(two_way: Path, queries: str, calls: str) -> None:
    """Page models read a query's text although it has images, which win of items that are no queries."""
    model = read_manifest(two_way).models[tiny.MODEL_ID]
    text = msgspec.structs.replace(model.text, queries=queries)
    inputs = {**model.inputs, "text": msgspec.structs.replace(model.inputs["text"], reads=text)}
    served = ServedModel(tiny.MODEL_ID, msgspec.structs.replace(model, inputs=inputs), two_way, Settings())
    images = [EncodedImage(b"x")]
    items = [Item(text="a", images=images), Item(images=images), Item(text="b")]
    read = {number: name for name, numbers in served.by_modality(items, are_queries=True).items() for number in numbers}
    assert " ".join(read[number] for number in range(3)) == calls
    assert served.by_modality(items) == {"image": [0, 1], "text": [2]}


# Other people's routes and our client


async def embed(client: httpx.AsyncClient, given: str | Sequence[str]) -> httpx.Response:
    return await client.post("/v1/embeddings", json={"model": tiny.MODEL_ID, "input": given})


@pytest.mark.asyncio
async def test_urls_of_images_in_openais_route(sees: Service, two_way: Path) -> None:
    data = picture(0)
    heads = (
        "data:image/png;base64,",
        "data:image/png;charset=utf-8;base64,",
        "data:;base64,",
        "DATA:IMAGE/PNG;BASE64,",
        "data:image/png; base64 , ",
        '\n data:image/png;name="a;b.png";base64,',
    )
    urls = [url_of(data, head) for head in heads]
    # Wrapped lines, no padding, and the letters of base64 for URLs.
    urls.append(heads[0] + base64.encodebytes(data).decode())
    uneven = data + b"\0" * (1 if (len(data) + 1) % 3 else 2)  # what stands behind a PNG is not read
    assert url_of(uneven).endswith("=")
    urls.append(url_of(uneven).rstrip("="))
    urls.append(heads[0] + base64.urlsafe_b64encode(data).decode())
    assert urls[-1] != urls[0]
    urls.append(urls[0].replace("+", "%2B").replace("/", "%2F").replace("data:image%2F", "data:image/"))
    large = url_of(encoded(Image.fromarray(noise(1000, 800)), "BMP"))
    assert len(large) > 2 << 20
    words = ["A" * 120, "data: what we have", "data:text/plain;base64,AAAA", "http://127.0.0.1/a.png"]
    async with sees.open() as client:
        body = (await embed(client, [*urls, words[0], large, *words[1:]])).json()
        alone = (await embed(client, urls)).json()
    found = [np.float32(entry["embedding"]) for entry in body["data"]]
    for made in found[: len(urls)]:
        np.testing.assert_array_equal(made, vector(data))
    for made, text in zip([found[len(urls)], *found[len(urls) + 2 :]], words, strict=True):
        np.testing.assert_array_equal(made, expected(token_ids(two_way, text)))
    tokens = sum(len(token_ids(two_way, text)) for text in words)
    assert body["usage"]["prompt_tokens"] == tokens
    assert alone["usage"] == {"prompt_tokens": 0, "total_tokens": 0, "sie_token_source": "worker"}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("data:image/png;base64" + "A" * 40, "has the form `data:image/png;base64,DATA` - at `input[1]`"),
        ("data:image/png,AAAA", "has the form `data:image/png;base64,DATA` - at `input[1]`"),
        ("data:image/png;base64,AAAAA", "holds no base64: "),
        ("data:image/png;base64;charset=utf-8,AAAA", "has the form `data:image/png;base64,DATA` - at `input[1]`"),
        ("data:image/png;base64,é", "holds no base64: "),
        ("data:image/png;base64,AAAA", "image data is not a decodable image - at `$.items[1].images[0].data`"),
    ],
)
@pytest.mark.asyncio
async def test_urls_that_hold_no_image(sees: Service, url: str, message: str) -> None:
    async with sees.open() as client:
        response = await embed(client, ["the cell", url])
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]


@pytest.mark.asyncio
async def test_to_a_model_of_texts_a_url_is_a_text(service: Service, repository: Path) -> None:
    url = url_of(b"abc")
    async with service.open() as client:
        body = (await embed(client, url)).json()
        long = await embed(client, "data:image/png;base64," + "A" * (2 << 20))
    np.testing.assert_array_equal(np.float32(body["data"][0]["embedding"]), expected(token_ids(repository, url)))
    assert (long.status_code, long.json()["error"]["param"]) == (400, "input")
    assert "must hold at most 2097152 bytes" in long.json()["error"]["message"]


@pytest.mark.asyncio
async def test_what_the_sdk_makes_of_a_pillow_image(sees: Service) -> None:
    """JPEG at quality 95, decoded again."""
    opened = Image.open(io.BytesIO(picture(0)))
    sent = wire_item({"images": [opened, picture(0)]})
    async with sees.open() as client:
        found = dense(await encode(client, {"items": [sent, {"images": sent["images"][:1]}]}))
    jpeg = encoded(opened, "JPEG", quality=95)
    np.testing.assert_array_equal(found[1], vector(jpeg))
    np.testing.assert_allclose(found[0], (vector(jpeg) + vector(picture(0))) / 2, atol=1e-6)
