from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sie_frontend.rows import padded_width

from compiler import tiny
from compiler.command import Outcome, sie_triton
from compiler.folders import BERT, bge_small_facts, minilm_facts, write_folder
from compiler.golden_files import Golden
from sie_triton.planning.plan import bucket_lengths
from sie_triton.planning.tensors import triton_model_name

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
BGE = "BAAI/bge-small-en-v1.5"


@pytest.fixture(autouse=True)
def no_checkpoints_at_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "empty"))


@pytest.mark.parametrize(("model", "facts", "file"), [(MINILM, minilm_facts, "minilm"), (BGE, bge_small_facts, "bge")])
def test_the_shipped_bundles_are_planned(model: str, facts: Any, file: str, tmp_path: Path, golden: Golden) -> None:
    done = sie_triton("plan", "-m", model, "--json", "--weights", facts(tmp_path / "checkpoint"))
    assert (done.code, done.stderr) == (0, "")
    golden.check(f"plan_{file}.json", done.stdout)


def test_without_a_checkpoint_a_plan_names_what_it_cannot_know(golden: Golden) -> None:
    done = sie_triton("plan", "-m", BGE, "--json")
    assert (done.code, done.stderr) == (0, "")
    golden.check("plan_bge_without_checkpoint.json", done.stdout)


def test_a_plan_is_readable_too(tmp_path: Path, golden: Golden) -> None:
    done = sie_triton("plan", "-m", MINILM, "--weights", minilm_facts(tmp_path / "checkpoint"))
    golden.check("plan_minilm.txt", done.stdout)


def plans_of(text: str, tmp_path: Path, files: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """The plans of a variation of the tiny bundle on a folder of facts, or on nothing at all."""
    done = plan_tiny(text, tmp_path, files)
    assert done.code == 0, done.stderr
    plans: list[dict[str, Any]] = json.loads(done.stdout)
    return plans


def plan_tiny(text: str, tmp_path: Path, files: dict[str, Any] | None) -> Outcome:
    bundles = tiny.write_bundle(tmp_path / "bundles", text)
    weights: list[str | Path] = [] if files is None else ["--weights", write_folder(tmp_path / "checkpoint", files)]
    return sie_triton("plan", "-m", tiny.MODEL_ID, "--bundles", bundles, "--json", *weights)


SMALL = {"config.json": {"model_type": "bert", "hidden_size": 32, "max_position_embeddings": 64}}


def refusal(text: str, tmp_path: Path, files: dict[str, Any] | None) -> str:
    done = plan_tiny(text, tmp_path, files)
    assert (done.code, done.stdout) == (2, "")
    return done.stderr


def test_profiles_that_truncate_alike_share_one_model(tmp_path: Path) -> None:
    (plan,) = plans_of(tiny.BUNDLE, tmp_path, SMALL)
    assert plan["served"] == ["acme/tiny", "acme/tiny:raw"]
    names = [tensor["name"] for tensor in plan["outputs"]]
    assert names == ["dense", "dense_unnormalized", "dense_cls", "dense_cls_unnormalized"]


def test_a_profile_that_truncates_elsewhere_gets_a_model_of_its_own(tmp_path: Path) -> None:
    own_limit = "  short:\n    extends: default\n    adapter_options:\n      loadtime:\n        max_seq_length: 16\n"
    plans = plans_of(tiny.BUNDLE + own_limit, tmp_path, SMALL)
    assert [(plan["name"], plan["max_length"]) for plan in plans] == [("acme__tiny", 48), ("acme__tiny__short", 16)]
    names = [graph["triton_model"] for plan in plans for graph in plan["graphs"]]
    assert len(set(names)) == len(names)


def test_declared_dims_must_be_those_of_the_checkpoint(tmp_path: Path) -> None:
    message = refusal(tiny.BUNDLE, tmp_path, {"config.json": BERT})
    line = tiny.BUNDLE.splitlines().index("      dim: 32") + 1
    assert f"tiny.yaml:{line}:" in message
    assert "SIE211: `acme/tiny` declares 32 dense dimensions, the checkpoint gives 384" in message
    assert "set `tasks.encode.dense.dim: 384`" in message


def test_something_must_limit_the_length(tmp_path: Path) -> None:
    text = tiny.BUNDLE.replace("max_sequence_length: 48\n", "")
    assert "SIE212" in refusal(text, tmp_path, None)
    (plan,) = plans_of(text, tmp_path, SMALL)
    assert plan["max_length"] == 64


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, 48),
        ({"tokenizer_config.json": {"model_max_length": 40}}, 40),
        ({"tokenizer_config.json": {"model_max_length": 1e30}}, 48),
        ({"config.json": {**SMALL["config.json"], "max_position_embeddings": 32}}, 32),
        ({"config.json": {**SMALL["config.json"], "model_type": "xlm-roberta", "max_position_embeddings": 34}}, 32),
    ],
)
def test_the_least_limit_holds(files: dict[str, Any], limit: int, tmp_path: Path) -> None:
    (plan,) = plans_of(tiny.BUNDLE, tmp_path, {**SMALL, **files})
    assert plan["max_length"] == limit == plan["buckets"][-1]


def test_a_pipeline_that_cannot_be_followed_is_refused(tmp_path: Path) -> None:
    files = {**SMALL, "modules.json": [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.CNN"}]}
    text = tiny.BUNDLE.replace("bert_flash:BertFlashAdapter", "sentence_transformer:SentenceTransformerDenseAdapter")
    done = plan_tiny(text, tmp_path, files)
    assert (done.code, done.stdout) == (1, "")
    assert "SIE331" in done.stderr
    assert "a `CNN` module" in done.stderr
    assert plans_of(tiny.BUNDLE, tmp_path, files)  # this adapter never looks at the file


@given(st.lists(st.sampled_from("ab/:._-"), min_size=1).map("".join), st.sampled_from([None, "encoder"]))
def test_names_are_ones_that_triton_accepts(model_id: str, part: str | None) -> None:
    name = triton_model_name(model_id, part)
    assert not set(name) & {"/", ":"}
    assert name.endswith(f".{part}" if part else "")


@given(st.integers(1, 40_000))
def test_buckets_ascend_to_the_limit(max_length: int) -> None:
    buckets = bucket_lengths(max_length)
    assert list(buckets) == sorted(set(buckets))
    assert buckets[-1] == max_length
    assert len(buckets) <= 8 + 4 * max(0, max_length.bit_length() - 7)


@given(st.integers(1, 40_000).flatmap(lambda limit: st.tuples(st.just(limit), st.integers(1, limit))))
def test_padding_to_a_bucket_is_bounded(case: tuple[int, int]) -> None:
    max_length, length = case
    padding = padded_width(length, bucket_lengths(max_length)) - length
    assert 0 <= padding <= 15 if length <= 128 else padding < length / 4


def test_the_json_of_a_plan_is_json(tmp_path: Path) -> None:
    weights = minilm_facts(tmp_path / "checkpoint")
    done = sie_triton("plan", "-m", MINILM, "--json", "--layout", "ensemble", "--weights", weights)
    (plan,) = json.loads(done.stdout)
    assert plan["served"] == [MINILM, f"{MINILM}:candle"]
    assert [step["triton_model"] for step in plan["steps"]] == [graph["triton_model"] for graph in plan["graphs"]]
