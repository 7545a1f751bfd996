"""A folder of qdrant-client's local mode: nothing of it is unpickled, and the program that is printed exports it."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from environments import Unavailable, environment, interpreter

from sie_triton.diagnostics import Diagnostic, DiagnosticError
from sie_triton.migrate.stores.files import JsonLines
from sie_triton.migrate.stores.qdrant_local import refuse_local_mode

# As qdrant-client 1.20 wrote it for the collections that `_FILL` makes.
META = Path(__file__).parent / "qdrant_local_meta.json"
MODEL = "BAAI/bge-small-en-v1.5"
URL = "http://127.0.0.1:8080"
_FILL = """
import sys
from qdrant_client import QdrantClient, models
client = QdrantClient(path=sys.argv[1])
cosine, dot = models.Distance.COSINE, models.Distance.DOT
client.create_collection("docs", vectors_config=models.VectorParams(size=4, distance=cosine))
points = [
    models.PointStruct(id=i, vector=[1, 2, 3, float(i)], payload={"document": f"text {i}", "meta": {"title": "t"}})
    for i in range(600)
]
client.upsert("docs", points)
named = {"a": models.VectorParams(size=4, distance=dot), "fast-bge": models.VectorParams(size=3, distance=cosine)}
client.create_collection("two", vectors_config=named)
payload = {"text": "it's \\"quoted\\"\\n"}
client.upsert("two", [models.PointStruct(id=1, vector={"a": [1, 2, 3, 4], "fast-bge": [1, 2, 2]}, payload=payload)])
client.close()
"""


def refused(folder: Path, collection: str | None, *, vector: str | None = None, model: str = MODEL) -> Diagnostic:
    error = refuse_local_mode_of(folder, collection, vector, model)
    [diagnostic] = error.diagnostics
    return diagnostic


def refuse_local_mode_of(folder: Path, collection: str | None, vector: str | None, model: str) -> DiagnosticError:
    try:
        return refuse_local_mode(folder, collection, model=model, url=URL, vector=vector)
    except DiagnosticError as error:
        return error


def parts(hint: str) -> tuple[str, list[str]]:
    """The program, and the words of the check behind it."""
    _, _, rest = hint.partition(":\n\n")
    program, _, check = rest.partition("\nthen: ")
    return program, shlex.split(check)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "the folder's"
    made.mkdir()
    shutil.copy(META, made / "meta.json")
    return made


def test_the_program_and_the_check_fit_the_collection(folder: Path) -> None:
    found = refused(folder, "docs")
    program, check = parts(str(found.hint))
    compile(program, "printed", "exec")
    assert (found.code, repr(str(folder)) in program, "pickles" in found.message) == ("SIE906", True, True)
    assert check == [
        *("sie-triton", "migrate", "check", "-m", MODEL, "--url", URL),
        *("--file", "docs.jsonl", "--metric", "cosine"),
    ]
    program, check = parts(str(refused(folder, "two", vector="a").hint))
    assert "point.vector['a']" in program and check[-1] == "dot"


@pytest.mark.parametrize(
    ("collection", "vector", "model", "code", "said"),
    [
        (None, None, MODEL, "SIE905", "several could be the collection: `docs`, `two`"),
        ("three", None, MODEL, "SIE904", "there are: `docs`, `two`"),
        ("two", "b", MODEL, "SIE904", "there are: `a`, `fast-bge`"),
        ("two", None, "other/model", "SIE905", "several could be the vector: `a`, `fast-bge`"),
        ("two", None, "BAAI/bge", "SIE906", "pickles"),
    ],
)
def test_names_are_known_without_reading_a_point(
    folder: Path, collection: str | None, vector: str | None, model: str, code: str, said: str
) -> None:
    found = refused(folder, collection, vector=vector, model=model)
    assert (found.code, said in found.message) == (code, True), found


def test_another_folder_is_told_what_it_is(tmp_path: Path) -> None:
    assert "`QdrantClient(path=...)`" in str(refused(tmp_path, None).hint)
    (tmp_path / "meta.json").write_text("[]")
    assert refused(tmp_path, None).code == "SIE906"
    (tmp_path / "collections").mkdir()
    assert "storage of a Qdrant server" in refused(tmp_path, None).message


def client() -> Path:
    base = interpreter("3.12")
    if base is None:
        pytest.skip("there is no Python 3.12 here")
    try:
        return environment("qdrant-client-1.20.0", base)
    except Unavailable as reason:
        pytest.skip(str(reason))


def run(arguments: Sequence[str | Path], cwd: Path) -> None:
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=cwd, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.official
@pytest.mark.e2e
def test_what_the_program_writes_is_what_the_client_stored(tmp_path: Path) -> None:
    python, folder = client(), tmp_path / "the folder's"
    run([python, "-W", "ignore", "-c", _FILL, folder], tmp_path)
    assert json.loads((folder / "meta.json").read_text()) == json.loads(META.read_text())
    for collection, vector in (("docs", None), ("two", "fast-bge")):
        program, check = parts(str(refused(folder, collection, vector=vector).hint))
        run([python, "-c", program], tmp_path)
        store = JsonLines(tmp_path / check[check.index("--file") + 1], vector=None, text_field=None, metric="cosine")
        found = {entry.text: entry.vector for entry in store.sample(1000, 0)}
        stored = {'it\'s "quoted"\n': [1, 2, 2]} if vector else {f"text {i}": [1, 2, 3, i] for i in range(600)}
        assert found.keys() == stored.keys()
        # Whether a cosine collection gives back unit vectors depends on whether it was opened anew in between.
        for text, numbers in stored.items():
            direction = np.asarray(numbers) / np.linalg.norm(numbers)
            np.testing.assert_allclose(found[text] / np.linalg.norm(found[text]), direction, rtol=1e-5)
