"""The shipped bundles beside SIE's own resolution of its catalogue, and their plans."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from contract.recorded import resolved
from sie_frontend.outputs.dense import DenseHead

from sie_triton.bundle import Bundle, expand, find_model, load_bundles
from sie_triton.bundle.document import read_document
from sie_triton.cli import main, shipped_bundles
from sie_triton.compiler.options import select
from sie_triton.diagnostics import Diagnostic
from sie_triton.pages import model_table
from sie_triton.pages.fastembed_lists import bundle_of, listed_models
from sie_triton.pages.public_bundles import BESIDE, facts_of, file_name
from sie_triton.planning.catalogue import catalogue_table
from sie_triton.planning.planner import make_plans

# What SIE's files say and ours do not. The first four lines are settings of SIE's own engine; the last one lets a
# checkpoint's own code run, or says how attention is computed.
ENGINE = {
    *("cuda_graphs", "cuda_graph_tokens", "fused_kernels", "fused_rope"),
    *("mem_fraction_static", "prefix_reuse", "prefix_cache_mb"),
    *("score_strategy", "uses_legacy_transformers_cache"),
    *("trust_remote_code", "config_kwargs"),
}
# Runtime options that their adapter does not read.
UNREAD = {
    "BGEM3FlashAdapter": {"pooling"},
    "CLIPAdapter": {"normalize"},
    "ColPaliAdapter": {"normalize"},
    "ColQwen2Adapter": {"normalize"},
    "ColSmolAdapter": {"normalize"},
    "Qwen3VLEmbeddingAdapter": {"default_instruction", "normalize", "pooling"},
    "SGLangEmbeddingAdapter": {"pooling"},
    "SentenceTransformerDenseAdapter": {"pooling"},
    "SiglipAdapter": {"normalize"},
}
UNREAD_BY_PROFILE = {"BAAI/bge-m3:candle": {"pooling"}, "topk-io/Iso-ModernColBERT:candle": {"normalize"}}
# The models that SIE serves as `id:candle` alone, and we by their bare id as well.
WITH_A_DEFAULT = {
    "BAAI/bge-base-en-v1.5",
    "BAAI/bge-large-en-v1.5",
    "BAAI/bge-small-en-v1.5",
    "BAAI/bge-small-zh-v1.5",
    "WhereIsAI/UAE-Large-V1",
    "answerdotai/ModernBERT-large",
    "nomic-ai/nomic-embed-text-v1.5",
    "thenlper/gte-base",
    "thenlper/gte-large",
    "thenlper/gte-small",
}
LORA = {"BAAI/bge-m3:banking", "BAAI/bge-m3:medical-vn", "answerdotai/ModernBERT-base:us-regulatory"}

# SIE 0.10.1's own files of models that the recordings lack, as `contract/bundles.json` has the others.
UNRECORDED: Mapping[str, Any] = json.loads(Path(__file__).with_name("unrecorded.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def shipped() -> dict[str, Bundle]:
    bundles, mistakes = load_bundles(shipped_bundles())
    assert mistakes == []
    return bundles


def test_every_file_has_the_name_of_its_model(shipped: Mapping[str, Bundle]) -> None:
    assert {bundle.path.name for bundle in shipped.values()} == {file_name(sie_id) for sie_id in shipped}
    assert len({name.casefold() for name in shipped}) == len(shipped), "some file systems know no case"


def test_the_quick_way_to_read_them_gives_the_same_trees(tmp_path: Path) -> None:
    """With every place; and what is wrong is told in the same words."""
    files = sorted(shipped_bundles().glob("*.yaml"))
    assert files
    for path in files:
        assert read_document(path, own=True) == read_document(path), path.name
        text = path.read_text(encoding="utf-8")
        for wrong in (text.replace("profiles:", "profiles: ["), text.replace("sie_id:", "\tsie_id:"), text + text):
            assert read_document(path, wrong, own=True) == read_document(path, wrong)
            assert read_document(path, wrong)[1]
    assert read_document(tmp_path / "none.yaml", own=True) == read_document(tmp_path / "none.yaml")


def test_every_model_that_compiles_is_shipped_or_left_out_with_a_reason(
    shipped: Mapping[str, Bundle], catalogue_bundles: Mapping[str, Bundle]
) -> None:
    compile_somehow = {
        bundle.sie_id
        for bundle in catalogue_bundles.values()
        if any(row.verdict != "refused" for row in catalogue_table([bundle]))
    }
    left_out = {model.name for model in listed_models() if model.left_out}
    assert compile_somehow - left_out == shipped.keys() & catalogue_bundles.keys()
    assert all("JinaBERT" in model.left_out for model in listed_models() if model.name in compile_somehow & left_out)


def test_whatever_else_is_shipped_is_on_fastembeds_lists(
    shipped: Mapping[str, Bundle], catalogue_bundles: Mapping[str, Bundle]
) -> None:
    listed = [bundle_of(model.name, shipped.values()) for model in listed_models()]
    names = {bundle.sie_id for bundle in listed if bundle}
    assert shipped.keys() - catalogue_bundles.keys() <= names | BESIDE
    assert not BESIDE & catalogue_bundles.keys()
    assert UNRECORDED.keys() <= BESIDE


@pytest.mark.parametrize("sie_id", sorted(UNRECORDED))
def test_bundles_of_sie_without_a_recording(sie_id: str, shipped: Mapping[str, Bundle]) -> None:
    """Every value is that of SIE's file, but for options that the adapter does not read."""
    ours = facts_of(yaml.safe_load(shipped[sie_id].path.read_text(encoding="utf-8")))
    theirs = dict(UNRECORDED[sie_id])
    unread = UNREAD[shipped[sie_id].resolve("default").adapter_class]
    profiles = {}
    for name, profile in theirs["profiles"].items():
        options = {side: _without(profile[side], unread) for side in ("loadtime", "runtime") if side in profile}
        profiles[name] = {**profile, **options}
        if not profiles[name].get("runtime", True):
            del profiles[name]["runtime"]
    assert ours == {**theirs, "profiles": profiles}


def test_the_page_has_every_model_once(
    shipped: Mapping[str, Bundle], catalogue_bundles: Mapping[str, Bundle], public_bundles: Path
) -> None:
    """Under what is shipped or under what is not; profiles that are left out have a line as well."""
    page = model_table.render(public_bundles)
    here = page.partition("## What is shipped")[2].partition("## What differs")[0]
    missing = page.partition("## What is not shipped")[2].partition("## Checkpoints")[0]
    listed = (model.name for model in listed_models())
    names = {name.casefold() for name in (*catalogue_bundles, *listed, *LORA, *BESIDE)}
    rows = {part: re.findall(r"^\| `(.+?)` \|", part, re.MULTILINE) for part in (here, missing)}
    assert sorted(rows[here]) == sorted(shipped)
    assert sorted(name.casefold() for name in (*rows[here], *rows[missing])) == sorted(names)


def test_models_resolve_as_in_the_catalogue(shipped: Mapping[str, Bundle]) -> None:
    both = shipped.keys() & resolved().keys()
    assert len(both) == 65
    for sie_id in both:
        bundle, model = shipped[sie_id], resolved()[sie_id]
        assert bundle.hf_id == model["hf_id"]
        assert bundle.hf_revision == model["hf_revision"]
        assert list(bundle.tasks) == model["tasks"]
        assert list(bundle.outputs) == model["outputs"]
        assert dict(bundle.dims) == model["dims"]
        assert list(bundle.inputs) == model["inputs"]
        assert bundle.max_sequence_length == model["max_sequence_length"]


def test_profiles_resolve_as_in_the_catalogue(shipped: Mapping[str, Bundle]) -> None:
    left_out = set()
    for sie_id in shipped.keys() & resolved().keys():
        for name, theirs in resolved()[sie_id]["profiles"].items():
            model_id = sie_id if name == "default" else f"{sie_id}:{name}"
            if name not in shipped[sie_id].profiles:
                left_out.add(model_id)
                continue
            ours = shipped[sie_id].resolve(name)
            assert ours.adapter_path == theirs["adapter_path"], model_id
            assert ours.max_batch_tokens == theirs["max_batch_tokens"], model_id
            assert ours.compute_precision == theirs["compute_precision"], model_id
            assert _without(ours.loadtime, ENGINE) == _without(theirs["loadtime"], ENGINE), model_id
            unread = UNREAD.get(ours.adapter_class, set()) | UNREAD_BY_PROFILE.get(model_id, set())
            assert ours.runtime == _without(theirs["runtime"], unread), model_id
    assert left_out == LORA


def test_profiles_that_sie_lacks_are_the_added_defaults(shipped: Mapping[str, Bundle]) -> None:
    for sie_id in shipped.keys() & resolved().keys():
        added = shipped[sie_id].profiles.keys() - resolved()[sie_id]["profiles"].keys()
        assert added == ({"default"} if sie_id in WITH_A_DEFAULT else set()), sie_id


@pytest.mark.parametrize("sie_id", sorted(WITH_A_DEFAULT))
def test_an_added_default_gives_the_vectors_of_candle(sie_id: str, shipped: Mapping[str, Bundle]) -> None:
    """Both are served by one graph, with one pooling, one prompting and equal options."""
    bundle = shipped[sie_id]
    (plan,) = make_plans(bundle, select(bundle, expand(bundle)).profiles, None)
    default, candle = plan.served
    assert (default.profile.profile, candle.profile.profile) == ("default", "candle")
    assert default.profile.runtime == candle.profile.runtime
    assert default.profile.token_limit == candle.profile.token_limit
    first, second = default.heads["dense"], candle.heads["dense"]
    assert isinstance(first, DenseHead)
    assert isinstance(second, DenseHead)
    assert (first.pooling, first.normalize) == (second.pooling, second.normalize)
    assert first.poolings[first.pooling] == second.poolings[second.pooling]
    text = {"query_template", "doc_template"}
    assert text <= default.profile.runtime.keys() or default.prompting == candle.prompting


def test_no_profile_is_refused_and_none_asks_for_what_has_no_effect(shipped: Mapping[str, Bundle]) -> None:
    for bundle in shipped.values():
        target = select(bundle, expand(bundle))
        assert target.refused == ()
        assert [plan.warnings for plan in make_plans(bundle, target.profiles, None) if plan.warnings] == []


def test_no_bundle_lets_a_checkpoints_code_run(shipped: Mapping[str, Bundle]) -> None:
    for bundle in shipped.values():
        assert not any(recipe.needs_remote_code for _, recipe in select(bundle, expand(bundle)).profiles)


def test_the_command_plans_every_shipped_model(
    shipped: Mapping[str, Bundle],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In one process, without weights and without the network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    arguments = [word for sie_id in shipped for word in ("-m", sie_id)]
    monkeypatch.setattr("sys.argv", ["sie-triton", "plan", "--json", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (None, 0)
    plans: list[Any] = json.loads(capsys.readouterr().out)
    served = {model_id for plan in plans for model_id in plan["served"]}
    assert served == {profile.model_id for bundle in shipped.values() for profile in expand(bundle)}


@pytest.mark.parametrize(
    ("model_id", "first"),
    [
        ("bge-small-en-v1.5", "BAAI/bge-small-en-v1.5"),
        ("splade", "rasyosef/splade-mini"),
        ("bge-m3-v2", "BAAI/bge-m3"),
        ("BAAI/bge-base-en-v15", "BAAI/bge-base-en-v1.5"),
        ("Snowflake/snowflake-arctic-embed-m", "snowflake/snowflake-arctic-embed-m"),
        ("snowflake/snowflake-arctic-embed-s", "Snowflake/snowflake-arctic-embed-s"),
        ("ms-marco-MiniLM-L-12-v2", "Xenova/ms-marco-MiniLM-L-12-v2"),
        ("thenlper/gte-large-v2", "thenlper/gte-large"),
        ("nomic-ai/nomic-embed-text-v1.5-Q", "nomic-ai/nomic-embed-text-v1.5"),
        ("minilm", "sentence-transformers/all-MiniLM-L6-v2"),
        ("qwen3", "Qwen/Qwen3-Reranker-4B"),
    ],
)
def test_an_unknown_id_is_told_the_nearest_first(model_id: str, first: str, shipped: Mapping[str, Bundle]) -> None:
    found = find_model(shipped, model_id)
    assert isinstance(found, Diagnostic)
    assert (found.hint or "").startswith(f"did you mean `{first}`")


def _without(options: Mapping[str, Any], keys: set[str]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key not in keys}
