"""Inference-free sparse encoders that sentence-transformers itself saves, in the layouts that are published."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from recipes.made import made
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling

TABLE = "query_0_SparseStaticEmbedding"
HOME = "document_0_Transformer"


def edit(path: Path, /, **changes: Any) -> None:
    """Change keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def masked_lm(family: str = "opensearch_idf", **options: Any) -> Transformer:
    return Transformer(str(made(family).folder), transformer_task="fill-mask", **options)


def weights_of(tokenizer: Any) -> torch.Tensor:
    """A weight for every token, special ones too; every seventh is zero."""
    found = torch.rand(len(tokenizer.get_vocab()), generator=torch.Generator().manual_seed(5)) * 3
    found[3::7] = 0
    return found


def router(document: Transformer, table: SparseStaticEmbedding | None = None, **pooling: Any) -> Router:
    table = table or SparseStaticEmbedding(document.tokenizer, weights_of(document.tokenizer), frozen=True)
    return Router.for_query_document([table], [document, SpladePooling(**{"pooling_strategy": "max", **pooling})])


def save(folder: Path, routes: Router, **options: Any) -> None:
    SparseEncoder(modules=[routes], device="cpu", similarity_fn_name="dot", **options).save_pretrained(str(folder))


def twice_log(folder: Path) -> None:
    """As OpenSearch's third version: the logarithm twice, weights that were not trained."""
    save(folder, router(masked_lm(), activation_function="log1p_relu"))


def from_idf(folder: Path) -> None:
    """As its second: the weights out of `idf.json`, which no special token has."""
    document = masked_lm()
    path = made("opensearch_idf").folder / "idf.json"
    table = SparseStaticEmbedding.from_json(str(path), tokenizer=document.tokenizer, frozen=False)
    save(folder, router(document, table))


def prompted(folder: Path) -> None:
    """Prompts in front of both, and queries that are cut elsewhere than documents."""
    document = masked_lm(max_seq_length=40)
    table = SparseStaticEmbedding(masked_lm().tokenizer, weights_of(document.tokenizer))
    save(folder, router(document, table, pooling_strategy="sum"), prompts={"query": "find ", "document": "the "})


def unlimited(folder: Path) -> None:
    """Queries that are never cut."""
    twice_log(folder)
    edit(folder / TABLE / "tokenizer_config.json", model_max_length=10**30)


def at_root(folder: Path) -> None:
    """As published: the transformer at the root, under an empty name, and modules by their older paths."""
    twice_log(folder)
    for path in (folder / HOME).iterdir():
        shutil.move(path, folder / path.name)
    (folder / HOME).rmdir()
    path = folder / "router_config.json"
    routes = json.loads(path.read_text(encoding="utf-8"))
    package = "sentence_transformers.sparse_encoder.models"
    routes["types"] = {
        TABLE: f"{package}.SparseStaticEmbedding",
        "": f"{package}.MLMTransformer",
        "document_1_SpladePooling": f"{package}.SpladePooling",
    }
    routes["structure"]["document"][0] = ""
    del routes["parameters"]["route_mappings"]
    path.write_text(json.dumps(routes), encoding="utf-8")
    (folder / "sentence_bert_config.json").write_text(
        '{"max_seq_length": 64, "do_lower_case": false}', encoding="utf-8"
    )
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Router"}]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")


SAVED: Mapping[str, Callable[[Path], None]] = {
    "twice-log": twice_log,
    "from-idf": from_idf,
    "prompted": prompted,
    "unlimited": unlimited,
    "at-root": at_root,
}
