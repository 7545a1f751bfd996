"""`sie_frontend_truncated_items_total`: the items whose text has more tokens than the model reads, and no others."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from compiler import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from sie_frontend.manifest import read_manifest
from sie_frontend.text.tokenization import TextTokenizer
from tokenizers import Tokenizer

from frontend.conftest import Service
from frontend.repository import WORDS
from frontend.wire import answer, encode, texts

LIMIT = 48
FULL = " ".join(["cell"] * (LIMIT - 2))  # and the two special tokens


async def counted(client: httpx.AsyncClient, name: str) -> dict[str, float]:
    """A counter by its label `model`, as a scraper reads it."""
    exposition = (await client.get("/metrics")).text
    samples = [s for family in text_string_to_metric_families(exposition) for s in family.samples]
    return {sample.labels["model"]: sample.value for sample in samples if sample.name == name}


@pytest.mark.asyncio
async def test_items_are_counted_as_they_were_sent(service: Service) -> None:
    async with service.open() as client:
        answer(await encode(client, texts("cell", FULL)))
        assert await counted(client, "sie_frontend_truncated_items_total") == {tiny.MODEL_ID: 0}
        long = FULL + " house"
        # Equal texts are one row and two items.
        answer(await encode(client, texts(long, "cell", long, FULL, f"{long} cell")))
        assert await counted(client, "sie_frontend_truncated_items_total") == {tiny.MODEL_ID: 3}
        assert await counted(client, "sie_frontend_items_total") == {tiny.MODEL_ID: 7}


@pytest.mark.asyncio
async def test_one_spelling_of_a_model_in_every_metric(service: Service) -> None:
    async with service.open() as client:
        for model_id in (tiny.MODEL_ID, f"{tiny.MODEL_ID}:raw"):
            answer(await encode(client, texts("cell"), f"/v1/encode/{model_id}"))
        exposition = (await client.get("/metrics")).text
    samples = [s for family in text_string_to_metric_families(exposition) for s in family.samples]
    spelt = {sample.labels["model"] for sample in samples if "model" in sample.labels}
    assert spelt == {tiny.MODEL_ID, f"{tiny.MODEL_ID}:raw"}
    # The runs of a Triton model that several ids share are the bundle's own id's.
    runs = {s.labels["model"]: s.value for s in samples if s.name == "sie_frontend_run_seconds_count"}
    waits = {s.labels["model"]: s.value for s in samples if s.name == "sie_frontend_queue_seconds_count"}
    assert runs == waits == {tiny.MODEL_ID: 2}


@pytest.fixture(scope="module")
def tokenizers(repository: Path) -> tuple[TextTokenizer, Tokenizer]:
    """Ours, and the library's own on the same file, which truncates nothing."""
    spec = read_manifest(repository).models[tiny.MODEL_ID].text.tokenization
    whole = Tokenizer.from_file(str(repository / spec.path))
    whole.no_truncation()
    return TextTokenizer(spec, repository), whole


SENTENCES = st.lists(st.sampled_from([*WORDS, "unbekannt", "!"]), max_size=12).map(" ".join)


@settings(max_examples=200)
@given(sentences=st.lists(SENTENCES, min_size=1, max_size=4), limit=st.integers(4, 14))
def test_a_row_is_cut_if_the_whole_text_has_more_tokens(
    sentences: list[str], limit: int, tokenizers: tuple[TextTokenizer, Tokenizer]
) -> None:
    ours, whole = tokenizers
    cuts = [cut for _, cut in ours.encode_with_cuts(sentences, limit)]
    assert cuts == [len(whole.encode(sentence).ids) > limit for sentence in sentences]
    pairs = [(sentences[0], sentence) for sentence in sentences]
    rows = ours.encode_pairs(pairs, limit)
    assert [row.cut for row in rows] == [len(whole.encode(*pair).ids) > limit for pair in pairs]
