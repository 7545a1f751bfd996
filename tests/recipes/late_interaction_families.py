"""ColBERT models: each place where a projection is kept, each way of marking queries and documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor
from transformers import BertConfig, BertModel, JinaEmbeddingsV3Config, JinaEmbeddingsV3Model, ModernBertModel

from . import vocabularies
from .encoder_checkpoints import modernbert_config
from .family import Family
from .sentence_modules import DenseSpec, write_pylate_modules
from .tiny_shapes import ENCODER, POSITIONS, WIDTH
from .weights import edit_config, linear, spread, write_json, write_model, write_tensors

TOKEN_WIDTH = 24
QUERY_LENGTH = 32
PUNCTUATION = list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


def _bert(folder: Path, extra: Mapping[str, Tensor]) -> None:
    """A Stanford-style checkpoint: the body under `bert.`, what `extra` holds beside it, `HF_ColBERT` in the config."""
    words = vocabularies.wordpiece()
    model = BertModel(BertConfig(**ENCODER, vocab_size=words.size))
    spread(model, folder.name)
    write_model(model, folder)
    _add_tensors(folder, "bert.", extra)
    edit_config(folder, architectures=["HF_ColBERT"])
    words.save(folder, max_length=POSITIONS)


def _add_tensors(folder: Path, prefix: str, extra: Mapping[str, Tensor]) -> None:
    body = load_file(folder / "model.safetensors")
    write_tensors(folder / "model.safetensors", {**{f"{prefix}{name}": body[name] for name in body}, **extra})


def _root_linear(folder: Path) -> None:
    _bert(folder, {"linear.weight": linear(TOKEN_WIDTH, WIDTH, f"{folder.name}:linear")})
    metadata = {"query_token_id": "[unused0]", "doc_token_id": "[unused1]", "dim": TOKEN_WIDTH, "doc_maxlen": 40}
    more = {"query_maxlen": QUERY_LENGTH, "mask_punctuation": True, "attend_to_mask_tokens": False}
    write_json(folder / "artifact.metadata", {**metadata, **more})


def _named_linear(folder: Path) -> None:
    _bert(folder, {"colbert_linear.weight": linear(TOKEN_WIDTH, WIDTH, f"{folder.name}:linear")})


def _no_projection(folder: Path) -> None:
    _bert(folder, {})


def _pylate_bert(folder: Path) -> None:
    words = vocabularies.wordpiece()
    model = BertModel(BertConfig(**ENCODER, vocab_size=words.size))
    spread(model, folder.name)
    write_model(model, folder)
    words.save(folder, max_length=POSITIONS)
    dense = (DenseSpec(WIDTH, 40, bias=False, residual=True), DenseSpec(40, TOKEN_WIDTH, bias=False))
    _write_pylate(
        folder, dense, prefixes=("[unused0]", "[unused1]"), lengths=(24, 40), skiplist=PUNCTUATION, expansion=True
    )


def _write_pylate(
    folder: Path,
    dense: Sequence[DenseSpec],
    *,
    prefixes: tuple[str, str],
    lengths: tuple[int, int],
    skiplist: Sequence[str],
    expansion: bool,
) -> None:
    """`prefixes` and `lengths` are the queries' and the documents'."""
    settings = {
        "query_prefix": prefixes[0],
        "document_prefix": prefixes[1],
        "query_length": lengths[0],
        "document_length": lengths[1],
        "attend_to_expansion_tokens": False,
        "skiplist_words": list(skiplist),
        "do_query_expansion": expansion,
    }
    write_pylate_modules(folder, dense, settings=settings)


def _modernbert(folder: Path, dense: Sequence[DenseSpec], skiplist: Sequence[str]) -> None:
    words = vocabularies.modernbert(("[Q] ", "[D] "))
    model = ModernBertModel(modernbert_config(words))
    spread(model, folder.name)
    write_model(model, folder)
    words.save(folder, max_length=POSITIONS)
    _write_pylate(
        folder, dense, prefixes=("[Q] ", "[D] "), lengths=(QUERY_LENGTH, 40), skiplist=skiplist, expansion=False
    )


def _modernbert_single(folder: Path) -> None:
    _modernbert(folder, (DenseSpec(WIDTH, TOKEN_WIDTH, bias=False),), PUNCTUATION)


def _modernbert_chain(folder: Path) -> None:
    """mxbai-edge-colbert's: a residual Dense that widens, then one that is cut down to `token_dim`."""
    dense = (
        DenseSpec(WIDTH, 48, bias=False, residual=True),
        DenseSpec(48, 48, bias=False, residual=True),
        DenseSpec(48, WIDTH, bias=False),
    )
    _modernbert(folder, dense, ())


def _jina_colbert(folder: Path, *, native: bool = False) -> None:
    """jina-colbert-v2: XLM-RoBERTa with rotary positions in the authors' layout, and a root `linear.weight`."""
    words = vocabularies.unigram(("[QueryMarker]", "[DocumentMarker]"))
    rope = {"rope_type": "default", "rope_theta": 20_000.0}
    config = {**ENCODER, "vocab_size": words.size, "layer_norm_eps": 1e-5, "rope_parameters": rope}
    model = JinaEmbeddingsV3Model(JinaEmbeddingsV3Config(**config))
    spread(model, folder.name)
    write_model(model, folder)
    if native:
        _add_tensors(folder, "", {"linear.weight": linear(WIDTH, WIDTH, f"{folder.name}:linear")})
        words.save(folder, max_length=POSITIONS)
        return
    _add_tensors(folder, "roberta.", {"linear.weight": linear(WIDTH, WIDTH, f"{folder.name}:linear")})
    implementation = "jinaai/xlm-roberta-flash-implementation"
    edit_config(
        folder,
        drop=("rope_parameters", "transformers_version", "dtype"),
        architectures=["HF_ColBERT"],
        auto_map={
            "AutoConfig": f"{implementation}--configuration_xlm_roberta.XLMRobertaFlashConfig",
            "AutoModel": f"{implementation}--modeling_xlm_roberta.XLMRobertaModel",
        },
        emb_pooler=None,
        model_type="xlm-roberta",
        position_embedding_type="rotary",
        rotary_emb_base=20_000.0,
        use_flash_attn=True,
        torch_dtype="float32",
    )
    metadata = {"query_token_id": "[QueryMarker]", "doc_token_id": "[DocumentMarker]", "dim": TOKEN_WIDTH}
    write_json(folder / "artifact.metadata", metadata)
    words.save(folder, max_length=POSITIONS)


_MARKED: Mapping[str, Any] = {
    "token_dim": TOKEN_WIDTH,
    "normalize": True,
    "query_max_length": QUERY_LENGTH,
    "skip_special_tokens": False,
    "query_prefix": "[unused0]",
    "doc_prefix": "[unused1]",
    "doc_punctuation_skiplist": True,
}
_WRITTEN: Mapping[str, Any] = {**_MARKED, "query_prefix": "[Q] ", "doc_prefix": "[D] "}
_MULTI: Mapping[str, int] = {"multivector": TOKEN_WIDTH}

LATE_INTERACTION_FAMILIES = (
    Family(
        "colbert_root_linear",
        "ColBERTAdapter",
        _root_linear,
        "colbert-ir__colbertv2.0.yaml",
        _MULTI,
        score=True,
        native="BertModel",
        loadtime=_MARKED,
        runtime={"query_max_length": QUERY_LENGTH, "max_seq_length": 40, "muvera": None},
        note="projection in `linear.weight` of model.safetensors; queries padded with [MASK]",
    ),
    Family(
        "colbert_named_linear",
        "ColBERTAdapter",
        _named_linear,
        "answerdotai__answerai-colbert-small-v1.yaml",
        _MULTI,
        score=True,
        native="BertModel",
        loadtime={**_MARKED, "query_expansion": False},
        runtime={"query_max_length": QUERY_LENGTH, "muvera": None},
        note="projection in `colbert_linear.weight`; no expansion",
    ),
    Family(
        "colbert_pylate",
        "ColBERTAdapter",
        _pylate_bert,
        "mixedbread-ai__mxbai-colbert-large-v1.yaml",
        _MULTI,
        score=True,
        native="BertModel",
        loadtime={**_MARKED, "query_expansion": True, "query_max_length": 24, "doc_max_length": 40},
        note="two PyLate Dense modules, the first with a projected residual; `doc_max_length`",
    ),
    Family(
        "colbert_truncated",
        "ColBERTAdapter",
        _no_projection,
        "colbert-ir__colbertv2.0.yaml",
        _MULTI,
        score=True,
        native="BertModel",
        loadtime={**_MARKED, "skip_special_tokens": True, "doc_punctuation_skiplist": False},
        note="no projection anywhere: hidden states are cut to `token_dim`; special tokens dropped",
    ),
    Family(
        "colbert_modernbert",
        "ColBERTModernBERTFlashAdapter",
        _modernbert_single,
        "topk-io__Iso-ModernColBERT.yaml",
        _MULTI,
        score=True,
        native="ModernBertModel",
        loadtime=_WRITTEN,
        runtime={"query_max_length": QUERY_LENGTH, "max_seq_length": 40},
        note="written markers `[Q] ` and `[D] `, which are added tokens, and a punctuation skip-list",
    ),
    Family(
        "colbert_modernbert_chain",
        "ColBERTModernBERTFlashAdapter",
        _modernbert_chain,
        "lightonai__mLateOn.yaml",
        _MULTI,
        score=True,
        native="ModernBertModel",
        loadtime={**_WRITTEN, "doc_punctuation_skiplist": False, "skip_special_tokens": True},
        note="three PyLate Dense modules with residuals, cut to `token_dim`; special tokens dropped",
    ),
    Family(
        "jina_colbert",
        "ColBERTRotaryFlashAdapter",
        _jina_colbert,
        "",
        _MULTI,
        score=True,
        twin="JinaEmbeddingsV3Model",
        loadtime={**_MARKED, "query_prefix": "[QueryMarker]", "doc_prefix": "[DocumentMarker]"},
        runtime={"query_max_length": QUERY_LENGTH, "max_seq_length": 40, "muvera": None},
        note="`model_type: xlm-roberta`, so transformers loads an XLM-R without most of its weights and says nothing",
    ),
    Family(
        "colbert_rotary",
        "ColBERTRotaryFlashAdapter",
        partial(_jina_colbert, native=True),
        "",
        _MULTI,
        score=True,
        native="JinaEmbeddingsV3Model",
        # The contract does not say which ids of a SentencePiece vocabulary a skip-list of characters means.
        loadtime={
            **_MARKED,
            "query_prefix": "[QueryMarker]",
            "doc_prefix": "[DocumentMarker]",
            "doc_punctuation_skiplist": False,
        },
        runtime={"query_max_length": QUERY_LENGTH, "max_seq_length": 40, "muvera": None},
        note="the same model in transformers' own layout",
    ),
)
