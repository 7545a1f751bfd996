"""`migrate check` against indexes that transformers made wrong on purpose, and against right ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from e2e.processes import sie_triton

from migrate.conftest import MODEL
from migrate.indexes import Encoder, Vectors, int8, noisy, texts, unit
from sie_triton.migrate.check.report import IndexReport
from sie_triton.migrate.check.run import check
from sie_triton.migrate.check.server import EncodingServer
from sie_triton.migrate.stores import Metric, Stored

pytestmark = pytest.mark.e2e
TEXTS = texts()
TITLES = [f"Report {place} on bees" for place in range(len(TEXTS))]
HTML = [text.replace("the ", "<b>the</b> ") for text in TEXTS]


@dataclass
class Memory:
    """An index that is held here: what is checked is the check, and not a store."""

    entries: Sequence[Stored]
    metric: Metric = "unknown"
    normalizes: bool = False
    name: str = "memory"
    notes: list[str] = field(default_factory=list)

    def sample(self, count: int, seed: int) -> list[Stored]:
        return list(self.entries)


@pytest.fixture(scope="module")
def encode(minilm: Path) -> Encoder:
    return Encoder(minilm)


@pytest.fixture(scope="module")
def right(encode: Encoder) -> Vectors:
    return unit(encode(TEXTS))


def judged(
    url: str,
    vectors: Vectors,
    stored: Sequence[str] = TEXTS,
    *,
    model: str = MODEL,
    metric: Metric = "unknown",
    fields: Sequence[Mapping[str, str]] = (),
    others: Sequence[Mapping[str, Vectors]] = (),
    options: Mapping[str, Any] | None = None,
) -> IndexReport:
    entries = [
        Stored(str(row), text, vectors[row], fields[row] if fields else {}, others[row] if others else {})
        for row, text in enumerate(stored)
    ]
    server = asked(url, model, json.dumps(options or {}, sort_keys=True))
    return check(Memory(entries, metric), server, sample=len(entries), seed=0)


@cache
def asked(url: str, model: str, options: str) -> EncodingServer:
    """One for all tests: they ask of the same texts, and it knows what the real server said of them."""
    return EncodingServer(url, model, json.loads(options))


def causes(report: IndexReport) -> list[tuple[str, bool]]:
    return [(cause.cause, cause.certain) for cause in report.causes]


def stays_with(url: str, report: IndexReport, vectors: Vectors, metric: Metric = "unknown") -> bool:
    """Whether the options that it tells make the same index one that can stay."""
    options = {key: value for cause in report.causes for key, value in cause.options.items()}
    return bool(options) and judged(url, vectors, options=options, metric=metric).verdict == "stay"


RIGHT: Mapping[str, tuple[Callable[[Vectors], Vectors], Metric, str]] = {
    "as it is": (lambda v: v, "unknown", ""),
    "half precision": (lambda v: v.astype(np.float16).astype(np.float32), "unknown", "half precision"),
    "rounded to int8": (int8, "unknown", "grid of 8 bits"),
    "a little noise": (lambda v: noisy(v, 0.01), "unknown", ""),
    "three times as long, by cosine": (lambda v: 3 * v, "cosine", "the cosine does not see it"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_an_index_that_can_stay(name: str, right: Vectors, check_url: str) -> None:
    change, metric, note = RIGHT[name]
    for model in (MODEL, "sentence-transformers/all-MiniLM-L6-v2"):
        report = judged(check_url, change(right), model=model, metric=metric)
        assert (report.verdict, report.causes, report.worst) == ("stay", (), ())
        assert report.same == len(TEXTS)
        assert note in " ".join(report.notes)


def test_another_pooling_is_named(encode: Encoder, check_url: str) -> None:
    """qdrant/fastembed#373 and #384."""
    vectors = unit(encode(TEXTS, pooling="cls"))
    report = judged(check_url, vectors)
    assert report.verdict == "stay_with_changes"
    assert causes(report) == [("pooling", True)]
    assert report.causes[0].options == {"pooling": "cls"}
    assert stays_with(check_url, report, vectors)
    # The shipped bundle lets no request choose.
    shipped = judged(check_url, vectors, model="sentence-transformers/all-MiniLM-L6-v2")
    assert shipped.verdict == "embed_again"
    assert not shipped.causes[0].certain
    assert "pooling" in shipped.causes[0].message
    assert all(tried.median is None for tried in shipped.tried if "pooling" in tried.what)


def test_the_maximum_over_tokens(encode: Encoder, check_url: str) -> None:
    report = judged(check_url, unit(encode(TEXTS, pooling="max")))
    assert report.verdict == "embed_again"
    assert causes(report) == [("pooling", False)]
    assert "maximum" in report.causes[0].message


def test_a_prompt_that_the_index_has(encode: Encoder, check_url: str) -> None:
    vectors = unit(encode(TEXTS, before="passage: "))
    report = judged(check_url, vectors)
    assert report.verdict == "stay_with_changes"
    assert causes(report) == [("prompt", True)]
    assert report.causes[0].options == {"doc_template": "passage: {text}"}
    assert stays_with(check_url, report, vectors)


def test_a_prompt_that_only_the_server_has(right: Vectors, check_url: str) -> None:
    report = judged(check_url, right, options={"doc_template": "search_document: {text}"})
    assert causes(report) == [("prompt", True)]
    assert report.causes[0].options == {"doc_template": "{text}"}
    assert stays_with(check_url, report, right)


def test_a_prompt_of_ones_own(encode: Encoder, check_url: str) -> None:
    report = judged(check_url, unit(encode(TEXTS, before="Company handbook, chapter on engines: ")))
    assert report.verdict == "embed_again"
    assert causes(report) == [("prompt", False)]


def test_texts_that_were_cut_earlier(encode: Encoder, check_url: str) -> None:
    report = judged(check_url, unit(encode(TEXTS, max_length=128)))
    assert report.verdict == "partly"
    assert causes(report) == [("truncation", True)]
    assert "at 128 tokens" in report.causes[0].message
    longer = sum(len(encode.tokenizer(text).input_ids) > 128 for text in TEXTS)
    assert report.causes[0].share == pytest.approx(longer / len(TEXTS))
    assert {worst.text for worst in report.worst} <= {t[:200] for t in TEXTS if len(t) > 400}


@pytest.mark.parametrize("model", [MODEL, "sentence-transformers/all-MiniLM-L6-v2"])
def test_texts_that_only_the_server_cuts(encode: Encoder, check_url: str, model: str) -> None:
    report = judged(check_url, unit(encode(TEXTS, max_length=512)), model=model)
    assert report.verdict == "partly"
    assert causes(report) == [("truncation", False)]
    assert "256 tokens" in report.causes[0].message
    assert "holds more" in report.causes[0].message


def test_quantised_weights(encode: Encoder, check_url: str) -> None:
    with encode.quantized():
        vectors = unit(encode(TEXTS))
    report = judged(check_url, vectors)
    assert report.verdict == "embed_again"
    assert causes(report) == [("precision", False)]
    assert "int8" in report.causes[0].message


def test_compressed_vectors(right: Vectors, check_url: str) -> None:
    report = judged(check_url, noisy(right, 0.15))
    assert causes(report) == [("precision", False)]
    assert "compressed" in report.causes[0].message


def test_another_model_of_the_same_size(encode: Encoder, right: Vectors, check_url: str) -> None:
    with encode.random_weights():
        other = unit(encode(TEXTS))
    np.testing.assert_allclose(unit(encode(TEXTS[:2])), right[:2], atol=1e-6)
    report = judged(check_url, other)
    assert report.verdict == "embed_again"
    assert causes(report) == [("model", False)]
    half = np.concatenate([right[::2], other[1::2]])
    report = judged(check_url, half, [*TEXTS[::2], *TEXTS[1::2]])
    assert report.verdict == "partly"
    assert causes(report) == [("model", False)]
    assert report.causes[0].share == 0.5


def test_vectors_that_were_not_normalised(encode: Encoder, check_url: str) -> None:
    vectors = encode(TEXTS)
    report = judged(check_url, vectors, metric="dot")
    assert report.verdict == "stay_with_changes"
    assert causes(report) == [("length", True)]
    assert stays_with(check_url, report, vectors, "dot")
    assert judged(check_url, vectors, metric="cosine").verdict == "stay"


def test_lengths_that_no_option_gives(right: Vectors, check_url: str) -> None:
    """A change of length counts for dot: qdrant/qdrant-client#1411."""
    report = judged(check_url, 2 * right, metric="dot")
    assert report.verdict == "embed_again"
    assert causes(report) == [("length", True)]
    assert "length 2" in report.causes[0].message


def test_vectors_that_were_cut(right: Vectors, check_url: str) -> None:
    report = judged(check_url, unit(right[:, :128]))
    assert report.verdict == "stay_with_changes"
    assert causes(report) == [("dims", True)]
    assert "first 128 of the 384" in report.causes[0].message
    assert judged(check_url, unit(right[:, 128:])).verdict == "embed_again"


def test_titles_in_front(encode: Encoder, check_url: str) -> None:
    pairs = [f"{title}\n{text}" for title, text in zip(TITLES, TEXTS, strict=True)]
    report = judged(check_url, unit(encode(pairs)), fields=[{"title": t, "source": "web"} for t in TITLES])
    assert report.verdict == "stay_with_changes"
    assert causes(report) == [("text", True)]
    assert "`title`" in report.causes[0].message


def test_texts_that_were_cleaned(right: Vectors, check_url: str) -> None:
    report = judged(check_url, right, HTML)
    assert causes(report) == [("text", True)]
    assert "HTML" in report.causes[0].message


def test_the_wrong_vector_of_a_point(encode: Encoder, right: Vectors, check_url: str) -> None:
    titles = unit(encode(TITLES))
    report = judged(check_url, titles, others=[{"body": vector} for vector in right])
    assert report.verdict == "stay_with_changes"
    assert causes(report) == [("vector_name", True)]
    assert "--vector body" in report.causes[0].cure


def test_texts_and_vectors_in_another_order(right: Vectors, check_url: str) -> None:
    report = judged(check_url, np.roll(right, 1, axis=0))
    assert report.verdict == "embed_again"
    assert causes(report) == [("order", True)]


def test_vectors_that_are_broken(right: Vectors, check_url: str) -> None:
    vectors = right.copy()
    vectors[0], vectors[1, 3] = 0, np.nan
    report = judged(check_url, vectors)
    assert report.verdict == "partly"
    assert causes(report) == [("broken", True)]
    assert report.causes[0].share == pytest.approx(2 / len(TEXTS))


def test_one_vector_for_several_texts(encode: Encoder, right: Vectors, check_url: str) -> None:
    """As a loop leaves it that stores its first result again and again."""
    report = judged(check_url, right[:1].repeat(len(TEXTS), axis=0))
    assert causes(report) == [("broken", True)]
    assert "belongs to one of them" in report.causes[0].message
    elsewhere = unit(encode(["A text that is not in the sample."])).repeat(len(TEXTS), axis=0)
    assert causes(judged(check_url, elsewhere)) == [("broken", False)]


def test_numbers_of_one_scale_for_all_vectors(right: Vectors, check_url: str) -> None:
    """Long texts lose a little more, and are not taken for texts that were cut."""
    rounded = np.round(100 * right).astype(np.float32)
    assert (np.einsum("ij,ij->i", unit(rounded), right) < 0.999).any()
    report = judged(check_url, rounded, metric="cosine")
    assert causes(report) == [("precision", False)]
    assert "8 bits" in report.causes[0].message
    report = judged(check_url, np.sign(right), metric="cosine")
    assert causes(report) == [("precision", False)]
    assert "one bit" in report.causes[0].message


def test_zeros_behind_the_vectors(right: Vectors, check_url: str) -> None:
    report = judged(check_url, np.pad(right, ((0, 0), (0, 128))))
    assert report.verdict == "stay_with_changes"
    assert causes(report) == [("dims", True)]
    assert "zeros" in report.causes[0].cure


def test_too_few_to_tell(encode: Encoder, right: Vectors, check_url: str) -> None:
    vectors = right.copy()
    vectors[2:4] = unit(encode(["Another text altogether.", "And a second one of those."]))
    report = judged(check_url, vectors)
    assert report.verdict == "partly"
    assert causes(report) == [("few", False)]


def test_half_a_surrogate_pair_ends_nothing(right: Vectors, check_url: str) -> None:
    report = judged(check_url, right, [*TEXTS[:-1], "half \ud83d"])
    assert (report.verdict, report.sampled) == ("stay", len(TEXTS) - 1)
    assert "left out" in " ".join(report.notes)


def test_two_causes_at_once(encode: Encoder, check_url: str) -> None:
    vectors = unit(encode(TEXTS, pooling="cls", before="query: "))
    report = judged(check_url, vectors)
    assert causes(report) == [("pooling", True), ("prompt", True)]
    assert stays_with(check_url, report, vectors)
    cut = judged(check_url, unit(encode(TEXTS, pooling="cls", max_length=128)))
    assert cut.verdict == "partly"
    assert causes(cut) == [("pooling", True), ("truncation", True)]
    raw = encode(TEXTS, before="query: ")
    report = judged(check_url, raw, metric="dot")
    assert causes(report) == [("prompt", True), ("length", True)]
    assert stays_with(check_url, report, raw, "dot")


def test_the_command_line(encode: Encoder, right: Vectors, check_url: str, tmp_path: Path) -> None:
    path = tmp_path / "index.jsonl"

    def run(vectors: Vectors, *more: str) -> Any:
        lines = [json.dumps({"text": t, "vector": v.tolist()}) for t, v in zip(TEXTS, vectors, strict=True)]
        path.write_text("\n".join(lines), encoding="utf-8")
        before = path.read_bytes()
        done = sie_triton("migrate", "check", "-m", MODEL, "--url", check_url, "--file", path, "--sample", "12", *more)
        assert path.read_bytes() == before
        return done

    done = run(right)
    assert done.returncode == 0, done.stderr
    assert "12 entries, 12 of them the same" in done.stdout
    assert "the index can stay" in done.stdout
    wrong = unit(encode(TEXTS, pooling="cls"))
    done = run(wrong)
    assert done.returncode == 1
    assert "cause: the stored vectors come out with `cls` pooling" in done.stdout
    assert 'options: {"pooling": "cls"}' in done.stdout
    assert "worst: " in done.stdout
    done = run(wrong, "--options", '{"pooling": "cls"}', "--json")
    assert done.returncode == 0
    said = json.loads(done.stdout)
    assert (said["verdict"], said["sampled"], said["same"]) == ("stay", 12, 12)
    assert run(right, "-m", "acme/nothing").returncode == 1
