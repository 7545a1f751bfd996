"""What sentence-transformers saves is built without a bundle, served, and gives sentence-transformers' own numbers.

The build compares by itself; here the numbers come over HTTP and from the package's public methods alone.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import httpx
import numpy as np
import prepared
import pytest
from recipes.corpus import LONG_TEXT, QUERY, TEXTS
from recipes.serving import Served, serve
from sie_sdk import SIEClient
from sie_sdk.types import Item

pytestmark = pytest.mark.e2e

GIVEN = [*TEXTS[:6], LONG_TEXT]


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    done = prepared.run(arguments, os.environ, 600)
    assert done.returncode == 0, done.stderr
    return done


@dataclass
class World:
    """The saved checkpoints, and the repository that the command line built out of their folders alone."""

    root: Path

    def folder(self, name: str) -> Path:
        return self.root / name

    @property
    def build(self) -> tuple[str | Path, ...]:
        models = self.root / "models.txt"
        return ("build", "-m", f"@{models}", "-r", self.root / "repository", "--device", "cpu")

    @cached_property
    def served(self) -> Served:
        return serve(self.root / "repository")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    from derive import rerankers, routers
    from derive.st_checkpoints import SAVED

    # The long text makes a pair of a thousand tokens.
    answers = partial(rerankers.difference, limit=1024)
    saved: dict[str, Callable[[Path], None]] = {**SAVED, "st-routes": routers.prompted, "st-answers": answers}
    made = World(tmp_path_factory.mktemp("saved"))
    for name, save in saved.items():
        save(made.folder(name))
    lines = [f"{made.folder(name)}  # no bundle" for name in saved]
    (made.root / "models.txt").write_text("\n".join(lines), encoding="utf-8")
    done = command(*made.build)
    assert all(f"{name}: no bundle names it" in done.stderr for name in saved)
    yield made
    if "served" in vars(made):
        made.served.stop()


def close(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-4)


def test_a_second_build_finds_nothing_to_do(world: World) -> None:
    before = (world.root / "repository" / "manifest.json").read_bytes()
    done = command(*world.build)
    assert done.stderr.count("unchanged ") == 7
    assert "loading torch" not in done.stderr
    assert (world.root / "repository" / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("is_query", [False, True])
@pytest.mark.parametrize("name", ["st-dense", "st-old-pooling"])
def test_dense_vectors(name: str, is_query: bool, world: World) -> None:
    from recipes.st_references import st_reference_dense

    with SIEClient(world.served.url) as client:
        found = client.encode(name, [Item(text=text) for text in GIVEN], is_query=is_query)
    close([item["dense"] for item in found], st_reference_dense(world.folder(name), GIVEN, is_query=is_query))


def test_sparse_vectors(world: World) -> None:
    from recipes.st_references import st_reference_sparse

    with SIEClient(world.served.url) as client:
        found = client.encode("st-sparse", [Item(text=text) for text in GIVEN], output_types=["sparse"])
    for item, theirs in zip(found, st_reference_sparse(world.folder("st-sparse"), GIVEN), strict=True):
        assert list(item["sparse"]["indices"]) == theirs.ids
        np.testing.assert_allclose(item["sparse"]["values"], theirs.weights, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("is_query", [False, True])
def test_sparse_vectors_of_two_routes(is_query: bool, world: World) -> None:
    from sentence_transformers import SparseEncoder

    with SIEClient(world.served.url) as client:
        items = [Item(text=text) for text in GIVEN]
        found = client.encode("st-routes", items, output_types=["sparse"], is_query=is_query)
    model = SparseEncoder(str(world.folder("st-routes")), device="cpu", local_files_only=True)
    encode = model.encode_query if is_query else model.encode_document
    for text, item in zip(GIVEN, found, strict=True):
        row = encode(text, convert_to_sparse_tensor=False).flatten()
        kept = row.nonzero().flatten()
        assert list(item["sparse"]["indices"]) == kept.tolist()
        np.testing.assert_allclose(item["sparse"]["values"], row[kept].numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["st-scores", "st-answers"])
def test_scores(name: str, world: World) -> None:
    from recipes.st_references import st_reference_score

    with SIEClient(world.served.url) as client:
        reply = client.score(name, Item(text=QUERY), [Item(text=t, id=str(i)) for i, t in enumerate(GIVEN)])
    ours = {entry["item_id"]: entry["score"] for entry in reply["scores"]}
    theirs = st_reference_score(world.folder(name), QUERY, GIVEN, max_length=None)
    np.testing.assert_allclose([ours[str(i)] for i in range(len(GIVEN))], theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("is_query", [False, True])
def test_token_vectors(is_query: bool, world: World) -> None:
    from recipes.st_references import st_reference_multivector

    given = [text for text in GIVEN if text.strip()]
    with SIEClient(world.served.url) as client:
        items = [Item(text=text) for text in given]
        found = client.encode("st-multivector", items, output_types=["multivector"], is_query=is_query)
    theirs = st_reference_multivector(world.folder("st-multivector"), given, is_query=is_query)
    close([item["multivector"] for item in found], theirs)


@pytest.mark.parametrize("width", [16, 8, 24])
def test_vectors_are_cut_as_truncate_dim_cuts_them(width: int, world: World) -> None:
    from sentence_transformers import SentenceTransformer

    body = {"model": "st-dense", "input": GIVEN, "dimensions": width}
    answer = httpx.post(f"{world.served.url}/v1/embeddings", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    model = SentenceTransformer(str(world.folder("st-dense")), device="cpu", truncate_dim=width)
    theirs = model.encode_document(GIVEN, normalize_embeddings=True)
    close([np.asarray(entry["embedding"]) for entry in answer.json()["data"]], list(theirs))


@pytest.mark.parametrize(
    ("model", "width", "said"),
    [
        ("st-dense", 12, "whose vectors have 24 and may be cut to 16, 8"),
        ("st-old-pooling", 16, "whose vectors have 32; leave `dimensions` out"),
    ],
)
def test_other_widths_are_refused_with_those_that_are_allowed(model: str, width: int, said: str, world: World) -> None:
    body = {"model": model, "input": "a", "dimensions": width}
    answer = httpx.post(f"{world.served.url}/v1/embeddings", json=body, timeout=60)
    told = answer.json()["error"]
    assert (answer.status_code, told["code"], told["param"]) == (400, "unsupported_field", "dimensions")
    assert said in told["message"]
