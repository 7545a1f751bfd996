"""Every body and every head of transformers' own that is written gives what transformers computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sie_frontend.rows import Array
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification

from sie_triton.onnx_graphs.bodies.table import ARCHITECTURES
from sie_triton.onnx_graphs.pooling import first_state
from sie_triton.planning.tensors import ATTENTION_MASK, HIDDEN, INPUT_IDS, Tensor

from .checkpoints import CONFIGS, make
from .running import MAX_LENGTH, Written, ranks_of_products, texts

pytestmark = pytest.mark.export

STATES = Tensor(HIDDEN, "FP32", ("batch", "sequence", 32))
WITH_TYPES = (
    *("bert", "bert-relu", "bert-silu", "deberta-absolute", "deberta-v2-groups"),
    *("gte-types", "jina_embeddings_v3-scaled", "nomic_bert"),
)
PUBLISHED = ("gte", "jina_embeddings_v3", "nomic_bert")
LATER = ("gemma2", "gemma3-both-sides", "deberta-v2", "deberta-v3")
DECODERS = tuple(name for name, config in CONFIGS.items() if ARCHITECTURES[config().model_type].decodes)


def theirs(model: Any, feeds: dict[str, Array], *, types: bool = False, mask: Array | None = None) -> Any:
    tensors = {name: torch.from_numpy(array) for name, array in feeds.items() if types or name != "token_type_ids"}
    if mask is not None:
        tensors[ATTENTION_MASK] = torch.from_numpy(mask)
    with torch.inference_mode():
        return model(**tensors)


def assert_close(ours: Array, wanted: Array, feeds: dict[str, Array], limit: float = 2e-5) -> None:
    """Where there are tokens: what lies in padding nobody reads."""
    real = feeds[ATTENTION_MASK].astype(bool)
    assert np.abs(ours[real] - wanted[real]).max() <= limit * max(1.0, np.abs(wanted[real]).max())


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("side", ["right", "left"])
def test_states(name: str, side: str, tmp_path: Path) -> None:
    model = make(name, AutoModel, tmp_path)
    types = name in WITH_TYPES
    feeds = texts(side)
    wanted = theirs(model, feeds, types=types).last_hidden_state.numpy()
    for packing in (False, True):
        written = Written(tmp_path, types=types)
        ours = written.run(written.states, STATES, tmp_path / f"{packing}.onnx", feeds, packing=packing)
        assert_close(ours, wanted, feeds)
    # DeBERTa has products of weights alone.
    padded, packed = (ranks_of_products(tmp_path / f"{packing}.onnx") for packing in (False, True))
    assert len(packed) == len(padded)
    assert 3 in padded
    assert set(packed) == {2}


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_attends_to_both_sides_where_it_is_told_to(name: str, tmp_path: Path) -> None:
    model = make(name, AutoModel, tmp_path)
    feeds = texts("right")
    # transformers takes a four-dimensional mask as it is.
    far = np.where(feeds[ATTENTION_MASK][:, None, None, :] == 1, 0, np.finfo(np.float32).min).astype(np.float32)
    both_sides = np.ascontiguousarray(np.broadcast_to(far, (3, 1, far.shape[-1], far.shape[-1])))
    wanted = theirs(model, feeds, mask=both_sides).last_hidden_state.numpy()
    written = Written(tmp_path, bidirectional=True)
    ours = written.run(written.states, STATES, tmp_path / "graph.onnx", feeds, packing=True)
    assert_close(ours, wanted, feeds)
    causal = theirs(model, feeds).last_hidden_state.numpy()
    with pytest.raises(AssertionError):
        assert_close(ours, causal, feeds)


@pytest.mark.parametrize("name", [name for name in CONFIGS if name not in DECODERS])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "own"])
def test_masked_language_heads(name: str, tied: bool, tmp_path: Path) -> None:
    model = make(name, AutoModelForMaskedLM, tmp_path, tie_word_embeddings=tied)
    feeds = texts("right", (1, 9, 30))
    wanted = theirs(model, feeds).logits.numpy()
    written = Written(tmp_path)
    masked_lm = written.architecture.masked_lm
    assert masked_lm is not None
    logits = masked_lm(written.b, written.config, written.states)
    output = Tensor("logits", "FP32", ("batch", "sequence", wanted.shape[-1]))
    ours = written.run(logits, output, tmp_path / "graph.onnx", feeds, packing=False)
    assert_close(ours, wanted, feeds)


@pytest.mark.parametrize("name", [name for name in CONFIGS if name not in DECODERS])
def test_classification_heads(name: str, tmp_path: Path) -> None:
    model = make(name, AutoModelForSequenceClassification, tmp_path)
    feeds = texts("right", (1, 9, 30))
    wanted = theirs(model, feeds).logits.numpy()
    written = Written(tmp_path)
    classifier = written.architecture.classifier
    assert classifier is not None
    first = first_state(written.b, written.states, ATTENTION_MASK)
    logits = classifier(written.b, written.config, written.states, first, ATTENTION_MASK)
    output = Tensor("logits", "FP32", ("batch", 1))
    ours = written.run(logits, output, tmp_path / "graph.onnx", feeds, packing=False)
    assert np.abs(ours - wanted).max() <= 2e-5 * max(1.0, np.abs(wanted).max())


@pytest.mark.parametrize("name", ["bert", "modernbert", "qwen3", "mpnet", *PUBLISHED, *LATER])
def test_half_precision_is_close_and_finite(name: str, tmp_path: Path) -> None:
    model = make(name, AutoModel, tmp_path)
    feeds = texts("right")
    wanted = theirs(model, feeds).last_hidden_state.numpy()
    written = Written(tmp_path, precision="float16")
    ours = written.run(written.states, STATES, tmp_path / "graph.onnx", feeds, packing=False)
    real = feeds[ATTENTION_MASK].astype(bool)
    a, b = ours[real], wanted[real]
    assert np.isfinite(ours).all()
    assert ((a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)).min() > 0.999


@pytest.mark.parametrize("name", LATER)
@pytest.mark.parametrize("packing", [False, True], ids=["padded", "packed"])
def test_a_text_alone_is_what_it_is_in_a_batch(name: str, packing: bool, tmp_path: Path) -> None:
    """Up to the longest text that there may be, and computed by transformers without any padding."""
    model = make(name, AutoModel, tmp_path)
    feeds = texts("left", (2, 40, MAX_LENGTH))
    written = Written(tmp_path)
    together = written.run(written.states, STATES, tmp_path / "graph.onnx", feeds, packing=packing)
    for row, mask in enumerate(feeds[ATTENTION_MASK].astype(bool)):
        alone = {key: array[row : row + 1, mask] for key, array in feeds.items()}
        wanted = theirs(model, alone).last_hidden_state.numpy()
        written = Written(tmp_path)
        ours = written.run(written.states, STATES, tmp_path / "alone.onnx", alone, packing=packing)
        assert_close(ours, wanted, alone)
        assert_close(together[row : row + 1, mask], wanted, alone)


@pytest.mark.parametrize("name", ["bert", *PUBLISHED])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_weights_in_half_precision_are_widened_as_they_are(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = make(name, AutoModel, tmp_path, dtype=dtype)
    feeds = texts("right")
    written = Written(tmp_path)
    ours = written.run(written.states, STATES, tmp_path / "graph.onnx", feeds, packing=True)
    assert_close(ours, theirs(model, feeds).last_hidden_state.numpy(), feeds)


def test_layer_norms_under_their_older_names(tmp_path: Path) -> None:
    model = make("bert", AutoModel, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in tensors.items()
    }
    save_file(renamed, tmp_path / "model.safetensors", metadata={"format": "pt"})
    feeds = texts("right")
    written = Written(tmp_path)
    ours = written.run(written.states, STATES, tmp_path / "graph.onnx", feeds, packing=True)
    assert_close(ours, theirs(model, feeds).last_hidden_state.numpy(), feeds)


@pytest.mark.parametrize("name", ["roberta", "xlm-roberta-far-padding", "mpnet"])
def test_the_padding_token_within_a_text(name: str, tmp_path: Path) -> None:
    """Positions are counted by ids, as the authors' code does: a text may hold the token."""
    model = make(name, AutoModel, tmp_path)
    feeds = texts("right")
    feeds[INPUT_IDS][2, 5] = model.config.pad_token_id
    written = Written(tmp_path)
    ours = written.run(written.states, STATES, tmp_path / "graph.onnx", feeds, packing=True)
    assert_close(ours, theirs(model, feeds).last_hidden_state.numpy(), feeds)


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_that_transformers_changed(name: str, tmp_path: Path) -> None:
    """The authors' names and transformers' own hold the same numbers, queries, keys and values in one or in three."""
    feeds = texts("right")
    found = {}
    for native in (False, True):
        folder = tmp_path / str(native)
        model = make(name, AutoModel, folder, native_names=native)
        written = Written(folder)
        found[native] = written.run(written.states, STATES, tmp_path / f"{native}.onnx", feeds, packing=True)
        assert_close(found[native], theirs(model, feeds).last_hidden_state.numpy(), feeds)
    assert (
        load_file(tmp_path / "True" / "model.safetensors").keys()
        != load_file(tmp_path / "False" / "model.safetensors").keys()
    )
    assert_close(found[True], found[False], feeds)


@pytest.mark.parametrize("names", ["published", "published behind `new.`", "native"])
def test_gtes_language_head_under_all_names(names: str, tmp_path: Path) -> None:
    model = make("gte", AutoModelForMaskedLM, tmp_path, native_names=names == "native")
    if names == "published behind `new.`":
        tensors = load_file(tmp_path / "model.safetensors")
        renamed = {name.replace("gte.", "new.", 1): tensor for name, tensor in tensors.items()}
        save_file(renamed, tmp_path / "model.safetensors", metadata={"format": "pt"})
    feeds = texts("right", (1, 9, 30))
    written = Written(tmp_path)
    assert written.architecture.masked_lm is not None
    logits = written.architecture.masked_lm(written.b, written.config, written.states)
    output = Tensor("logits", "FP32", ("batch", "sequence", 61))
    ours = written.run(logits, output, tmp_path / "graph.onnx", feeds, packing=False)
    assert_close(ours, theirs(model, feeds).logits.numpy(), feeds)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_row_alone_is_what_it_is_in_a_batch(name: str, tmp_path: Path) -> None:
    make(name, AutoModel, tmp_path)
    feeds = texts("left", (1, 9, 40))
    written = Written(tmp_path)
    batched = written.run(written.states, STATES, tmp_path / "graph.onnx", feeds, packing=True)
    for row, length in enumerate(feeds[ATTENTION_MASK].sum(1)):
        alone = {key: value[row : row + 1, -length:] for key, value in feeds.items()}
        written = Written(tmp_path)
        ours = written.run(written.states, STATES, tmp_path / "alone.onnx", alone, packing=True)
        assert_close(ours, batched[row : row + 1, -length:], alone)
