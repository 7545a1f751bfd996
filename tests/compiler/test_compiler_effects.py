"""What a bundle asks for without effect is said, and what would come out otherwise is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from compiler import tiny
from compiler.folders import NORMALIZE, POOLING, TRANSFORMER, write_folder
from sie_triton.bundle import expand, load_bundle, load_bundles
from sie_triton.compiler.options import select
from sie_triton.diagnostics import DiagnosticError
from sie_triton.facts import read_facts
from sie_triton.planning.plan import TritonPlan
from sie_triton.planning.planner import make_plans

FLASH = "sie_server.adapters.bert_flash:BertFlashAdapter"
FOLLOWS = "sie_server.adapters.sentence_transformer:SentenceTransformerDenseAdapter"
GENERATES = "sie_server.adapters.sglang.embedding:SGLangEmbeddingAdapter"
MEAN = {
    "modules.json": [TRANSFORMER, POOLING, NORMALIZE],
    "1_Pooling/config.json": {"pooling_mode": "mean"},
    "tokenizer_config.json": {"model_max_length": 40},
}


def plans(
    tmp_path: Path, adapter: str, files: dict[str, Any], *, loadtime: Any = None, **runtime: Any
) -> tuple[TritonPlan, ...]:
    """The plans of the tiny bundle with this adapter and these options, on a checkpoint of these files."""
    written = yaml.safe_load(tiny.BUNDLE)
    written["tasks"]["encode"]["dense"]["dim"] = 384
    written["profiles"] = {"default": written["profiles"]["default"]}
    written["profiles"]["default"]["adapter_path"] = adapter
    written["profiles"]["default"]["adapter_options"] = {"loadtime": loadtime or {}, "runtime": runtime}
    tmp_path.mkdir(exist_ok=True)
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(written), encoding="utf-8")
    bundle, mistakes = load_bundle(path)
    assert bundle is not None, mistakes
    target = select(bundle, expand(bundle))
    return make_plans(target.bundle, target.profiles, read_facts(write_folder(tmp_path / "checkpoint", files)))


def refusal(tmp_path: Path, adapter: str, files: dict[str, Any], **options: Any) -> str:
    with pytest.raises(DiagnosticError) as caught:
        plans(tmp_path, adapter, files, **options)
    assert {diagnostic.code for diagnostic in caught.value.diagnostics} == {"SIE217"}
    return str(caught.value)


def test_a_pooling_that_the_checkpoint_overrules_is_refused(tmp_path: Path) -> None:
    """The migration guide's own bundle: `pooling: cls` where sentence-transformers pools the mean."""
    message = refusal(tmp_path, FOLLOWS, {}, pooling="cls")
    assert "asks for the pooling `cls`: SentenceTransformerDenseAdapter would compute `mean`" in message
    assert "tiny.yaml:" in message
    assert "write `pooling: mean`" in message


def test_a_pooling_that_the_checkpoint_means_too_is_said(tmp_path: Path) -> None:
    (plan,) = plans(tmp_path, FOLLOWS, MEAN, pooling="mean", normalize=True)
    assert [text for text in plan.warnings if "pooling" in text] == [
        "`runtime.pooling` of `acme/tiny` has no effect: SentenceTransformerDenseAdapter does not read it"
    ]


@pytest.mark.parametrize(("pooling", "said"), [("clss", "no adapter knows it"), ("last_token", "would compute `mean`")])
def test_words_that_mean_something_else_here_are_refused(pooling: str, said: str, tmp_path: Path) -> None:
    """SIE's flash adapters take every word but `cls` for the mean."""
    assert said in refusal(tmp_path, FLASH, {}, pooling=pooling)


def test_a_pooling_at_load_time_counts_where_none_is_given_at_run_time(tmp_path: Path) -> None:
    assert "`clss`" in refusal(tmp_path / "a", FLASH, {}, loadtime={"pooling": "clss"})
    (plan,) = plans(tmp_path / "b", FLASH, {}, loadtime={"pooling": "clss"}, pooling="cls")
    assert plan.heads


def test_vectors_that_are_always_normalised_cannot_be_asked_otherwise(tmp_path: Path) -> None:
    assert "normalises every one" in refusal(tmp_path, FOLLOWS, MEAN, normalize=False)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("config_kwargs", {"use_cache": False}, None),
        ("config_kwargs", {"rope_theta": 5}, "`rope_theta`"),
        ("forward_kwargs", {"is_causal": False}, None),
        ("forward_kwargs", {"output_attentions": True}, "`output_attentions`"),
    ],
)
def test_arguments_that_change_the_model_are_refused(key: str, value: Any, said: str | None, tmp_path: Path) -> None:
    if said:
        assert said in refusal(tmp_path, FLASH, {}, loadtime={key: value})
    else:
        assert plans(tmp_path, FLASH, {}, loadtime={key: value})


def test_options_that_nobody_reads_are_said(tmp_path: Path) -> None:
    (plan,) = plans(tmp_path, FLASH, {}, loadtime={"cuda_graphs": True, "stemming": 1}, colour="red", pooling="mean")
    assert plan.warnings[:2] == (
        "`runtime.colour` of `acme/tiny` has no effect: BertFlashAdapter does not read it",
        "`loadtime.stemming` of `acme/tiny` has no effect: BertFlashAdapter does not read it",
    )


def test_adapters_with_one_pooling_take_none(tmp_path: Path) -> None:
    (plan,) = plans(tmp_path, GENERATES, {}, pooling="last_token")
    assert any("`runtime.pooling`" in text for text in plan.warnings)


def test_a_limit_beyond_the_positions_is_said(tmp_path: Path) -> None:
    files = {"config.json": {"model_type": "bert", "hidden_size": 384, "max_position_embeddings": 32}}
    (plan,) = plans(tmp_path, FLASH, files, pooling="mean")
    assert plan.warnings == ("texts of `acme/tiny` are cut at 32 tokens, not at 48: the checkpoint reads no more",)


def test_settings_without_the_list_of_modules_are_said(tmp_path: Path) -> None:
    (plan,) = plans(tmp_path, FOLLOWS, {"config_sentence_transformers.json": {"truncate_dim": 4}})
    assert any("`config_sentence_transformers.json` has no effect" in text for text in plan.warnings)


def test_no_bundle_of_the_catalogue_asks_for_another_outcome(public_bundles: Path) -> None:
    """As far as a bundle alone can tell: what the checkpoints say is not at hand."""
    bundles, mistakes = load_bundles(public_bundles)
    assert not mistakes
    planned = 0
    for bundle in bundles.values():
        try:
            target = select(bundle, expand(bundle))
        except DiagnosticError:
            continue
        planned += len(make_plans(target.bundle, target.profiles, None))
    assert planned > 50
