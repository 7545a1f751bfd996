"""LoRA adapters merged into weights, beside what PEFT itself made of the same files.

`peft_merges.npz` holds one small BERT, adapters of it that `peft` wrote, and what `PeftModel.merge_and_unload` gave for
each; `peft_merges.json` the version of it, and the adapters' settings.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_files import safetensors
from numpy.typing import NDArray

from sie_triton.checkpoint import Checkpoint, load_tensors, resolve_checkpoint
from sie_triton.checkpoint.merged import write_changed
from sie_triton.diagnostics import Diagnostic, DiagnosticError

HERE = Path(__file__).parent
RECORDED: dict[str, Any] = json.loads((HERE / "peft_merges.json").read_text(encoding="utf-8"))
Tensors = dict[str, NDArray[Any]]


def recorded(prefix: str) -> Tensors:
    with np.load(HERE / "peft_merges.npz", allow_pickle=False) as arrays:
        return {name.removeprefix(prefix): arrays[name] for name in arrays.files if name.startswith(prefix)}


def write_base(folder: Path, tensors: Tensors | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(RECORDED["config"]), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(safetensors(tensors or recorded("base/")))
    (folder / "tokenizer.json").write_text('{"model": {}}', encoding="utf-8")
    return folder


def write_adapter(folder: Path, name: str, tensors: Tensors | None = None, **settings: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    document = {**RECORDED["adapters"][name], **settings}
    (folder / "adapter_config.json").write_text(json.dumps(document), encoding="utf-8")
    (folder / "adapter_model.safetensors").write_bytes(safetensors(tensors or recorded(f"{name}/adapter/")))
    return folder


def resolve(weights: Path, folders: dict[str, Path] | None = None, lora: str | None = None) -> Checkpoint:
    return resolve_checkpoint(
        "acme/model", None, weights=weights, bundle_weights_path=None, allow_hub=False, folders=folders, lora=lora
    )


def merged(checkpoint: Checkpoint) -> Tensors:
    assert not (checkpoint.folder / "adapter_config.json").exists()
    return load_tensors(checkpoint.folder / "model.safetensors")


@pytest.mark.parametrize("name", sorted(RECORDED["adapters"]))
def test_every_weight_is_what_peft_makes_of_it(name: str, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    write_adapter(base, name)
    found, before, after = merged(resolve(base)), recorded("base/"), recorded(f"{name}/merged/")
    assert after
    assert found.keys() == before.keys()
    for key, tensor in found.items():
        if key in after:
            assert not np.array_equal(tensor, before[key])
            np.testing.assert_allclose(tensor, after[key], rtol=0, atol=3e-7)
        else:
            assert np.array_equal(tensor, before[key])


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_the_three_ways_in_which_an_adapter_comes(prefix: str, tmp_path: Path) -> None:
    """Beside its base, by itself with the name of its base, and named by a profile."""
    tensors = {f"{prefix}{key}": tensor for key, tensor in recorded("base/").items()}
    base, alone = write_base(tmp_path / "base", tensors), write_adapter(tmp_path / "adapter", "plain")
    (alone / "tokenizer.json").write_text('{"model": {"own": 1}}', encoding="utf-8")
    both = write_adapter(write_base(tmp_path / "both", tensors), "plain")
    adapter = {"acme/adapter": alone}
    found = {
        "beside": resolve(both),
        "alone": resolve(alone, {"acme/base": base}),
        "named": resolve(base, adapter, "acme/adapter"),
    }
    right = {f"{prefix}{key}": tensor for key, tensor in recorded("plain/merged/").items()}
    for way, checkpoint in found.items():
        tensors = merged(checkpoint)
        assert all(np.allclose(tensors[key], right[key], rtol=0, atol=3e-7) for key in right), way
    # An adapter by itself is the model, and brings its own tokenizer; one that a profile names lends weights alone.
    assert "own" in (found["alone"].folder / "tokenizer.json").read_text(encoding="utf-8")
    assert "own" not in (found["named"].folder / "tokenizer.json").read_text(encoding="utf-8")
    assert found["beside"].identity == found["named"].identity
    assert len({checkpoint.identity for checkpoint in (*found.values(), resolve(base))}) == 3
    assert not any(np.array_equal(merged(resolve(base))[key], right[key]) for key in right)


def test_another_adapter_is_another_checkpoint(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    one = write_adapter(tmp_path / "one", "plain")
    before = resolve(base, {"a/b": one}, "a/b")
    assert before.identity.startswith(resolve(base).identity + "+")
    weight = merged(before)["encoder.layer.0.attention.self.query.weight"]
    tensors = {key: tensor * 2 if "lora_B" in key else tensor for key, tensor in recorded("plain/adapter/").items()}
    write_adapter(one, "plain", tensors)
    after = resolve(base, {"a/b": one}, "a/b")
    assert after.identity != before.identity
    assert not np.array_equal(merged(after)["encoder.layer.0.attention.self.query.weight"], weight)


def refusal(folder: Path) -> Diagnostic:
    with pytest.raises(DiagnosticError) as error:
        _ = resolve(folder).folder
    (only,) = error.value.diagnostics
    assert only.hint
    return only


QUERY = "base_model.model.encoder.layer.0.attention.self.query"
Change = Callable[[Tensors], object]


def renamed(old: str, new: str) -> Change:
    def change(tensors: Tensors) -> None:
        for key in [key for key in tensors if old in key]:
            tensors[key.replace(old, new)] = tensors.pop(key)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (renamed("layer.1", "layer.2"), "the base model has no `encoder.layer.2.attention.self."),
        (renamed("base_model.model.", ""), "does not begin with `base_model.model.`"),
        (renamed("query", "quarry"), "the base model has no `encoder.layer."),
        (lambda tensors: tensors.pop(f"{QUERY}.lora_A.weight"), "lacks `lora_A`"),
        (lambda tensors: [tensors.pop(f"{QUERY}.lora_{part}.weight") for part in "AB"], "has no tensors for it"),
        (lambda tensors: [tensors.pop(key) for key in list(tensors) if "value" in key], "names `value`"),
        (lambda tensors: [tensors.pop(key) for key in list(tensors)], "it has no tensors"),
        (renamed("self.value", "self.key"), "self.key` is adapted, and `target_modules` does not name it"),
        (renamed("lora_A.weight", "lora_A.scale"), "is a part whose effect is not known"),
        (lambda tensors: tensors.update({f"{QUERY}.lora_magnitude_vector": np.ones(8)}), "has `lora_magnitude_vector`"),
        (lambda tensors: tensors.update({f"{QUERY}.weight": np.ones((8, 8))}), "neither `modules_to_save` nor `bias`"),
        (lambda tensors: tensors.update({f"{QUERY}.bias": np.ones(8)}), "neither `modules_to_save` nor `bias`"),
        (lambda tensors: tensors.update({f"{QUERY}.lora_A.weight": np.ones((3, 8))}), "says a rank of 2"),
        (lambda tensors: tensors.update({f"{QUERY}.lora_A.weight": np.ones((2, 7))}), "adds [8, 7] to weights [8, 8]"),
        (lambda tensors: tensors.update({f"{QUERY}.lora_A.weight": np.full((2, 8), np.nan)}), "not finite"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(change: Change, said: str, tmp_path: Path) -> None:
    """PEFT warns of most of these and goes on without: then the base model answers under the adapter's name."""
    tensors = recorded("plain/adapter/")
    change(tensors)
    folder = write_adapter(write_base(tmp_path), "plain", tensors or {"none": np.ones(1)})
    if not tensors:
        (folder / "adapter_model.safetensors").write_bytes(safetensors({}))
    found = refusal(folder)
    assert (found.code, said in found.message) == ("SIE322", True), found
    assert found.where is not None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"peft_type": "IA3"}, "only LORA is merged"),
        ({"use_of_tomorrow": True}, "`use_of_tomorrow` is a key whose effect is not known"),
        ({"layer_replication": [[0, 2]]}, "`layer_replication`"),
        ({"use_qalora": True}, "`use_qalora`"),
        ({"trainable_token_indices": [1]}, "`trainable_token_indices`"),
        ({"init_lora_weights": "pissa"}, "`init_lora_weights` is 'pissa'"),
        ({"r": 0}, "`r` is 0"),
        ({"r": 2.5}, "`r` is 2.5"),
        ({"lora_alpha": "16"}, "`lora_alpha` is '16'"),
        ({"use_rslora": "yes"}, "`use_rslora` is 'yes'"),
        ({"bias": "some"}, "`bias` is 'some'"),
        ({"target_modules": "("}, "no regular expression"),
        ({"rank_pattern": {"query": -1}}, "`rank_pattern` is -1"),
        ({"use_dora": True}, "lacks `lora_magnitude_vector`"),
        ({"r": 4}, "says a rank of 4"),
    ],
)
def test_settings_that_are_not_understood_are_refused(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    found = refusal(write_adapter(write_base(tmp_path), "plain", **settings))
    assert (found.code, said in found.message) == ("SIE322", True), found


def test_an_adapter_without_its_base_or_its_weights_is_named(tmp_path: Path) -> None:
    alone = write_adapter(tmp_path / "alone", "plain")
    with pytest.raises(DiagnosticError, match="`acme/base` is absent or incomplete in the local cache"):
        resolve(alone)
    write_adapter(alone, "plain", base_model_name_or_path=None)
    assert "names no base model" in refusal(alone).message
    stacked = write_adapter(write_base(tmp_path / "stacked"), "plain")
    write_adapter(alone, "plain")
    with pytest.raises(DiagnosticError, match="its base `acme/base` is an adapter itself"):
        resolve(alone, {"acme/base": stacked})
    with pytest.raises(DiagnosticError, match="merged into a model that is one with another"):
        resolve(stacked, {"acme/adapter": alone}, "acme/adapter")
    with pytest.raises(DiagnosticError, match=r"`acme/adapter` has no `adapter_config.json`"):
        resolve(write_base(tmp_path / "base"), {"acme/adapter": write_base(tmp_path / "other")}, "acme/adapter")
    (alone / "adapter_model.safetensors").unlink()
    assert "no `adapter_model.safetensors` that could be merged" in refusal(alone).message


def test_a_file_that_the_recipe_needs_is_the_adapters_or_its_bases(tmp_path: Path) -> None:
    base, alone = write_base(tmp_path / "base"), write_adapter(tmp_path / "alone", "plain")
    extra = "preprocessor_config.json"

    def found() -> str:
        checkpoint = resolve_checkpoint(
            "acme/model",
            None,
            weights=alone,
            bundle_weights_path=None,
            allow_hub=False,
            folders={"acme/base": base},
            extra_files=(extra,),
        )
        return (checkpoint.folder / extra).read_text(encoding="utf-8")

    with pytest.raises(DiagnosticError, match=f"neither the adapter nor its base has `{extra}`"):
        found()
    (base / extra).write_text('{"size": 1}', encoding="utf-8")
    assert found() == '{"size": 1}'
    (alone / extra).write_text('{"size": 2}', encoding="utf-8")
    assert found() == '{"size": 2}'


def test_what_is_not_changed_keeps_its_bytes(tmp_path: Path) -> None:
    """A tensor of half precision becomes float32 where something is added, and stays as it is elsewhere."""
    from sie_triton.checkpoint.lora_merge import Change as Changed

    source, target = tmp_path / "source.safetensors", tmp_path / "target.safetensors"
    half, other = np.array([1.5, -2.25], "<f2"), np.arange(3, dtype="<i8")
    header = {
        "half": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]},
        "other": {"dtype": "I64", "shape": [3], "data_offsets": [4, 28]},
        "wide": {"dtype": "BF16", "shape": [1], "data_offsets": [28, 30]},
    }
    text = json.dumps(header).encode()
    source.write_bytes(len(text).to_bytes(8, "little") + text + half.tobytes() + other.tobytes() + b"\x80\x3f")
    write_changed(target, source, {"half": Changed(added=lambda: np.array([1e-4, 0], np.float32))})
    found = load_tensors(target)
    assert found["half"].dtype == np.float32
    np.testing.assert_allclose(found["half"], [1.5001, -2.25], rtol=0, atol=1e-7)
    assert np.array_equal(found["other"], other)
    assert found["wide"].tolist() == [1.0]


@pytest.mark.parametrize(
    ("own", "published"),
    [
        ("language_model.layers.0", "model.layers.0"),
        ("model.language_model.layers.0", "model.layers.0"),
        ("model.layers.0", "model.language_model.layers.0"),
    ],
)
def test_parts_that_transformers_renamed_are_found(own: str, published: str, tmp_path: Path) -> None:
    """A model of several parts: the language model's names moved, those of a projection beside it did not."""
    random = np.random.default_rng(1)
    base = {f"{published}.q_proj.weight": random.standard_normal((6, 4)), "proj.weight": random.standard_normal((3, 4))}
    names = {f"{own}.q_proj": f"{published}.q_proj.weight", "proj": "proj.weight"}
    adapter: Tensors = {}
    right = dict(base)
    for name, place in names.items():
        first, second = random.standard_normal((2, 4)), random.standard_normal((len(base[place]), 2))
        adapter |= {f"base_model.model.{name}.lora_A.weight": first, f"base_model.model.{name}.lora_B.weight": second}
        right[place] = base[place] + second @ first * 4.5
    folder = write_adapter(write_base(tmp_path, base), "plain", adapter, target_modules=".*proj")
    found = merged(resolve(folder))
    for place, weight in right.items():
        np.testing.assert_allclose(found[place], weight, rtol=0, atol=1e-5)
    del adapter["base_model.model.proj.lora_A.weight"]
    write_adapter(folder, "plain", adapter, target_modules=".*proj")
    assert "`proj` lacks `lora_A`" in refusal(folder).message
