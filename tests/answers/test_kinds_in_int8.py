"""A sparse model, a ColBERT and a reranker built in int8: what the manifest says of their answers, counted anew.

Float32's side is transformers and the models' own documentation (`recipes.oracle`), one text at a time; scores are sums
in a loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from recipes.made import made, oracle
from scipy.stats import kendalltau
from sie_frontend.http.listing import certificate_info
from sie_frontend.manifest import Built, Nearest, read_manifest
from sie_frontend.outputs.heads import Heads
from sie_frontend.rows import Array

from sie_triton.answers import reranking
from sie_triton.answers.candidates import candidates
from sie_triton.answers.corpus import documentation
from sie_triton.bundle import expand, load_bundles
from sie_triton.cli.printing import answer_lines
from sie_triton.compiler.build import compile_models
from sie_triton.compiler.options import BuildOptions, select
from sie_triton.planning.plan import GraphOptions
from sie_triton.verify.checks import verify_repository
from sie_triton.verify.model_runner import ModelRunner
from sie_triton.verify.public_model import CaseCall, PublicModel, input_of, public_model

from .few import few

pytestmark = pytest.mark.export

TEXTS, QUERIES, CANDIDATES = 120, 6, 20
# Random weights lose more than trained ones: what is tested is what is said of it.
ANYTHING = (("batch", 1.0), ("cosine", 0.5), ("nearest", 0.0), ("tau", 0.0))


class InInt8:
    """A family built in int8, asked as the frontend asks."""

    def __init__(self, family: str, folder: Path) -> None:
        bundles, _ = load_bundles(made(family).bundle_path.parent)
        bundle = bundles[made(family).sie_id]
        graphs = GraphOptions(precision="int8", devices=("cpu",), accepted=ANYTHING)
        compile_models([select(bundle, expand(bundle))], BuildOptions(folder, graphs=graphs))
        manifest = read_manifest(folder)
        [(_, self._served)] = manifest.models.items()
        [(name, self.built)] = manifest.built.items()
        self.folder = folder
        self.problems = verify_repository(folder, manifest)
        self.model: PublicModel = public_model(folder, manifest, name)
        self._runner = ModelRunner(folder, name)
        self._call = CaseCall(self._served.profiles["default"])
        reads = input_of(self._served, name)[1].reads
        self._heads = Heads(self._served.heads, folder, [reads], self._served.loadtime)

    def encode(self, output: Any, texts: Sequence[str], *, is_query: bool) -> list[Any]:
        """The output of each text, computed alone."""
        head: Any = self._served.heads[output]
        names = head.tensors(self._call, is_query=is_query)
        rows = self.model.reader.rows(texts, self._call, is_query=is_query)
        return [head.read(self._run(row, names), row, self._call, self._heads, is_query=is_query) for row in rows]

    def score(self, query: str, documents: Sequence[str]) -> list[float]:
        """The score of each document."""
        head: Any = self._served.heads["score"]
        rows = self.model.reader.pairs(query, documents, self._call)
        return [float(self._run(row, [head.tensor])[head.tensor].item()) for row in rows]

    def _run(self, row: Any, names: Sequence[str]) -> dict[str, Array]:
        found = self._runner.run(self.model.reader.batch([row], row.cost), list(names))
        return {name: array[0] for name, array in found.items()}


@pytest.fixture(autouse=True, scope="module")
def few_texts() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module, name, count in (
            (reranking, "FEWEST_QUERIES", QUERIES),
            (reranking, "CANDIDATES", CANDIDATES),
        ):
            patch.setattr(module, name, count)
        few(patch, text=TEXTS)
        yield


def ten(scores: Sequence[float], own: int) -> set[int]:
    """The ten best places but its own."""
    order = sorted((place for place in range(len(scores)) if place != own), key=lambda place: -scores[place])
    return set(order[:10])


def share(
    score: Callable[[Any, Any], float],
    true: tuple[list[Any], list[Any]],
    given: tuple[list[Any], list[Any]],
    every: int,
) -> float:
    """How many of the ten nearest stay that `true` has, where `given` has them: queries and texts each."""
    kept = []
    for place, (right, ours) in enumerate(zip(true[0], given[0], strict=True)):
        answers = (
            ten([score(q, text) for text in texts], place * every) for q, texts in ((right, true[1]), (ours, given[1]))
        )
        kept.append(len(set.intersection(*answers)) / 10)
    return sum(kept) / len(kept)


def check(found: Nearest, score: Callable[[Any, Any], float], right: Any, ours: Any, every: int) -> None:
    (queries, texts), (our_queries, _) = right, ours
    assert (found.texts, found.queries) == (TEXTS, len(queries))
    # Places that are as near as rounding may go either way.
    assert found.alike == pytest.approx(share(score, right, ours, every), abs=0.03)
    assert found.mixed == pytest.approx(share(score, right, (our_queries, texts), every), abs=0.03)
    assert 0.3 < found.alike <= 1 and 0.5 < found.min_cosine < 1


def said_and_sound(model: InInt8, built: Built) -> None:
    assert built.precisions == {"cpu": "int8"} and built.accepted == dict(ANYTHING)
    assert model.problems == []
    told = certificate_info(built)
    assert told["precisions"] == {"cpu": "int8"} and ("nearest" in told) is not ("reranked" in told)
    assert len(answer_lines(built)) == 1
    [path] = model.folder.rglob("*.onnx")
    assert "MatMulNBits" in {node.op_type for node in onnx.load(str(path)).graph.node}


def test_a_sparse_model_keeps_answers_by_dot_product(tmp_path: Path) -> None:
    model = InInt8("splade_bert", tmp_path / "r")
    said_and_sound(model, model.built)
    texts = list(documentation(TEXTS))
    [(name, found)] = model.built.nearest["int8"].items()
    assert (name, found.comparison) == ("sparse", "dot product")

    def dot(query: dict[int, float], text: dict[int, float]) -> float:
        return sum(weight * text.get(term, 0.0) for term, weight in query.items())

    def right(some: Sequence[str], is_query: bool) -> list[dict[int, float]]:
        made = [expected.sparse for expected in oracle("splade_bert").encode(some, is_query=is_query)]
        return [dict(zip(s.ids, map(float, s.weights), strict=True)) for s in made if s]

    def ours(some: Sequence[str], is_query: bool) -> list[dict[int, float]]:
        made = model.encode("sparse", some, is_query=is_query)
        return [dict(zip(v.indices.tolist(), v.values.tolist(), strict=True)) for v in made]

    true, given = [(side(texts[::10], True), side(texts, False)) for side in (right, ours)]
    check(found, dot, true, given, every=10)


def test_a_colbert_keeps_answers_by_maxsim(tmp_path: Path) -> None:
    model = InInt8("colbert_root_linear", tmp_path / "r")
    said_and_sound(model, model.built)
    texts = list(documentation(TEXTS))
    [(name, found)] = model.built.nearest["int8"].items()
    assert (name, found.comparison) == ("multivector", "MaxSim")

    def maxsim(query: Array, text: Array) -> float:
        return sum(float(max(text @ token)) for token in query)

    def right(some: Sequence[str], is_query: bool) -> list[Any]:
        return [expected.multivector for expected in oracle("colbert_root_linear").encode(some, is_query=is_query)]

    def ours(some: Sequence[str], is_query: bool) -> list[Array]:
        return model.encode("multivector", some, is_query=is_query)

    true, given = [(side(texts[::20], True), side(texts, False)) for side in (right, ours)]
    check(found, maxsim, true, given, every=20)


def test_a_reranker_keeps_the_order_of_its_candidates(tmp_path: Path) -> None:
    model = InInt8("cross_encoder_bert_identity", tmp_path / "r")
    said_and_sound(model, model.built)
    texts = documentation(TEXTS)
    [found] = model.built.reranked["int8"].values()
    assert (found.queries, found.candidates, found.corpus) == (
        QUERIES,
        CANDIDATES,
        "sentences of Python's documentation",
    )
    places = range(0, TEXTS, TEXTS // QUERIES)
    kept, taus, differences = [], [], []
    for query, line in zip(places, candidates(texts, places, CANDIDATES), strict=True):
        documents = [texts[place] for place in line]
        right = oracle("cross_encoder_bert_identity").score(texts[query], documents)
        ours = model.score(texts[query], documents)
        kept.append(len(ten(right, -1) & ten(ours, -1)) / 10)
        taus.append(kendalltau(right, ours).statistic)
        differences.append(np.abs(np.subtract(right, ours)).max())
    assert found.kept == pytest.approx(np.mean(kept), abs=0.03)
    assert found.tau == pytest.approx(np.mean(taus), abs=0.02)
    assert found.max_abs == pytest.approx(max(differences), rel=0.05)
    assert found.max_abs > 0 and 0.5 < found.tau <= 1
