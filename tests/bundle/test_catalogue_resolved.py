"""SIE's own resolution of its catalogue, recorded, against ours; and the ids that expand from it."""

from __future__ import annotations

import json
from pathlib import Path

from contract.recorded import resolved

from sie_triton.bundle import Bundle, expand, load_bundle, routable


def test_every_real_bundle_is_valid(public_bundles: Path) -> None:
    files = sorted(public_bundles.glob("*.yaml"))
    assert len(files) == 152
    assert {path.name: load_bundle(path)[1] for path in files} == {path.name: [] for path in files}


def test_every_recorded_model_is_read_alike(public_bundles: Path, catalogue_bundles: dict[str, Bundle]) -> None:
    assert len(resolved()) == 78
    for sie_id, expected in resolved().items():
        bundle = catalogue_bundles[sie_id]
        assert bundle.path == public_bundles / expected["file"]
        assert bundle.hf_id == expected["hf_id"]
        assert bundle.hf_revision == expected["hf_revision"]
        assert list(bundle.tasks) == expected["tasks"]
        assert list(bundle.outputs) == expected["outputs"]
        assert dict(bundle.dims) == expected["dims"]
        assert list(bundle.inputs) == expected["inputs"]
        assert bundle.max_sequence_length == expected["max_sequence_length"]
        assert bundle.pool == expected["pool"]
        assert bundle.package_backed == expected["package_backed"]


def test_every_recorded_profile_resolves_alike(catalogue_bundles: dict[str, Bundle]) -> None:
    profiles = 0
    for sie_id, model in resolved().items():
        bundle = catalogue_bundles[sie_id]
        assert list(bundle.profiles) == list(model["profiles"])
        for name, expected in model["profiles"].items():
            profile = bundle.resolve(name)
            assert {
                "extends": bundle.profiles[name].extends,
                "adapter_path": profile.adapter_path,
                "max_batch_tokens": profile.max_batch_tokens,
                "compute_precision": profile.compute_precision,
                "loadtime": profile.loadtime,
                "runtime": profile.runtime,
            } == {key: value for key, value in expected.items() if key != "adaptive_batching"}, f"{sie_id}:{name}"
            if "adaptive_batching" in expected:
                assert dict(profile.adaptive_batching) == (expected["adaptive_batching"] or {})
            profiles += 1
    assert profiles == sum(len(model["profiles"]) for model in resolved().values()) > 78


def test_routable_ids(catalogue_bundles: dict[str, Bundle]) -> None:
    profiles = sum(len(bundle.profiles) for bundle in catalogue_bundles.values())
    ids = routable(catalogue_bundles)
    assert len(ids) == profiles
    without_default = {sie_id for sie_id, bundle in catalogue_bundles.items() if "default" not in bundle.profiles}
    assert without_default == {
        "BAAI/bge-base-en-v1.5",
        "BAAI/bge-large-en-v1.5",
        "BAAI/bge-small-en-v1.5",
        "BAAI/bge-small-zh-v1.5",
        "WhereIsAI/UAE-Large-V1",
        "answerdotai/ModernBERT-large",
        "jinaai/jina-embeddings-v2-base-code",
        "jinaai/jina-embeddings-v2-base-de",
        "jinaai/jina-embeddings-v2-base-en",
        "jinaai/jina-embeddings-v2-base-es",
        "jinaai/jina-embeddings-v2-base-zh",
        "jinaai/jina-embeddings-v2-small-en",
        "nomic-ai/nomic-embed-text-v1.5",
        "thenlper/gte-base",
        "thenlper/gte-large",
        "thenlper/gte-small",
    }
    assert not without_default & ids.keys()
    assert set(catalogue_bundles) - without_default <= ids.keys()
    assert not any(model_id.endswith(":default") for model_id in ids)


def test_bge_m3_expands_in_the_files_order(catalogue_bundles: dict[str, Bundle]) -> None:
    ids = [profile.model_id for profile in expand(catalogue_bundles["BAAI/bge-m3"])]
    variants = ["dense", "sparse", "multivector", "candle", "banking", "medical-vn", "bge_m3_flag"]
    assert ids == ["BAAI/bge-m3", *(f"BAAI/bge-m3:{name}" for name in variants)]


def test_a_template_keeps_its_literal_backslash(catalogue_bundles: dict[str, Bundle]) -> None:
    profile = catalogue_bundles["intfloat/multilingual-e5-large-instruct"].resolve("default")
    assert profile.runtime["query_template"] == "Instruct: {instruction}\\nQuery: {text}"


def test_canonical_json_is_stable_and_complete(catalogue_bundles: dict[str, Bundle]) -> None:
    texts = set()
    for bundle in catalogue_bundles.values():
        for profile in expand(bundle):
            text = profile.canonical_json()
            assert json.loads(text) == profile.to_json()
            assert text == bundle.resolve(profile.profile).canonical_json()
            texts.add(text)
    assert len(texts) == len(routable(catalogue_bundles))
