"""The layouts that `auto` would not choose: several heads in one graph, one head as an ensemble. Same answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import pytest
from sie_frontend.manifest import read_manifest
from sie_sdk import SIEClient
from sie_sdk.types import Item, OutputType

from .corpus import LONG_TEXT, TEXTS
from .factory import FAMILIES
from .made import oracle
from .serving import Served, serve
from .test_matrix_e2e import LIMITS, Measured, compare, compile_families

pytestmark = pytest.mark.e2e

LAYOUTS = {"bge_m3": "fused", "bert": "ensemble", "splade_bert": "ensemble"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    repository = tmp_path_factory.mktemp("layouts") / "repository"
    for layout in ("fused", "ensemble"):
        members = [family for family, chosen in LAYOUTS.items() if chosen == layout]
        compile_families(repository, members, "--layout", layout, "--device", "cpu")
    built = read_manifest(repository).built
    assert {name: record.layout for name, record in built.items()} == {
        FAMILIES[family].sie_id.replace("/", "__"): layout for family, layout in LAYOUTS.items()
    }
    running = serve(repository)
    yield running
    running.stop()


@pytest.mark.parametrize("family", LAYOUTS)
@pytest.mark.parametrize("is_query", [False, True], ids=["document", "query"])
def test_every_layout_gives_the_reference(family: str, is_query: bool, served: Served) -> None:
    outputs: list[OutputType] = [output for output in get_args(OutputType) if output in FAMILIES[family].encode]
    texts, measured = [*TEXTS, LONG_TEXT], Measured()
    with SIEClient(served.url) as client:
        items = [Item(text=text) for text in texts]
        results = client.encode(FAMILIES[family].sie_id, items, output_types=outputs, is_query=is_query)
    for result, expected in zip(results, oracle(family).encode(texts, is_query=is_query), strict=True):
        compare(result, expected, outputs, measured)
    assert measured.cosine >= LIMITS["float32"][0]
