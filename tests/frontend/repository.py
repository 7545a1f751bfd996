"""What the frontend reads of a repository: the manifest that the compiler's planning gives, and a tokenizer."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import msgspec
from compiler import tiny
from compiler.folders import EMPTY_SAFETENSORS, write_folder
from sie_frontend.manifest import SCHEMA_VERSION, Manifest, Model, dump_manifest
from tokenizers import Tokenizer

from sie_triton.bundle import expand, load_bundles
from sie_triton.compiler.build import plan_models
from sie_triton.compiler.options import BuildOptions, select
from sie_triton.compiler.text import Vocabulary, text_entry
from sie_triton.repository import record as manifests
from sie_triton.repository.config import CpuShape

WORDS = ["the", "cell", "is", "a", "power", "house", "of", "mitochondria", "and", "search", "answers", "embed", "text"]
"""Words of the toy vocabulary that are one token each."""


def write_repository(folder: Path, bundle_text: str = tiny.BUNDLE, **config: object) -> Path:
    """A bundle's manifest and tokenizer. There are no graphs: the Triton of these tests needs none.

    `config` are further entries of the checkpoint's `config.json`.
    """
    sources = folder.parent / "sources"
    bundles, mistakes = load_bundles(tiny.write_bundle(sources / "bundles", bundle_text))
    assert not mistakes
    [bundle] = bundles.values()
    config = {"model_type": "bert", "hidden_size": 32, "max_position_embeddings": 64, **config}
    checkpoint = write_folder(sources / "checkpoint", {"config.json": config})
    tiny.write_tokenizer(checkpoint, WORDS)
    assert (checkpoint / "model.safetensors").read_bytes() == EMPTY_SAFETENSORS
    target = select(bundle, expand(bundle))
    vocabulary = Vocabulary(pad_id=0, special_ids={"cls": 2, "sep": 3}, all_special_ids=(0, 1, 2, 3, 4))
    manifest = Manifest(SCHEMA_VERSION, {}, {}, {})
    for plan in plan_models(target, BuildOptions(folder, default_weights=checkpoint)):
        reads_of = partial(text_entry, plan, vocabulary=vocabulary)
        models = manifests.model_entries(bundle, plan, CpuShape(instances=2, threads=1), reads_of, None)
        manifest.models.update(models)
        for model in models.values():
            path = folder / model.text.tokenization.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((checkpoint / "tokenizer.json").read_bytes())
    (folder / "manifest.json").write_bytes(dump_manifest(manifest))
    return folder


def retokenized(model: Model, **changes: object) -> Model:
    """A model whose text is tokenised otherwise."""
    tokenization = msgspec.structs.replace(model.text.tokenization, **changes)
    entry = msgspec.structs.replace(
        model.inputs["text"], reads=msgspec.structs.replace(model.text, tokenization=tokenization)
    )
    return msgspec.structs.replace(model, inputs={"text": entry})


def token_ids(repository: Path, text: str, limit: int = 48) -> list[int]:
    """The ids that the model must see for a text, by the tokenizer library itself."""
    tokenizer = Tokenizer.from_file(str(repository / tiny.TRITON_NAME / "1" / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(limit)
    ids: list[int] = tokenizer.encode(text).ids
    return ids
