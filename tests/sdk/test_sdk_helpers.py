"""Images, encoding and scoring: what users and integrations do before and after a call."""

from __future__ import annotations

import gc
import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sie_sdk.encoding import (
    dense_embedding,
    multivector_embedding,
    normalize_sparse_vector,
    sparse_embedding,
    sparse_embedding_dict,
)
from sie_sdk.images import detect_format, to_jpeg_bytes, wire_item
from sie_sdk.scoring import maxsim, maxsim_batch

SIGNATURES = {
    "jpeg": b"\xff\xd8\xff\xe0",
    "png": b"\x89PNG\r\n\x1a\n",
    "gif": b"GIF89a",
    "webp": b"RIFF\x10\0\0\0WEBPVP8 ",
    "bmp": b"BM6\0",
    "tiff": b"II*\0",
}


@pytest.mark.parametrize(("name", "data"), SIGNATURES.items())
def test_encoded_images_pass_as_they_are(name: str, data: bytes) -> None:
    expected = {"images": [{"data": data, "format": name}]}
    assert wire_item({"images": [data]}) == expected
    assert wire_item({"images": [{"data": data}]}) == expected
    assert wire_item({"images": [{"data": data, "format": name.upper()}]}) == expected


def test_jpg_is_jpeg() -> None:
    [image] = wire_item({"images": [{"data": SIGNATURES["jpeg"], "format": "jpg"}]})["images"]
    assert image["format"] == "jpeg"


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"RIFF\x10\0\0\0WAVE", b"<svg>", b"\0\0\0\x18ftypheic"])
def test_unknown_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="Could not detect encoded image format"):
        detect_format(data)


def test_a_wrong_declaration_is_refused() -> None:
    with pytest.raises(ValueError, match="declared 'png', detected 'gif'"):
        wire_item({"images": [{"data": SIGNATURES["gif"], "format": "png"}]})


@pytest.mark.parametrize("token", [" png", "", 5, "image/png", "x" * 33, "p\u00f6", "p_g", b"png"])
def test_a_format_is_a_short_token(token: object) -> None:
    """SIE's own client refuses these before it looks at the bytes' format, so that none of them is a mismatch."""
    with pytest.raises(ValueError, match="must be a short ASCII token"):
        wire_item({"images": [{"data": SIGNATURES["png"], "format": token}]})


@pytest.mark.parametrize("item", [{"text": "x"}, {"images": []}, {"images": None}, "x", 5, ("a",)])
def test_items_without_images_are_passed_through(item: object) -> None:
    assert wire_item(item) is item


@pytest.mark.parametrize("image", [5, None, object(), [SIGNATURES["png"]], bytearray(SIGNATURES["png"])])
def test_what_is_no_image_is_refused(image: object) -> None:
    with pytest.raises(ValueError, match="Unsupported image type"):
        wire_item({"images": [image]})


def test_a_path_that_leads_nowhere(tmp_path: Path) -> None:
    for path in (tmp_path / "none.png", str(tmp_path / "none.png")):
        with pytest.raises(FileNotFoundError, match="Image file not found"):
            wire_item({"images": [path]})


def test_arrays_have_two_or_three_axes() -> None:
    with pytest.raises(ValueError, match="got 1D"):
        wire_item({"images": [np.zeros(3, np.uint8)]})


def test_without_pillow_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    (tmp_path / "a.png").write_bytes(SIGNATURES["png"])
    for image in (tmp_path / "a.png", np.zeros((2, 2), np.uint8)):
        with pytest.raises(ImportError, match=r"needs Pillow; install `sie-triton-sdk\[images\]`, or pass"):
            wire_item({"images": [image]})
    assert wire_item({"images": [SIGNATURES["png"]]})


@pytest.mark.parametrize(("mode", "sent"), [("RGB", "RGB"), ("L", "L"), ("RGBA", "RGB"), ("P", "RGB"), ("1", "RGB")])
def test_pillow_images_become_jpeg(mode: str, sent: str) -> None:
    pillow: Any = pytest.importorskip("PIL.Image")
    image = pillow.new(mode, (4, 3))
    [wired] = wire_item({"images": [image]})["images"]
    opened = pillow.open(io.BytesIO(wired["data"]))
    assert (wired["format"], opened.format, opened.mode, opened.size) == ("jpeg", "JPEG", sent, (4, 3))


def test_paths_and_arrays_become_jpeg(tmp_path: Path) -> None:
    pillow: Any = pytest.importorskip("PIL.Image")
    array = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    pillow.fromarray(array).save(tmp_path / "a.png")
    expected = to_jpeg_bytes(pillow.fromarray(array))
    for image in (tmp_path / "a.png", str(tmp_path / "a.png"), array, {"data": array, "format": "JPEG"}):
        assert wire_item({"images": [image]}) == {"images": [{"data": expected, "format": "jpeg"}]}


@pytest.mark.parametrize("format", ["gif", "tiff", "webp", "png"])
def test_a_file_of_several_frames_is_closed_again(tmp_path: Path, format: str) -> None:
    """A file that is left open warns when it is collected, and warnings are errors."""
    pillow: Any = pytest.importorskip("PIL.Image")
    frames = [pillow.new("RGB", (4, 3), colour) for colour in ("red", "blue")]
    path = tmp_path / f"a.{format}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    opened = pillow.open(io.BytesIO(to_jpeg_bytes(path)))
    assert opened.getpixel((1, 1))[0] > 200
    gc.collect()


RESULT = {
    "dense": np.array([0.5, -1.0], "<f4"),
    "sparse": {"indices": np.array([3, 7], "<i4"), "values": np.array([0.5, 2.0], "<f2")},
    "multivector": np.array([[1.0, 2.0], [3.0, 4.0]], "<f4"),
}
AS_OBJECT = SimpleNamespace(dense=RESULT["dense"], sparse=SimpleNamespace(indices=[3, 7], values=[0.5, 2.0]))
SPARSE = {"indices": [3, 7], "values": [0.5, 2.0]}
EMPTY: dict[str, list[Any]] = {"indices": [], "values": []}


@pytest.mark.parametrize("result", [RESULT, AS_OBJECT], ids=["dict", "object"])
def test_embeddings_as_plain_python(result: Any) -> None:
    assert dense_embedding(result) == [0.5, -1.0]
    assert sparse_embedding(result) == SPARSE
    assert sparse_embedding_dict(result) == {3: 0.5, 7: 2.0}
    assert [type(value) for value in dense_embedding(result)] == [float, float]
    assert {type(key) for key in sparse_embedding_dict(result)} == {int}


def test_absent_embeddings() -> None:
    with pytest.raises(ValueError, match="Encode result missing dense embedding"):
        dense_embedding({})
    assert dense_embedding({}, strict=False) == []
    assert sparse_embedding({"sparse": None}) == EMPTY
    assert sparse_embedding_dict({}) == {}
    assert normalize_sparse_vector({"indices": [1]}) == EMPTY


def test_normalize_sparse_vector() -> None:
    assert normalize_sparse_vector(RESULT["sparse"]) == SPARSE
    assert normalize_sparse_vector(SPARSE) == SPARSE


@pytest.mark.parametrize(
    "raw", [RESULT["multivector"], list(np.array([[1.0, 2.0], [3.0, 4.0]])), [(1.0, 2.0), [3.0, 4.0]]], ids=type
)
def test_multivector_embedding(raw: Any) -> None:
    assert multivector_embedding(raw) == [[1.0, 2.0], [3.0, 4.0]]
    assert multivector_embedding(np.zeros((0, 2))) == []


def by_definition(query: np.ndarray[Any, Any], document: np.ndarray[Any, Any]) -> float:
    return sum(max(float(np.dot(q, d)) for d in document.astype(float)) for q in query.astype(float))


def test_maxsim_by_its_definition() -> None:
    random = np.random.default_rng(7)
    queries = [random.normal(size=(n, 16)).astype(np.float16) for n in (1, 5)]
    documents = [random.normal(size=(n, 16)).astype(np.float32) for n in (1, 3, 40)]
    expected = [[by_definition(query, document) for document in documents] for query in queries]
    batch = maxsim_batch(queries, documents)
    assert (batch.dtype.str, batch.shape) == ("<f4", (2, 3))
    np.testing.assert_allclose(batch, expected, rtol=1e-5)
    np.testing.assert_allclose(maxsim(queries[1], documents), expected[1], rtol=1e-5)
    assert all(type(score) is float for score in maxsim(queries[1], documents))


def test_maxsim_of_one_document_and_of_a_stack() -> None:
    query, document = np.eye(2, dtype=np.float32), np.array([[1.0, 0.0], [0.5, 0.5]], np.float32)
    assert maxsim(query, document) == [1.5]
    assert maxsim(query, np.stack([document, document])) == [1.5, 1.5]
    assert maxsim(query, []) == []


def test_maxsim_sums_float16_in_float32() -> None:
    # In float16, 2048 + 1 is 2048.
    query = np.ones((2049, 1), np.float16)
    assert maxsim(query, np.ones((1, 1), np.float16)) == [2049.0]


@pytest.mark.parametrize(
    ("query", "documents", "message"),
    [
        (np.ones(2), [np.ones((1, 2))], r"query must be a 2-D array .* got shape \(2,\)"),
        (np.ones((1, 2)), [np.ones((1, 2)), np.ones(2)], r"documents\[1\] must be a 2-D array"),
        (np.ones((1, 2)), np.ones(2), r"documents\[0\] must be a 2-D array"),
        (np.ones((0, 2)), [np.ones((1, 2))], "query has 0 tokens"),
        (np.ones((1, 2)), [np.ones((0, 2))], r"documents\[0\] has 0 tokens"),
        (np.ones((1, 2)), [np.ones((1, 3))], r"2 dims but those of documents\[0\] have 3"),
    ],
)
def test_maxsim_refuses(query: Any, documents: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        maxsim(query, documents)
    in_batch = message.replace("query must", r"queries\[0\] must").replace("query has", r"queries\[0\] has")
    with pytest.raises(ValueError, match=in_batch):
        maxsim_batch([query], documents if isinstance(documents, list) else [documents])
