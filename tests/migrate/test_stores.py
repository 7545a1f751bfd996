"""How stores are read: files, and Qdrant's API as qdrant-client's own models write it (see stores_driver.py)."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from sie_triton.cli import main
from sie_triton.diagnostics import DiagnosticError
from sie_triton.migrate import http
from sie_triton.migrate.check import measure
from sie_triton.migrate.stores import chosen
from sie_triton.migrate.stores.files import JsonLines, NumpyFile
from sie_triton.migrate.stores.qdrant import QdrantStore

EXCHANGES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "qdrant_exchanges.json").read_text(encoding="utf-8")
)


def key(path: str, body: object) -> str:
    return json.dumps([path, body], sort_keys=True)


class Replay(BaseHTTPRequestHandler):
    """Answers what was asked when it was recorded, and nothing else. `refusals` come first, with their headers."""

    answers: Mapping[str, dict[str, Any]]
    refusals: list[tuple[int, dict[str, str]]]
    keys: list[str | None]

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, body: object) -> None:
        self.keys.append(self.headers.get("api-key"))
        if self.refusals:
            status, headers = self.refusals.pop(0)
            self._send(status, b"busy", headers)
            return
        found = self.answers.get(key(self.path, body))
        assert found is not None, (self.path, body)
        self._send(found["status"], json.dumps(found["answer"]).encode(), {})

    def _send(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def replay() -> Iterator[tuple[str, type[Replay]]]:
    answers = {key(exchange["path"], exchange["body"]): exchange for exchange in EXCHANGES}
    handler = type("Bound", (Replay,), {"answers": answers, "refusals": [], "keys": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", handler
    server.shutdown()
    server.server_close()
    thread.join()


def opened(url: str, name: str, *, dims: int = 4, model: str = "acme/minilm", vector: str | None = None) -> QdrantStore:
    return QdrantStore(url, name, vector=vector, text_field=None, model=model, dims=dims)


def mistake(error: pytest.ExceptionInfo[DiagnosticError]) -> tuple[str, str]:
    (found,) = error.value.diagnostics
    return found.code, f"{found.message} {found.hint}"


def test_a_cosine_collection_gives_back_vectors_of_length_one(replay: tuple[str, type[Replay]]) -> None:
    """[1, 1, 1, 1] and twice that were written: qdrant/qdrant-client#298."""
    cosine, dot = (opened(replay[0], name) for name in ("cosine", "dot"))
    assert (cosine.metric, cosine.normalizes) == ("cosine", True)
    assert (dot.metric, dot.normalizes) == ("dot", False)
    assert {entry.text: entry.vector.tolist() for entry in cosine.sample(10, 0)} == {
        "text 0": [0.5] * 4,
        "text 1": [0.5] * 4,
    }
    entries = {entry.text: entry for entry in dot.sample(10, 0)}
    assert entries["text 1"].vector.tolist() == [2.0] * 4
    assert entries["text 1"].fields == {"source": "a"}


def test_the_vector_is_the_one_of_the_models_name_or_size(replay: tuple[str, type[Replay]]) -> None:
    """The collection's vector names and the guessed one differ: qdrant/mcp-server-qdrant#60."""
    store = opened(replay[0], "named")
    assert "vector `fast-minilm` was taken" in store.notes[0]
    (entry,) = store.sample(10, 0)
    assert entry.vector.tolist() == pytest.approx([0.6, 0, 0, 0.8])
    assert entry.others["title"].tolist() == [0, 1, 0, 0]
    for model, dims in (("other/model", 4), ("other/model", 5)):
        with pytest.raises(DiagnosticError) as error:
            opened(replay[0], "named", model=model, dims=dims)
        code, said = mistake(error)
        assert code == "SIE905"
        assert "`fast-minilm`, `title`" in said
        assert "--vector" in said
    with pytest.raises(DiagnosticError) as error:
        opened(replay[0], "named", vector="minilm")
    assert mistake(error)[0] == "SIE904"
    assert "`fast-minilm`, `title`" in mistake(error)[1]


def test_the_field_of_texts_is_that_of_all_points_of_the_sample(replay: tuple[str, type[Replay]]) -> None:
    """As in a collection that two programs fill: the point that comes first has another field."""
    url, handler = replay
    answers = copy.deepcopy(dict(handler.answers))
    for exchange in answers.values():
        if exchange["path"] == "/collections/cosine/points":
            first, _ = exchange["answer"]["result"]
            first["payload"] = {"content": "another program's text"}
    handler.answers = answers
    store = opened(url, "cosine")
    assert [entry.text for entry in store.sample(10, 0)] == ["text 0"]
    assert store.notes == ["entries without text or without vector, left out: 1"]


def test_a_collection_that_is_not_there(replay: tuple[str, type[Replay]]) -> None:
    with pytest.raises(DiagnosticError) as error:
        opened(replay[0], "nothing")
    code, said = mistake(error)
    assert code == "SIE904"
    assert "`cosine`" in said
    with pytest.raises(DiagnosticError) as error:
        opened("http://127.0.0.1:9", "cosine")
    assert mistake(error)[0] == "SIE903"
    with pytest.raises(DiagnosticError) as error:
        opened("ftp://127.0.0.1", "cosine")
    assert "does not begin with http" in mistake(error)[1]


def test_the_key_is_sent_and_a_busy_server_is_asked_again(
    replay: tuple[str, type[Replay]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, handler = replay
    monkeypatch.setenv("QDRANT_API_KEY", "secret")
    handler.refusals[:] = [(503, {"Retry-After": "0"}), (429, {"Retry-After": "0"})]
    opened(url, "cosine")
    assert handler.keys == ["secret"] * 3
    handler.refusals[:] = [(401, {})]
    with pytest.raises(DiagnosticError) as error:
        opened(url, "cosine")
    assert "QDRANT_API_KEY" in mistake(error)[1]
    handler.refusals[:] = [(503, {"Retry-After": "soon"})] * 9
    monkeypatch.setattr("sie_triton.migrate.http.time.sleep", lambda seconds: None)
    with pytest.raises(http.RefusedAnswer):
        http.ask(url)
    assert len(handler.refusals) == 4


def write_lines(path: Path, rows: int) -> None:
    lines = [json.dumps({"text": f"text {row}", "title": "t", "vector": [row, 1.5]}) for row in range(rows)]
    path.write_text("\n".join(lines) + "\n\n", encoding="utf-8")


def test_lines_of_json(tmp_path: Path) -> None:
    path = tmp_path / "index.jsonl"
    write_lines(path, 500)
    store = JsonLines(path, vector=None, text_field=None)
    first = store.sample(20, 0)
    assert [entry.key for entry in first] == [entry.key for entry in store.sample(20, 0)]
    assert {entry.key for entry in first} != {entry.key for entry in store.sample(20, 1)}
    assert len(store.sample(1000, 0)) == 500
    for entry in first:
        assert entry.text == f"text {int(entry.vector[0])}"
        assert entry.key == f"line {int(entry.vector[0]) + 1}"
        assert entry.fields == {"title": "t"}


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("{", "SIE903", "index.jsonl:1 is no JSON"),
        ("[1]", "SIE903", "no JSON object"),
        ('{"a": "x", "b": "y", "vector": [1]}', "SIE905", "`a`, `b`"),
        ('{"vector": [1]}', "SIE904", "--text-field"),
        ('{"text": "x", "v": [1], "w": [2]}', "SIE905", "`v`, `w`"),
        ("[" * 100_000, "SIE903", "is no JSON"),
    ],
    ids=["open", "list", "two texts", "no text", "two vectors", "deep"],
)
def test_lines_that_cannot_be_read(tmp_path: Path, line: str, code: str, words: str) -> None:
    path = tmp_path / "index.jsonl"
    path.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(DiagnosticError) as error:
        JsonLines(path, vector=None, text_field=None).sample(5, 0)
    assert mistake(error)[0] == code
    assert words in mistake(error)[1]


def test_fields_are_those_of_the_sample_and_not_of_its_first_line(tmp_path: Path) -> None:
    path = tmp_path / "index.jsonl"
    whole = [{"text": f"text {row}", "vector": [row, 1.5]} for row in range(20)]
    for other in ({"id": 1}, {"text": "no vector", "vector": None}, {"body": "another", "values": [1, 2]}):
        path.write_text("\n".join(json.dumps(line) for line in [*([other] * 20), *whole]), encoding="utf-8")
        store = JsonLines(path, vector=None, text_field=None)
        assert {entry.text for entry in store.sample(40, 0)} == {line["text"] for line in whole}
        assert store.notes == ["entries without text or without vector, left out: 20"]


def test_a_file_in_another_encoding_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "index.jsonl.gz"
    path.write_bytes(b"\x1f\x8b\x08\xff")
    with pytest.raises(DiagnosticError) as error:
        JsonLines(path, vector=None, text_field=None).sample(5, 0)
    assert "UTF-8" in str(error.value.diagnostics[0].hint)


VECTORS = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("texts", "vectors"),
    [
        (np.array("a"), np.array(1.0)),
        (np.arange(2), VECTORS),
        (np.array([["a", "b"]]), VECTORS),
        (np.array(["a", "b"]), VECTORS[None]),
        (np.array(["a", "b"]), np.array(["a", "b"])),
        (np.array([b"\xff", b"b"]), VECTORS),
    ],
    ids=["scalars", "numbers", "a table of texts", "cubes", "texts for vectors", "not UTF-8"],
)
def test_arrays_of_other_kinds_are_refused(texts: Any, vectors: Any, tmp_path: Path) -> None:
    path = tmp_path / "index.npz"
    np.savez(path, texts=texts, vectors=vectors)
    with pytest.raises(DiagnosticError) as error:
        NumpyFile(path, vector=None, text_field=None)
    assert mistake(error)[0] == "SIE903"


def test_byte_strings_are_texts_and_complex_numbers_no_vectors(tmp_path: Path) -> None:
    path = tmp_path / "index.npz"
    np.savez(path, texts=np.array(["é".encode(), b"b"]), vectors=VECTORS)
    assert {entry.text for entry in NumpyFile(path, vector=None, text_field=None).sample(2, 0)} == {"é", "b"}
    np.savez(path, texts=np.array(["a", "b"]), vectors=VECTORS.astype(complex))
    assert NumpyFile(path, vector=None, text_field=None).sample(2, 0) == []


def test_arrays_of_numpy(tmp_path: Path) -> None:
    path = tmp_path / "index.npz"
    vectors = np.arange(20, dtype=np.float32).reshape(10, 2)
    np.savez(path, texts=np.array([f"text {row}" for row in range(10)]), embeddings=vectors)
    entries = NumpyFile(path, vector=None, text_field=None).sample(4, 0)
    assert len(entries) == 4
    assert all(entry.vector[0] == 2 * int(entry.text.split()[1]) for entry in entries)
    np.savez(path, texts=np.array(["a", None], dtype=object), embeddings=vectors[:2])
    with pytest.raises(DiagnosticError) as error:
        NumpyFile(path, vector=None, text_field=None)
    assert mistake(error)[0] == "SIE906"
    path.write_bytes(b"no archive")
    with pytest.raises(DiagnosticError) as error:
        NumpyFile(path, vector=None, text_field=None)
    assert mistake(error)[0] in ("SIE903", "SIE906")


def test_a_sample_does_not_depend_on_the_order() -> None:
    keys = [f"id {number}" for number in range(1000)]
    assert chosen(keys, 50, 3) == chosen(reversed(keys), 50, 3)
    assert len(set(chosen(keys, 50, 3)) & set(chosen(keys, 50, 4))) < 20


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--qdrant-path", "folder"], 2, "keeps points as pickles"),
        ([], 2, "name one store"),
        (["--file", "a", "--chroma", "b"], 2, "name one store"),
        (["--chroma", "b"], 2, "--collection"),
        (["--pgvector", "b"], 2, "--table"),
        (["--file", "index.jsonl", "--options", "{"], 2, "no JSON"),
        (["--file", "index.jsonl", "--options", "[]"], 2, "an object"),
        (["--file", "index.jsonl"], 1, "SIE907"),
    ],
)
def test_wrong_usage(
    arguments: list[str], code: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["sie-triton", "migrate", "check", "-m", "a/b", "--url", "http://127.0.0.1:9", *arguments]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    assert words in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_what_numbers_tell() -> None:
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(20, 384)).astype(np.float32)
    step = np.abs(vectors).max(axis=1, keepdims=True) / 127
    least = vectors.min(axis=1, keepdims=True)
    wide = (vectors.max(axis=1, keepdims=True) - least) / 255
    signed = (vectors / step).round() * step
    unsigned = ((vectors - least) / wide).round() * wide + least
    unit = signed / np.linalg.norm(signed, axis=1, keepdims=True)
    assert [measure.grid_bits(kind) for kind in (signed, unsigned, unit)] == [8, 8, 8]
    assert measure.grid_bits(np.round(20 * vectors)) == 8  # one scale for all
    assert measure.grid_bits(np.sign(vectors)) == 1
    halves = vectors.astype(np.float16).astype(np.float32)
    assert measure.grid_bits(vectors) is measure.grid_bits(halves) is None
    assert measure.is_half(halves)
    assert not measure.is_half(vectors)
    assert measure.cosines(vectors, 3 * vectors) == pytest.approx(1)
    broken = vectors.copy()
    broken[0], broken[1, 0] = 0, np.nan
    assert measure.cosines(broken, vectors)[0] == 0
    assert measure.rank_correlation([1, 2, 3, 9], [1, 4, 9, 16]) == pytest.approx(1)
    assert measure.rank_correlation([1, 1, 1], [1, 2, 3]) == 0
