"""Checkpoints in their authors' layouts, read by transformers through the view, against references of our own making.

The weights were made with transformers' native classes and written out in the published layout by the factory; the
references (`bodies`) undo that in code of their own, or compute the arithmetic written out. So equality shows that the
names and keys are mapped right, given that the factory writes what the authors publish: their tensor names and keys are
those of their public code. It does not show that the authors' code and transformers' class agree; no such code is run.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
)

from sie_triton.checkpoint import Checkpoint, resolve_checkpoint
from sie_triton.diagnostics import DiagnosticError
from sie_triton.export.encoder import load_model

from .bodies import load_body, load_classifier, load_mlm
from .corpus import QUERY, TEXTS
from .factory import FAMILIES, make
from .made import made, oracle
from .references import tokenize
from .weights import edit_config, write_json

TRANSLATED = [name for name, family in FAMILIES.items() if family.native is None and family.twin is not None]
BEYOND = [name for name, family in FAMILIES.items() if family.remote_only]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def resolve(folder: Path) -> Checkpoint:
    return resolve_checkpoint(None, None, weights=folder, bundle_weights_path=None, allow_hub=False)


@pytest.mark.parametrize("name", TRANSLATED)
def test_transformers_reads_every_weight_of_the_view_and_computes_the_reference(name: str) -> None:
    family, folder = FAMILIES[name], made(name).folder
    found = resolve(folder)
    assert not found.needs_remote_code
    auto = AutoModelForMaskedLM if "sparse" in family.encode else AutoModel
    auto = AutoModelForSequenceClassification if not family.encode else auto
    model, report = auto.from_pretrained(
        found.folder, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
    )
    assert type(model).__name__ == family.twin
    assert not report["missing_keys"] and not report["mismatched_keys"]
    assert {key for key in report["unexpected_keys"] if key != "linear.weight"} == set()
    for text in TEXTS:
        ids, _ = tokenize(folder, text, max_length=40)
        with torch.no_grad():
            outputs = model.eval()(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)))
        if family.encode:
            ours = outputs.logits[0] if "sparse" in family.encode else outputs.last_hidden_state[0]
            theirs = load_mlm(folder)(ids, None) if "sparse" in family.encode else _states(name, folder, ids)
        else:
            ours, theirs = outputs.logits[0], load_classifier(folder)(ids, None)
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-5)


def _states(name: str, folder: Path, ids: list[int]) -> torch.Tensor:
    return load_body(folder, bidirectional=True)(ids, None) if "llama" in name else load_body(folder)(ids, None)


@pytest.mark.parametrize("name", BEYOND)
def test_what_transformers_lacks_is_named(name: str) -> None:
    reason = resolve(made(name).folder).remote_code_reason
    assert reason is not None and ("ALiBi" in reason or "mixture of experts" in reason)


def test_sentence_transformers_scores_jinas_reranker_through_the_view() -> None:
    """The witness of a build loads the same folder; its scores are the factory's."""
    scorer = CrossEncoder(str(resolve(made("cross_encoder_jina").folder).folder), device="cpu")
    scores = scorer.predict([(QUERY, text) for text in TEXTS])
    np.testing.assert_allclose(scores, oracle("cross_encoder_jina").score(QUERY, TEXTS), atol=1e-4)


def test_a_transformer_in_a_folder_of_its_own_gives_sentence_transformers_vectors(tmp_path: Path) -> None:
    """sentence-transformers reads the published folder itself; the view gives the same vectors."""
    folder = make("sentence_bert", tmp_path).folder
    home = folder / "0_Transformer"
    home.mkdir()
    for path in [path for path in folder.iterdir() if path.is_file() and path.name not in _AT_ROOT]:
        path.rename(home / path.name)
    modules = [
        {"idx": 0, "name": "0", "path": "0_Transformer", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    write_json(folder / "modules.json", modules)
    published = SentenceTransformer(str(folder), device="cpu")
    shown = SentenceTransformer(str(resolve(folder).folder), device="cpu")
    np.testing.assert_allclose(shown.encode(TEXTS), published.encode(TEXTS), atol=1e-6)
    assert shown.max_seq_length == published.max_seq_length


_AT_ROOT = ("modules.json", "config_sentence_transformers.json")


def test_snowflakes_gte_declares_code_and_needs_none(tmp_path: Path) -> None:
    """`model_type: gte` with `rope_theta` at the top, as arctic-embed-m-v2.0 has it: transformers reads it natively."""
    folder = make("gte", tmp_path).folder
    edit_config(
        folder,
        drop=("rope_parameters",),
        auto_map={"AutoModel": "modeling_hf_alibaba_nlp_gte.GteModel"},
        rope_theta=160_000,
        rope_scaling=None,
        pack_qkv=True,
        position_embedding_type="rope",
    )
    found = resolve(folder)
    assert not found.needs_remote_code and found.folder == found.origin
    loaded = AutoModel.from_pretrained(found.folder, trust_remote_code=False)
    assert type(loaded).__name__ == "GteModel"
    assert loaded.config.rope_parameters == {"rope_type": "default", "rope_theta": 160_000}


def test_a_head_that_is_not_as_wide_as_its_labels_is_said(tmp_path: Path) -> None:
    """Without `id2label` transformers takes two labels, and would leave the head of one row out as random numbers."""
    folder = make("cross_encoder_bert_identity", tmp_path).folder
    edit_config(folder, drop=("id2label", "label2id", "num_labels"))
    with pytest.raises(DiagnosticError) as caught:
        load_model(folder, "sequence_classification", attention="eager", trust_remote_code=False)
    (found,) = caught.value.diagnostics
    assert found.code == "SIE338" and "has 1 row, and the configuration says 2 labels" in found.message
    assert found.hint is not None and '"id2label": {"0": "LABEL_0"}' in found.hint


def test_weights_of_another_configuration_are_said(tmp_path: Path) -> None:
    folder = make("bert", tmp_path).folder
    edit_config(folder, intermediate_size=40)
    with pytest.raises(
        DiagnosticError, match=r"is \[48, 32\] in the weights and \[40, 32\] by the configuration|is \[48\]"
    ):
        load_model(folder, "base", attention="eager", trust_remote_code=False)
