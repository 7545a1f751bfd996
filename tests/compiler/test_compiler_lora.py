"""A profile with a LoRA adapter through the compiler, beside a transformer that computes the adapter apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sie_frontend.manifest import read_manifest
from sie_frontend.reference import Case
from transformers import AutoTokenizer, BertModel

from sie_triton.verify.model_runner import ModelRunner
from sie_triton.verify.public_model import public_model

from . import tiny
from .command import sie_triton

pytestmark = pytest.mark.export

BUNDLE = (
    tiny.BUNDLE.partition("profiles:")[0]
    + """\
profiles:
  default:
    max_batch_tokens: 1024
    adapter_path: sie_server.adapters.pytorch_embedding:PyTorchEmbeddingAdapter
    adapter_options:
      runtime: {pooling: cls, normalize: true}
  legal:
    extends: default
    adapter_options:
      runtime: {pooling: cls, normalize: true, lora_id: acme/legal-lora}
"""
)
TEXTS = ("retrieval systems embed", "hello", "a text of several words, and a comma")
RANK, ALPHA = 3, 6
TARGETS = ("query", "value")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora")
    tiny.write_checkpoint(folder / "base")
    tiny.write_bundle(folder / "bundles", BUNDLE)
    random = torch.Generator().manual_seed(3)
    tensors = {}
    for target in TARGETS:
        name = f"base_model.model.encoder.layer.0.attention.self.{target}"
        tensors[f"{name}.lora_A.weight"] = torch.randn(RANK, 32, generator=random)
        tensors[f"{name}.lora_B.weight"] = torch.randn(32, RANK, generator=random)
    (folder / "adapter").mkdir()
    save_file(tensors, folder / "adapter" / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "target_modules": list(TARGETS), "bias": "none"}
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def build(root: Path, *more: str) -> tuple[int, str]:
    given = ("--weights", f"acme/tiny={root / 'base'}", "--weights", f"acme/legal-lora={root / 'adapter'}")
    chosen = ("--bundles", root / "bundles", "-m", "acme/tiny", "-r", root / "repository", "--device", "cpu")
    done = sie_triton("build", *chosen, *given, *more)
    return done.code, done.stderr


def adapted(root: Path) -> BertModel:
    """The base model with the adapter beside its layers, unmerged."""
    from safetensors.torch import load_file

    model = BertModel.from_pretrained(root / "base").eval()
    tensors = load_file(root / "adapter" / "adapter_model.safetensors")
    for target in TARGETS:
        name = f"base_model.model.encoder.layer.0.attention.self.{target}"
        first, second = (tensors[f"{name}.lora_{part}.weight"] for part in "AB")

        def hook(_: Any, given: Any, made: Any, first: Any = first, second: Any = second) -> Any:
            return made + given[0] @ first.T @ second.T * (ALPHA / RANK)

        getattr(model.encoder.layer[0].attention.self, target).register_forward_hook(hook)
    return model


def test_the_profile_has_the_adapters_vectors_and_the_bare_id_has_none_of_it(root: Path) -> None:
    code, said = build(root)
    assert code == 0, said
    manifest = read_manifest(root / "repository")
    assert {name: model.lora for name, model in manifest.models.items()} == {
        "acme/tiny": None,
        "acme/tiny:legal": "acme/legal-lora",
    }
    told = manifest.built["acme__tiny__legal"]
    assert "how `acme/legal-lora` was merged into the weights (LoRA)" in told.certificate.not_compared
    assert told.checkpoint != manifest.built["acme__tiny"].checkpoint
    tokenizer = AutoTokenizer.from_pretrained(root / "base")
    models = {"acme/tiny": BertModel.from_pretrained(root / "base").eval(), "acme/tiny:legal": adapted(root)}
    vectors = {}
    for name, model in models.items():
        public = public_model(root / "repository", manifest, manifest.models[name].triton_models[0])
        runner = ModelRunner(root / "repository", public.name)
        for text in TEXTS:
            (row,) = public.rows([Case(text)])
            name_of_output = public.comparables[0].tensors[0]
            (vector,) = runner.run(public.reader.batch([row], row.cost), [name_of_output])[name_of_output]
            with torch.inference_mode():
                state = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0, 0].numpy()
            vector = vector / np.linalg.norm(vector)
            np.testing.assert_allclose(vector, state / np.linalg.norm(state), rtol=0, atol=1e-5)
            vectors[name, text] = vector
    for text in TEXTS:
        assert float(vectors["acme/tiny", text] @ vectors["acme/tiny:legal", text]) < 0.99


def test_nothing_is_built_twice_and_a_changed_adapter_is(root: Path) -> None:
    code, said = build(root)
    assert code == 0, said
    code, said = build(root)
    assert "unchanged acme/tiny:legal" in said and "unchanged acme/tiny\n" in said
    path = root / "adapter" / "adapter_config.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"lora_alpha": 6', '"lora_alpha": 7'), encoding="utf-8")
    code, said = build(root)
    assert code == 0 and "unchanged acme/tiny\n" in said and "built acme/tiny:legal" in said


def test_a_folder_that_nobody_reads_is_named(root: Path) -> None:
    code, said = build(root, "--weights", f"acme/other={root / 'base'}")
    assert code != 0
    assert "not among the models to build: acme/other" in said
