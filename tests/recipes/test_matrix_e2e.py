"""Each recipe in each format and precision, served by the real tritonserver on the CPU and compared with the reference.

Half of a repository's models are ONNX and half are TorchScript, so that mixed repositories are served too. ONNX in
float32 is test_recipes_e2e.py's. `--update-golden`, with `SIE_TRITON_ALL_RECIPES=1`, writes what was measured into
docs/precision.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from e2e.processes import sie_triton
from sie_frontend.manifest import read_manifest
from sie_sdk import SIEClient
from sie_sdk.types import EncodeResult, Item, OutputType

from .built import BuiltFamilies
from .corpus import LONG_TEXT, QUERY, TEXTS
from .factory import FAMILIES
from .made import made, oracle
from .oracle import Expected
from .serving import Served, serve

pytestmark = pytest.mark.e2e

# One family of each recipe.
RECIPES = {
    "dense": "bert",
    "dense, causal": "qwen3",
    "sentence-transformers": "sentence_bert_dense",
    "SPLADE": "splade_bert",
    "SPLADE, query weights": "opensearch_idf",
    "sparse, GTE": "opensearch_gte",
    "sparse, sentence-transformers": "sentence_splade",
    "BGE-M3": "bge_m3",
    "ColBERT": "colbert_root_linear",
    "ColBERT, ModernBERT": "colbert_modernbert_chain",
    "cross-encoder": "cross_encoder_bert_identity",
    "language model, yes and no": "causal_qwen3",
    "language model, one token": "zerank",
}
ALL = bool(os.environ.get("SIE_TRITON_ALL_RECIPES"))
MEMBERS = tuple(RECIPES.values())
# One family of each head. What torch traces, and what is watched operator by operator, takes most of the time.
HEADS = ("bert", "splade_bert", "bge_m3", "colbert_modernbert_chain", "cross_encoder_bert_identity", "causal_qwen3")
TRACED = MEMBERS if ALL else HEADS
EVEN, ODD = TRACED[::2], TRACED[1::2]
# What torch makes in float16 is watched operator by operator: minutes for few families.
WATCHED = ODD if ALL else ODD[:1]
REPOSITORIES = {
    "float32": ("float32", {"torchscript": TRACED if ALL else EVEN}),
    "float16": ("float16", {"onnx": tuple(f for f in TRACED if f not in WATCHED), "torchscript": WATCHED}),
    "float16, swapped": ("float16", {"onnx": ODD, "torchscript": EVEN}),
}
# Each head in TorchScript and in float16, each recipe in all of it with every family.
SERVED = [name for name in REPOSITORIES if "swapped" not in name or ALL]
CELLS = [(name, fmt, family) for name in SERVED for fmt, of in REPOSITORIES[name][1].items() for family in of]
# The least cosine of vectors, the largest difference of scores (of their size, beyond 1): in float32 as everywhere, in
# float16 as promised.
LIMITS = {"float32": (0.99999, 1e-4), "float16": (0.999, 2e-2)}
PAGE = Path(__file__).resolve().parents[2] / "docs" / "precision.md"


@dataclass
class Measured:
    """The worst of one cell."""

    cosine: float = 1.0
    difference: float = 0.0


class Matrix:
    """The repositories, each compiled and served when first asked for, and what was measured on them."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._running: tuple[str, Served] | None = None
        self._failed: dict[str, BaseException] = {}
        self.cells: dict[tuple[str, str, str], Measured] = {}

    def url(self, repository: str) -> str:
        if failure := self._failed.get(repository):
            raise failure
        if self._running is None or self._running[0] != repository:
            self.stop()
            try:
                self._running = (repository, serve(self._build(repository)))
            except BaseException as error:
                self._failed[repository] = error
                raise
        return self._running[1].url

    def stop(self) -> None:
        if self._running is not None:
            self._running[1].stop()
            self._running = None

    def _build(self, repository: str) -> Path:
        precision, formats = REPOSITORIES[repository]
        target = self._root / repository / "repository"
        for graph_format, members in formats.items():
            compile_families(target, members, "--format", graph_format, "--precision", precision, "--device", "cpu")
        for built in read_manifest(target).built.values():
            assert built.precisions == {"cpu": precision}
        return target


def compile_families(target: Path, members: Sequence[str], *arguments: str) -> None:
    """Build families into a repository, beside what is there."""
    bundles = target.parent / "bundles"
    bundles.mkdir(parents=True, exist_ok=True)
    for name in members:
        (bundles / f"{name}.yaml").write_bytes(made(name).bundle_path.read_bytes())
    models = [argument for name in members for argument in ("-m", FAMILIES[name].sie_id)]
    done = sie_triton("build", "--bundles", bundles, *models, "-r", target, *arguments, timeout=1200)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Matrix]:
    made_ = Matrix(tmp_path_factory.mktemp("matrix"))
    yield made_
    made_.stop()
    if request.config.getoption("--update-golden"):
        assert list(REPOSITORIES) == SERVED, "the page needs SIE_TRITON_ALL_RECIPES=1"
        PAGE.write_text(_page(made_), encoding="utf-8")


@pytest.mark.parametrize(("repository", "graph_format", "family"), CELLS)
def test_every_format_and_precision_gives_the_reference(
    repository: str, graph_format: str, family: str, matrix: Matrix
) -> None:
    precision, _ = REPOSITORIES[repository]
    model, measured = FAMILIES[family].sie_id, Measured()
    texts = [*TEXTS, LONG_TEXT]
    with SIEClient(matrix.url(repository)) as client:
        if FAMILIES[family].encode:
            outputs: list[OutputType] = [o for o in get_args(OutputType) if o in FAMILIES[family].encode]
            for is_query in (False, True):
                items = [Item(text=text) for text in texts]
                results = client.encode(model, items, output_types=outputs, is_query=is_query)
                for result, expected in zip(results, oracle(family).encode(texts, is_query=is_query), strict=True):
                    compare(result, expected, outputs, measured)
        if FAMILIES[family].score:
            documents = texts if family != "zerank" else TEXTS
            reply = client.score(model, Item(text=QUERY), [Item(text=t, id=str(i)) for i, t in enumerate(documents)])
            scores = {entry["item_id"]: entry["score"] for entry in reply["scores"]}
            for number, score in enumerate(oracle(family).score(QUERY, documents)):
                # MaxSim adds up as many cosines as the query has tokens.
                difference = abs(scores[str(number)] - score) / max(1.0, abs(score))
                # `max` would pass over NaN.
                measured.difference = measured.difference if difference <= measured.difference else difference
    matrix.cells[graph_format, precision, family] = measured
    least_cosine, largest_difference = LIMITS[precision]
    # Written so that NaN fails.
    assert measured.cosine >= least_cosine
    assert measured.difference <= largest_difference


def compare(result: EncodeResult, expected: Expected, outputs: Sequence[str], measured: Measured) -> None:
    """Note the least cosine of any output."""
    if "dense" in outputs:
        assert expected.dense is not None
        _note(measured, result["dense"], expected.dense)
    if "sparse" in outputs:
        assert expected.sparse is not None
        ours, theirs = result["sparse"], expected.sparse
        size = 1 + max([0, *ours["indices"], *theirs.ids])
        spread = np.zeros((2, size))
        spread[0, ours["indices"]], spread[1, theirs.ids] = ours["values"], theirs.weights
        if spread.any():
            _note(measured, *spread)
    if "multivector" in outputs:
        assert expected.multivector is not None
        assert result["multivector"].shape == expected.multivector.shape
        for mine, wanted in zip(result["multivector"], expected.multivector, strict=True):
            _note(measured, mine, wanted)


def _note(measured: Measured, left: np.ndarray, right: np.ndarray) -> None:
    a, b = left.astype(np.float64), right.astype(np.float64)
    cosine = float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
    # `min` would pass over NaN.
    measured.cosine = cosine if not cosine >= measured.cosine else measured.cosine


COLUMNS = (("torchscript", "float32"), ("onnx", "float16"), ("torchscript", "float16"))


def _page(matrix: Matrix) -> str:
    rows = []
    for recipe, family in RECIPES.items():
        cells = [_cell(matrix.cells.get((*column, family)), scores=not FAMILIES[family].encode) for column in COLUMNS]
        rows.append(f"| {recipe} | {' | '.join(cells)} |")
    head = " | ".join(f"{graph_format}, {precision}" for graph_format, precision in COLUMNS)
    return (
        "# How close each format and precision is\n\n"
        "Written by `SIE_TRITON_ALL_RECIPES=1 pytest tests/recipes/test_matrix_e2e.py --update-golden`: one tiny "
        "random checkpoint for each recipe, compiled,\nserved by tritonserver on the CPU, asked through the SDK for "
        "documents and queries, and "
        "compared with arithmetic written\nfrom the models' own documentation. Vectors by their least cosine, scores "
        "by their largest difference. ONNX in float32\npasses the same tests at 0.99999 and 1e-4. What a build of "
        "yours measured is in its `manifest.json` and printed at its end.\nNothing here was computed by a GPU.\n"
        "The ONNX column is what a CPU serves, which rounds less than a GPU; a build's own figures are of the graph "
        "rounded at every\n"
        "node ([formats.md](formats.md#precision)).\n\n"
        f"| recipe | {head} |\n|{'---|' * (len(COLUMNS) + 1)}\n" + "\n".join(rows) + "\n"
    )


def _cell(measured: Measured | None, *, scores: bool) -> str:
    if measured is None:
        return "not measured"
    return f"{measured.difference:.1e}" if scores else f"{measured.cosine:.7f}"


def test_the_page_has_every_cell(matrix: Matrix) -> None:
    if not PAGE.exists():
        pytest.skip("never written")
    table = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0].removeprefix("| ") for line in table] == ["recipe", *RECIPES]
    assert "not measured" not in "".join(table)


def test_recipes_are_all_there(built_families: BuiltFamilies) -> None:
    assert set(MEMBERS) <= set(built_families.families)
