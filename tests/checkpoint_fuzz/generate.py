"""A recipe becomes a folder: sentence-transformers' own classes, saved by its own `save_pretrained`."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from recipes.weights import gaussian
from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.sentence_transformer.modules import Dropout, LayerNorm, Pooling
from sentence_transformers.sparse_encoder.modules import SpladePooling
from tokenizers import AddedToken
from torch import nn

from .backbones import write_backbone
from .foreign import foreign_model
from .publishers import EDITS
from .recipe import Recipe

ADDED_TOKENS = {
    "special": AddedToken("<extra>", special=True, normalized=False),
    "plain": AddedToken("KeyWord", special=False, normalized=False),
    "normalized": AddedToken("sea", special=False, normalized=True),
    "lstrip": AddedToken("<left>", special=True, normalized=False, lstrip=True),
    "rstrip": AddedToken("<right>", special=False, normalized=False, rstrip=True),
    "single_word": AddedToken("cel", special=False, normalized=False, single_word=True),
}
"""What `Recipe.added` names; the texts of the judge hold each of them."""
MARKERS = ("[Q]", "[D]")

_TASKS = {"sparse": "ForMaskedLM", "cross": "ForSequenceClassification"}


def generate(recipe: Recipe, folder: Path) -> None:
    """Write the checkpoint of a recipe into `folder`, which is made."""
    torch.manual_seed(recipe.seed)
    with tempfile.TemporaryDirectory(prefix="fuzz-backbone-") as made:
        body = Path(made)
        task = _TASKS.get("sparse" if recipe.foreign == "sparse_static" else recipe.kind, "Model")
        # Decoders as published bring a chat template; sentence-transformers would render texts through it.
        write_backbone(body, recipe.backbone, task, seed=f"fuzz{recipe.seed}", labels=recipe.labels)
        if not recipe.chat_template:
            (body / "chat_template.jinja").unlink(missing_ok=True)
        model = foreign_model(recipe.foreign, body) if recipe.foreign else _assemble(recipe, body)
        _change_tokenizer(recipe, model)
        if recipe.dtype != "float32":
            model.to(getattr(torch, recipe.dtype))
        model.save_pretrained(str(folder), create_model_card=False)
    _edit_tokenizer_file(recipe, folder)
    for edit in recipe.edits:
        EDITS[edit](folder)


def _assemble(recipe: Recipe, body: Path) -> Any:
    prompts: dict[str, Any] = {"prompts": dict(recipe.prompts)} if recipe.prompts else {}
    if recipe.default_prompt:
        prompts["default_prompt_name"] = recipe.default_prompt
    if recipe.kind == "cross":
        activation = getattr(nn, recipe.score_activation)()
        limit = {"max_length": recipe.max_length} if recipe.max_length else {}
        return CrossEncoder(str(body), activation_fn=activation, device="cpu", **limit, **prompts)
    task = "fill-mask" if recipe.kind == "sparse" else "feature-extraction"
    more: dict[str, Any] = {"do_lower_case": True} if recipe.do_lower_case else {}
    if recipe.kind == "multi":
        more |= _multi_lengths(recipe)
    transformer = Transformer(str(body), transformer_task=task, max_seq_length=recipe.max_length, **more)
    if recipe.kind == "sparse":
        splade = SpladePooling(recipe.strategy, recipe.activation)
        return SparseEncoder(modules=[transformer, splade], max_active_dims=recipe.max_active, device="cpu", **prompts)
    width = transformer.get_embedding_dimension()
    if recipe.kind == "multi":
        if recipe.backbone == "bert" and recipe.prompts:
            markers = [AddedToken(marker, special=True, normalized=False) for marker in MARKERS]
            _add_tokens(transformer.tokenizer, transformer, markers, resize=True)
        modules = _chain(recipe, width, "token_embeddings")
        return MultiVectorEncoder(modules=[transformer, *modules], device="cpu", **prompts)
    modules = _chain(recipe, width, "sentence_embedding")
    similarity = {"similarity_fn_name": recipe.similarity} if recipe.similarity else {}
    return SentenceTransformer(
        modules=[transformer, *modules], truncate_dim=recipe.truncate_dim, device="cpu", **similarity, **prompts
    )


def _multi_lengths(recipe: Recipe) -> dict[str, Any]:
    more: dict[str, Any] = {"document_length": recipe.document_length}
    if recipe.expansion:
        length = recipe.query_length or 24
        return {**more, "query_expansion": {"strategy": "fixed", "attend": False, "length": length}}
    return {**more, "query_length": recipe.query_length}


def _chain(recipe: Recipe, width: int, key: str) -> list[nn.Module]:
    """The modules after the transformer; `key` is the feature that they read and write."""
    chain: list[nn.Module] = []
    for place, written in enumerate(recipe.modules):
        name, *options = written.split(":")
        if name == "pool":
            modes = options[0].split("+")
            chain.append(Pooling(width, modes if len(modes) > 1 else modes[0], include_prompt=recipe.include_prompt))
            width *= len(modes)
        elif name == "dense":
            chain.append(_dense(recipe, place, width, options, key))
            width = int(options[0])
        elif name == "normalize":
            chain.append(Normalize(module_input_name=key))
        elif name == "layernorm":
            chain.append(LayerNorm(width))
            _spread(chain[-1], f"{recipe.seed}:{place}")
        elif name == "dropout":
            chain.append(Dropout(0.3))
        elif name == "mask":
            chain.append(MultiVectorMask(skiplist_words=list(recipe.skiplist)))
    return chain


def _dense(recipe: Recipe, place: int, width: int, options: Sequence[str], key: str) -> Dense:
    out, activation, bias, residual = options
    layer = Dense(
        width,
        int(out),
        bias=bias == "1",
        activation_function=getattr(nn, activation)(),
        module_input_name=key,
        use_residual=residual == "1",
    )
    _spread(layer, f"{recipe.seed}:{place}")
    return layer


def _spread(module: nn.Module, seed: str) -> None:
    """Values of its own for every parameter, so that no two layers are alike and no bias is zero."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = gaussian(tuple(parameter.shape), f"{seed}:{name}")
            scale = parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 0.3
            parameter.copy_(noise * scale + (1.0 if name.startswith("norm.weight") else 0.0))


def _change_tokenizer(recipe: Recipe, model: Any) -> None:
    if recipe.foreign:
        return
    tokenizer = model.tokenizer
    if recipe.truncation_side:
        tokenizer.truncation_side = recipe.truncation_side
    if recipe.padding_side:
        tokenizer.padding_side = recipe.padding_side
    if recipe.added:
        _add_tokens(tokenizer, model[0], [ADDED_TOKENS[name] for name in recipe.added], resize=recipe.resize)


def _add_tokens(tokenizer: Any, transformer: Any, tokens: Sequence[AddedToken], *, resize: bool) -> None:
    for token in tokens:
        tokenizer.add_tokens([token], special_tokens=token.special)
    if resize:
        rows = max(tokenizer.get_vocab().values()) + 1
        transformer.auto_model.resize_token_embeddings(rows, mean_resizing=False)


def _edit_tokenizer_file(recipe: Recipe, folder: Path) -> None:
    """Truncation and padding that `tokenizer.json` itself asks for, as files exported from a pipeline do."""
    if not recipe.file_truncation and not recipe.file_padding:
        return
    path = next(folder.rglob("tokenizer.json"))
    content = json.loads(path.read_text(encoding="utf-8"))
    if recipe.file_truncation:
        content["truncation"] = {
            "direction": "Right",
            "max_length": recipe.file_truncation,
            "strategy": "LongestFirst",
            "stride": 0,
        }
    if recipe.file_padding:
        content["padding"] = {
            "strategy": {"Fixed": recipe.file_padding},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        }
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def regenerate(recipe: Recipe, folder: Path) -> None:
    """`generate` into a folder that may hold another checkpoint."""
    shutil.rmtree(folder, ignore_errors=True)
    generate(recipe, folder)
