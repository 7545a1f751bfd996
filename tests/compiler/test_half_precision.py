"""float16 that a GPU could not compute is never published: the build says where it overflows, and on which text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from recipes.factory import make
from recipes.family import MadeCheckpoint
from safetensors.torch import load_file, save_file
from sie_frontend.manifest import read_manifest
from tokenizers import Tokenizer
from transformers import AutoModel

from sie_triton.bundle import expand, load_bundle
from sie_triton.compiler.build import compile_models
from sie_triton.compiler.options import BuildOptions, BuiltModel, select
from sie_triton.diagnostics import DiagnosticError
from sie_triton.planning.plan import GraphOptions
from sie_triton.verify.checks import verify_repository

pytestmark = pytest.mark.export

# The published EmbeddingGemma's residual stream passes 50,000; behind this layer it is beyond 65,504.
LOUDER = 100_000
TEXT = "The mitochondrion is the powerhouse of the cell."


@pytest.fixture(scope="module")
def loud(tmp_path_factory: pytest.TempPathFactory) -> MadeCheckpoint:
    """A decoder whose norms make large states harmless, in float32."""
    checkpoint = make("qwen3", tmp_path_factory.mktemp("loud"))
    path = checkpoint.folder / "model.safetensors"
    tensors = load_file(path)
    (name,) = [name for name in tensors if name.endswith("layers.0.mlp.down_proj.weight")]
    tensors[name] *= LOUDER
    save_file(tensors, path, metadata={"format": "pt"})
    return checkpoint


def build(checkpoint: MadeCheckpoint, repository: Path, said: list[str], **graphs: Any) -> BuiltModel:
    bundle, mistakes = load_bundle(checkpoint.bundle_path)
    assert bundle is not None, mistakes
    options = BuildOptions(repository, graphs=GraphOptions(**graphs), announce=said.append)
    (built,) = compile_models([select(bundle, expand(bundle))], options)
    return built


def finite_in(checkpoint: MadeCheckpoint, dtype: torch.dtype) -> bool:
    """Whether transformers itself gets numbers."""
    ids = Tokenizer.from_file(str(checkpoint.folder / "tokenizer.json")).encode(TEXT).ids
    model = AutoModel.from_pretrained(checkpoint.folder, dtype=dtype, attn_implementation="eager").eval()
    with torch.no_grad():
        return bool(torch.isfinite(model(input_ids=torch.tensor([ids])).last_hidden_state).all())


def test_float16_that_overflows_gives_way_to_float32(loud: MadeCheckpoint, tmp_path: Path) -> None:
    assert finite_in(loud, torch.float32)
    assert not finite_in(loud, torch.float16)
    said: list[str] = []
    built = build(loud, tmp_path / "auto", said)
    assert built.precisions == {"cpu": "float32", "cuda": "float32"}
    (line,) = [line for line in said if "float32 takes its place" in line]
    assert "float16 overflows in `tiny__qwen3`: tensor `" in line
    assert "behind `layers.0.mlp.down_proj.weight`" in line
    assert " on '" in line
    assert not list((tmp_path / "auto").rglob("*float16*"))
    assert verify_repository(tmp_path / "auto", read_manifest(tmp_path / "auto")) == []


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_float16_that_overflows_is_refused_where_it_was_insisted_on(
    device: str, loud: MadeCheckpoint, tmp_path: Path
) -> None:
    said: list[str] = []
    with pytest.raises(DiagnosticError, match="float16 overflows in") as refused:
        build(loud, tmp_path / "firm", said, precision="float16", devices=(device,))
    first = refused.value.diagnostics[0]
    assert first.code == "SIE506"
    assert first.hint is not None
    assert first.hint.startswith("build it with `--precision float32`")
    # Packed or padded, the numbers are the same: nothing else was tried.
    assert not any("takes its place" in line for line in said)
    assert not (tmp_path / "firm").exists()
