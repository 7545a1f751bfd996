"""The real client library against a hub that answers, fails, lies and falls silent."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_files import WANTED, bert, in_folder, odd_shards, safetensors, sharded, weights, without
from fake_hub import FakeHub
from resolve_elsewhere import Elsewhere, Outcome

from sie_triton.checkpoint import load_tensors

CLOSED = {"HF_ENDPOINT": "http://127.0.0.1:9"}


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    """One for all tests; each has a model of its own on it."""
    with FakeHub() as running:
        yield running


@pytest.fixture(scope="module")
def environment(hub: FakeHub, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("home")
    return hub.environment(home / "hf") | {"XDG_CACHE_HOME": str(home / "cache")}


@pytest.fixture(scope="module")
def elsewhere(environment: dict[str, str]) -> Iterator[Elsewhere]:
    with Elsewhere(environment) as process:
        yield process


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def library(script: str, environment: dict[str, str]) -> str:
    """What another program that uses the same library prints."""
    command = [sys.executable, "-c", f"from huggingface_hub import hf_hub_download as get\n{script}"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def test_downloads_what_matters_and_then_needs_no_network(tmp_path: Path) -> None:
    with FakeHub() as hub:
        environment = hub.environment(tmp_path)
        model = hub.add("me/bert", bert())
        with Elsewhere(environment) as elsewhere:
            first = elsewhere.resolve("me/bert")
    # The server is gone from here on.
    with Elsewhere(environment) as elsewhere:
        second = elsewhere.resolve("me/bert")

    assert first.found["source"] == "hub"
    assert first.found["identity"] == f"hf:me/bert@{model.commit}"
    assert tuple(first.found["files"]) == WANTED
    on_disk = {path.relative_to(first.folder).as_posix() for path in first.folder.rglob("*") if path.is_file()}
    assert on_disk == set(WANTED)
    assert first.found["digests"] == {name: sha256(model.files[name]) for name in WANTED}
    size = len(model.files["model.safetensors"])
    assert ["model.safetensors", size, size] in first.progress
    assert {file for file, _, _ in first.progress} == set(WANTED)

    assert second.found == first.found | {"source": "cache"}
    assert second.progress == [] and second.announced == []

    # The layout is the library's own: its other users find the same files.
    found = library("print(get('me/bert', 'model.safetensors'))", environment | {"HF_HUB_OFFLINE": "1"})
    assert Path(found) == first.folder / "model.safetensors"


def test_weights_come_last(hub: FakeHub, elsewhere: Elsewhere) -> None:
    model = hub.add("me/sharded", sharded(3))
    outcome = elsewhere.resolve("me/sharded")

    assert outcome.found["source"] == "hub"
    order = list(dict.fromkeys(file for file, _, _ in outcome.progress))
    assert order[-3:] == sorted(name for name in model.files if name.startswith("model-"))


def test_resumes_where_the_connection_ended(hub: FakeHub, elsewhere: Elsewhere) -> None:
    # Larger than the library's chunk of 10 MiB, which is the unit it can resume at.
    content = weights(megabytes=12)
    hub.add("me/cut", bert() | {"model.safetensors": content}, cut_after=11_000_000)
    outcome = elsewhere.resolve("me/cut")

    assert outcome.found["digests"]["model.safetensors"] == sha256(content)
    ranges = [request.range for request in hub.requests if "me/cut" in request.path and request.range]
    assert ranges == ["bytes=10485760-"]
    done = [done for file, done, _ in outcome.progress if file == "model.safetensors"]
    assert done == sorted(done) and done[-1] == len(content)


def test_starts_over_when_the_connection_was_reset(hub: FakeHub, elsewhere: Elsewhere) -> None:
    content = weights(megabytes=2)
    hub.add("me/reset", bert() | {"model.safetensors": content}, cut_after=500_000, reset=True)
    outcome = elsewhere.resolve("me/reset")

    assert outcome.found["digests"]["model.safetensors"] == sha256(content)
    assert hub.seen("me/reset").count(f"/{sha256(content)}") == 2


def test_a_branch_is_remembered_with_its_commit(hub: FakeHub, elsewhere: Elsewhere) -> None:
    model = hub.add("me/branches", bert(), branches=("main", "v2"))
    first = elsewhere.resolve("me/branches", revision="v2")
    asked = len(hub.requests)
    second = elsewhere.resolve("me/branches", revision="v2")

    assert first.found["revision"] == second.found["revision"] == model.commit
    assert second.found["source"] == "cache" and len(hub.requests) == asked
    assert elsewhere.resolve("me/branches", revision="main", allow_hub=False).codes == ["SIE311"]


def test_the_absence_of_a_telling_file_is_remembered(hub: FakeHub, elsewhere: Elsewhere) -> None:
    hub.add("me/plain", without(bert(), "modules.json", "tokenizer_config.json", "1_Pooling/config.json"))
    elsewhere.resolve("me/plain")
    asked = len(hub.requests)
    outcome = elsewhere.resolve("me/plain")

    assert outcome.found["source"] == "cache" and outcome.announced == [] and len(hub.requests) == asked


def test_a_cache_that_another_tool_filled_is_completed_or_used_with_a_word(
    hub: FakeHub, environment: dict[str, str], elsewhere: Elsewhere
) -> None:
    """A tool that never asked for `modules.json` leaves a snapshot that looks whole and would pool wrongly."""
    model = hub.add("me/shared", bert())
    library("for name in ('config.json', 'model.safetensors', 'tokenizer.json'): get('me/shared', name)", environment)

    model.status = 503
    alone = elsewhere.resolve("me/shared")
    assert alone.found["source"] == "cache"
    assert len(alone.announced) == 1 and "unchecked" in alone.announced[0]

    model.status = None
    hub.requests.clear()
    completed = elsewhere.resolve("me/shared")
    assert tuple(completed.found["files"]) == WANTED and completed.found["source"] == "hub"
    assert not any(path.endswith(sha256(model.files["model.safetensors"])) for path in hub.seen("me/shared"))


def test_remote_code_and_extra_files_are_fetched_only_when_asked_for(hub: FakeHub, elsewhere: Elsewhere) -> None:
    heads = {"sparse_linear.pt": b"pickled", "colbert_linear.pt": b"pickled", "colbert_linear.safetensors": weights()}
    hub.add("me/heads", bert() | heads)
    extra = ["sparse_linear.pt", "colbert_linear.pt"]

    plain = elsewhere.resolve("me/heads")
    assert tuple(plain.found["files"]) == WANTED
    refused = elsewhere.resolve("me/heads", extra_files=["no_such_head.pt", "pytorch_model.bin"])
    assert refused.codes == ["SIE309", "SIE305"]
    assert "no_such_head.pt" in refused.text and "unpickl" in refused.text
    all_of_it = elsewhere.resolve("me/heads", trust_remote_code=True, extra_files=extra)
    wanted = {*WANTED, "modeling_own.py", "sparse_linear.pt", "colbert_linear.safetensors"}
    assert set(all_of_it.found["files"]) == wanted


FAILURES = {
    "fail/hidden": "SIE312",
    "fail/odd/name": "SIE312",
    "fail/old": "SIE313",
    "fail/gated": "SIE314",
    "fail/limited": "SIE315",
    "fail/huge": "SIE316",
    "fail/silent": "SIE317",
    "fail/silent-files": "SIE317",
    "fail/down": "SIE310",
    "fail/website": "SIE318",
    "fail/nowhere": "SIE318",
    "fail/altered": "SIE319",
    "fail/altered-vocabulary": "SIE319",
    "fail/flax-only": "SIE304",
    "fail/pickled": "SIE305",
    "fail/no-tokenizer": "SIE306",
    "fail/half-sharded": "SIE307",
    "fail/garbage": "SIE308",
}
CURES = {
    "SIE304": "pick a revision with `model.safetensors`",
    "SIE305": "unpickling executes whatever code the file holds",
    "SIE306": "tokenizer.json",
    "SIE307": "1 of the 2 weight files",
    "SIE308": "`model.safetensors` is damaged",
    "SIE310": "HTTP 503",
    "SIE312": "check the spelling of `hf_id`",
    "SIE313": "no revision `v9`",
    "SIE314": "accept the licence at",
    "SIE315": "wait 7 seconds",
    "SIE316": "set HF_HOME to a larger disk",
    "SIE317": "HF_HUB_ETAG_TIMEOUT",
    "SIE318": "check HF_ENDPOINT",
    "SIE319": "other bytes than the hub announces",
}


@pytest.fixture(scope="module")
def failures(hub: FakeHub, elsewhere: Elsewhere) -> dict[str, Outcome]:
    hub.add("fail/old", bert())
    hub.add("fail/gated", bert(), gated=True)
    hub.add("fail/limited", bert(), status=429, retry_after=7)
    hub.add("fail/huge", bert(), announced_sizes={"model.safetensors": 10**16})
    hub.add("fail/silent", bert(), hangs=("/api/",))
    hub.add("fail/silent-files", bert(), hangs=("/resolve/",))
    hub.add("fail/down", bert(), status=503)
    hub.add("fail/website", bert(), status=200)
    hub.add("fail/nowhere", bert(), status=404)
    hub.add("fail/altered", bert(), corrupt=("model.safetensors",))
    hub.add("fail/altered-vocabulary", bert(), corrupt=("vocab.txt",))
    hub.add("fail/flax-only", without(bert(), "model.safetensors", "pytorch_model.bin"))
    hub.add("fail/pickled", without(bert(), "model.safetensors"))
    hub.add("fail/no-tokenizer", without(bert(), "tokenizer.json", "vocab.txt"))
    hub.add("fail/half-sharded", without(sharded(2), "model-00002-of-00002.safetensors"))
    hub.add("fail/garbage", bert() | {"model.safetensors": b"no weights at all"})
    return {hf_id: elsewhere.resolve(hf_id, revision="v9" if hf_id == "fail/old" else None) for hf_id in FAILURES}


@pytest.mark.parametrize("hf_id", FAILURES)
def test_each_failure_has_its_cause_and_cure(failures: dict[str, Outcome], elsewhere: Elsewhere, hf_id: str) -> None:
    outcome = failures[hf_id]
    assert outcome.codes == [FAILURES[hf_id]], outcome.text
    assert CURES[FAILURES[hf_id]] in outcome.text
    for diagnostic in outcome.diagnostics:
        assert diagnostic["hint"] and not diagnostic["message"].endswith(".")
    # Whatever was left behind must not pass for a checkpoint.
    assert elsewhere.resolve(hf_id, allow_hub=False).checkpoint is None


@pytest.mark.parametrize("name", ["flax-only", "pickled", "no-tokenizer", "half-sharded", "huge"])
def test_what_cannot_be_used_is_not_fetched(failures: dict[str, Outcome], hub: FakeHub, name: str) -> None:
    assert failures[f"fail/{name}"].checkpoint is None
    assert hub.seen(f"fail/{name}") == [""]
    assert hub.seen(f"fail/{name}", "HEAD") == []


def test_a_token_that_does_not_suffice_is_told_so(hub: FakeHub, environment: dict[str, str]) -> None:
    hub.add("token/gated", bert(), gated=True)
    hub.add("token/refused", bert(), status=403)
    with Elsewhere(environment | {"HF_TOKEN": "hf_test"}) as elsewhere:
        gated, refused = elsewhere.resolve("token/gated"), elsewhere.resolve("token/refused")

    assert gated.codes == refused.codes == ["SIE314"]
    assert "the account of this token has not done so" in gated.text
    assert "refuses this token" in refused.text
    tokens = {request.token for request in hub.requests if "/token/" in request.path}
    assert tokens == {"hf_test"}


@pytest.mark.parametrize(
    ("changes", "code", "cure"),
    [
        (CLOSED, "SIE310", "proxy"),
        (CLOSED | {"HF_HUB_OFFLINE": "1"}, "SIE311", "unset HF_HUB_OFFLINE"),
        ({"HF_ENDPOINT": "no-scheme.example"}, "SIE310", "HF_ENDPOINT"),
    ],
)
def test_no_network(tmp_path: Path, changes: dict[str, str], code: str, cure: str) -> None:
    with Elsewhere({"HF_HOME": str(tmp_path), "NO_PROXY": "*", "no_proxy": "*"} | changes) as elsewhere:
        outcome = elsewhere.resolve("me/bert")
    assert outcome.codes == [code]
    assert cure in outcome.text


def test_a_model_cut_short_never_counts_as_whole(
    hub: FakeHub, environment: dict[str, str], elsewhere: Elsewhere
) -> None:
    commit = "5" * 40
    model = hub.add("me/stalls", bert(), commit=commit, hangs=(f"resolve/{commit}/model.safetensors",))
    with Elsewhere(environment, stalled_seconds=1.5) as impatient:
        stalled = impatient.resolve("me/stalls")
    assert stalled.codes == ["SIE317"] and "finished files are kept" in stalled.text
    assert elsewhere.resolve("me/stalls", allow_hub=False).codes == ["SIE304", "SIE311"]

    model.hangs = ()
    hub.requests.clear()
    assert elsewhere.resolve("me/stalls").found["source"] == "hub"
    assert hub.seen("me/stalls") == ["", f"/{sha256(model.files['model.safetensors'])}"]


@pytest.mark.parametrize("harm", ["truncated", "blob-gone", "empty-config"])
def test_a_harmed_cache_is_named_and_mended(hub: FakeHub, elsewhere: Elsewhere, harm: str) -> None:
    model = hub.add(f"me/{harm}", bert() | {"model.safetensors": weights(seed=9)})
    before = elsewhere.resolve(f"me/{harm}")
    weights_file = before.folder / "model.safetensors"
    if harm == "truncated":
        weights_file.resolve().write_bytes(weights_file.read_bytes()[:-100])
    elif harm == "blob-gone":
        weights_file.resolve().unlink()
    else:
        (before.folder / "config.json").resolve().write_bytes(b"")

    model.status = 503
    alone = elsewhere.resolve(f"me/{harm}")
    assert alone.codes == ["SIE304" if harm == "blob-gone" else "SIE308", "SIE310"]
    assert ("config.json" if harm == "empty-config" else "safetensors") in alone.text

    model.status = None
    assert elsewhere.resolve(f"me/{harm}").found == before.found


def test_a_full_disk(hub: FakeHub, environment: dict[str, str], elsewhere: Elsewhere) -> None:
    """A limit on the size of files makes the write itself fail, as a full disk or quota does."""
    hub.add("me/large", bert() | {"model.safetensors": weights(megabytes=1)})
    with Elsewhere(environment, file_size_limit=100_000) as cramped:
        outcome = cramped.resolve("me/large")
    assert outcome.codes == ["SIE316"] and "set HF_HOME to a larger disk" in outcome.text
    assert elsewhere.resolve("me/large").found["source"] == "hub"


def test_a_package_is_no_answer_to_a_wrong_revision(
    hub: FakeHub, environment: dict[str, str], elsewhere: Elsewhere
) -> None:
    packaged = "sentence-transformers/all-MiniLM-L6-v2"
    hub.add(packaged, bert())
    assert elsewhere.resolve(packaged, revision="v9").codes == ["SIE313"]
    with Elsewhere(environment | CLOSED) as alone:
        assert alone.resolve(packaged, revision="0" * 40).codes == ["SIE310"]


@pytest.mark.parametrize(
    ("name", "files", "expected"),
    [
        ("in-a-folder", in_folder(), {"0_Transformer/model.safetensors", "0_Transformer/config.json", "modules.json"}),
        ("odd-shards", odd_shards(), {"part_1.safetensors", "part_2.safetensors", "model.safetensors.index.json"}),
    ],
)
def test_what_small_files_say_decides_what_is_fetched(
    hub: FakeHub, elsewhere: Elsewhere, name: str, files: dict[str, bytes], expected: set[str]
) -> None:
    model = hub.add(f"parts/{name}", files)
    first, second = elsewhere.resolve(f"parts/{name}"), elsewhere.resolve(f"parts/{name}", revision=model.commit)
    assert (first.found["source"], second.found["source"]) == ("hub", "cache")
    assert expected <= set(first.found["files"])
    assert first.found["files"] == second.found["files"]


@pytest.mark.parametrize(
    ("name", "files", "code"),
    [
        ("adapter", bert() | {"adapter_config.json": b"{}", "adapter_model.safetensors": weights()}, "SIE322"),
        ("t5", bert() | {"config.json": b'{"model_type": "t5"}'}, "SIE324"),
        (
            "static",
            {"modules.json": b'[{"path": "0_S", "type": "a.StaticEmbedding"}]', "0_S/model.safetensors": weights()},
            "SIE323",
        ),
    ],
)
def test_what_is_not_compiled_is_refused_before_its_weights_are_fetched(
    hub: FakeHub, elsewhere: Elsewhere, name: str, files: dict[str, bytes], code: str
) -> None:
    hub.add(f"parts/{name}", files)
    outcome = elsewhere.resolve(f"parts/{name}")
    assert [found["code"] for found in outcome.diagnostics] == [code]
    assert not any("safetensors" in path for path in hub.seen(f"parts/{name}"))


def lora_files() -> tuple[dict[str, bytes], dict[str, bytes]]:
    """A base model of one layer, and an adapter of it that names it."""
    base = {"query.weight": np.ones((4, 4), np.float32), "other.weight": np.ones((2, 2), np.float32)}
    name = "base_model.model.query"
    halves = {
        f"{name}.lora_A.weight": np.ones((1, 4), np.float32),
        f"{name}.lora_B.weight": np.ones((4, 1), np.float32),
    }
    told = {"peft_type": "LORA", "r": 1, "lora_alpha": 2, "target_modules": ["query"], "bias": "none"}
    told["base_model_name_or_path"] = "lora/base"
    adapter = {
        "adapter_config.json": json.dumps(told).encode(),
        "adapter_model.safetensors": safetensors(halves),
        "tokenizer.json": b'{"model": {"own": 1}}',
        "README.md": b"# read me",
    }
    return without(bert(), "model.safetensors") | {"model.safetensors": safetensors(base)}, adapter


def test_an_adapter_is_fetched_with_the_base_that_it_names(tmp_path: Path) -> None:
    """As a repository of its own, and as one that a profile names; then without a network."""
    base, adapter = lora_files()
    calls: list[dict[str, Any]] = [{"hf_id": "lora/adapter"}, {"hf_id": "lora/base", "lora": "lora/adapter"}]
    with FakeHub() as hub:
        environment = hub.environment(tmp_path)
        models = [hub.add("lora/base", base), hub.add("lora/adapter", adapter)]
        with Elsewhere(environment) as elsewhere:
            first = [elsewhere.resolve(**call) for call in calls]
            merged = [load_tensors(found.folder / "model.safetensors") for found in first]
    with Elsewhere(environment) as elsewhere:
        second = [elsewhere.resolve(**call) for call in calls]
        own = [(found.folder / "tokenizer.json").read_bytes() for found in second]
    named = "+".join(
        f"hf:{name}@{model.commit}" for name, model in zip(("lora/base", "lora/adapter"), models, strict=True)
    )
    for found in (*first, *second):
        assert found.found["identity"] == named
    for tensors in merged:
        assert np.array_equal(tensors["query.weight"], np.full((4, 4), 3.0))
        assert np.array_equal(tensors["other.weight"], np.ones((2, 2)))
    assert [b"own" in content for content in own] == [True, False]


def test_an_adapter_that_is_not_understood_costs_no_gigabytes(hub: FakeHub, elsewhere: Elsewhere) -> None:
    base, adapter = lora_files()
    adapter["adapter_config.json"] = b'{"peft_type": "LOHA"}'
    model = hub.add("lora/loha", base | adapter)
    outcome = elsewhere.resolve("lora/loha")
    assert outcome.codes == ["SIE322"]
    assert "`peft_type` is 'LOHA'" in outcome.text
    assert not any(name.endswith(".safetensors") for name, _, _ in outcome.progress), model
