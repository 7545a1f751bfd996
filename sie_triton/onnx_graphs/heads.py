"""The planned heads in ONNX: a transformer's states in, outputs out. A kind that is not written here is `Declined`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sie_triton.onnx_graphs.bodies.architecture import Architecture, Config, Towers
from sie_triton.onnx_graphs.builder import GraphBuilder, Value
from sie_triton.onnx_graphs.declined import Declined
from sie_triton.onnx_graphs.pooling import first_state, last_state, layer, linear_file, normalized, pool
from sie_triton.planning.families import (
    Classifier,
    DensePooling,
    HeadModule,
    LastTokenLogits,
    PageVectors,
    ProjectedImage,
    ProjectedText,
    SparseMax,
    TokenVectors,
    TokenWeights,
)
from sie_triton.planning.tensors import INPUT_IDS


@dataclass(frozen=True, slots=True)
class HeadSite:
    """What heads read of their checkpoint. `token_id` gives the one id of a token by its spelling."""

    folder: Path
    architecture: Architecture
    config: Config
    token_id: Callable[[str], int]


def head_outputs(b: GraphBuilder, head: HeadModule, states: Value, mask: Value, site: HeadSite) -> list[Value]:
    """The raw outputs of a head, in the order of its tensors; `states` are float32. Raises `Declined`."""
    write = _WRITERS.get(type(head))
    if write is None:
        raise Declined(f"heads of the kind `{head.kind}` are not written")
    return write(b, head, states, mask, site)


def _dense(b: GraphBuilder, head: DensePooling, states: Value, mask: Value, site: HeadSite) -> list[Value]:
    for described in head.token_layers:
        states = layer(b, states, site.folder, described)
    outputs: list[Value] = []
    for pooling in head.poolings:
        parts = [pool(b, states, mask, part) for part in pooling.split("+")]
        vector = b.op("Concat", *parts, axis=-1) if len(parts) > 1 else parts[0]
        for described in head.layers:
            vector = layer(b, vector, site.folder, described)
        if head.keep is not None:
            vector = _first(b, vector, head.keep)
        outputs += [normalized(b, vector), vector]
    return outputs


def _first(b: GraphBuilder, vectors: Value, count: int) -> Value:
    """The first numbers of each vector."""
    return b.op("Slice", vectors, b.ints(0), b.ints(count), b.ints(-1))


def _sparse(b: GraphBuilder, head: SparseMax, states: Value, mask: Value, site: HeadSite) -> list[Value]:
    if head.max_terms is not None:
        raise Declined("a largest number of terms is not written")
    if site.architecture.masked_lm is None:
        raise Declined("its masked-language head is not written")
    logits = b.from_body(site.architecture.masked_lm(b, site.config, b.to_body(states)))
    attended = b.op("Unsqueeze", b.cast(mask, "float32"), b.ints(2))
    # A logit that is masked to zero can win only where every logit is negative, and Relu makes that zero anyway.
    masked = b.op("Mul", logits, attended)
    if head.pooling == "max":
        # Logarithm and Relu keep order: the maximum first costs one row instead of one per token.
        return [_log(b, b.op("ReduceMax", masked, b.ints(1), keepdims=0), twice=head.double_log)]
    return [b.op("ReduceSum", _log(b, masked, twice=head.double_log), b.ints(1), keepdims=0)]


def _log(b: GraphBuilder, logits: Value, *, twice: bool) -> Value:
    once = b.op("Log", b.op("Add", b.op("Relu", logits), b.number(1)))
    return b.op("Log", b.op("Add", once, b.number(1))) if twice else once


def _token_weights(b: GraphBuilder, head: TokenWeights, states: Value, mask: Value, site: HeadSite) -> list[Value]:
    weights = b.op("Relu", linear_file(b, states, site.folder, head.file))
    return [b.op("Squeeze", weights, b.ints(-1))]


def _token_vectors(b: GraphBuilder, head: TokenVectors, states: Value, mask: Value, site: HeadSite) -> list[Value]:
    if head.layers:
        for described in head.layers:
            states = layer(b, states, site.folder, described)
    elif head.file:
        states = linear_file(b, states, site.folder, head.file)
    elif head.weight:
        name = head.weight.removesuffix(".weight")
        states = b.linear(states, name, bias=b.tensors.has(f"{name}.bias"), precision="float32")
    vectors = _first(b, states, head.dim)
    return [normalized(b, vectors) if head.normalize else vectors]


def _classifier(b: GraphBuilder, head: Classifier, states: Value, mask: Value, site: HeadSite) -> list[Value]:
    if site.architecture.classifier is None:
        raise Declined("its classification head is not written")
    first = b.to_body(first_state(b, states, mask))
    logits = b.from_body(site.architecture.classifier(b, site.config, b.to_body(states), first, mask))
    return [b.activation(logits, head.activation, "float32")]


def _last_token(b: GraphBuilder, head: LastTokenLogits, states: Value, mask: Value, site: HeadSite) -> list[Value]:
    ids = [site.token_id(token) for token in (head.yes, head.no) if token is not None]
    own = not site.config.tie_word_embeddings and b.tensors.has("lm_head.weight")
    rows = b.tensors.read("lm_head.weight" if own else "embed_tokens.weight")[ids]
    if b.tensors.has("lm_head.bias"):
        raise Declined("a bias of the language head is not written")
    if getattr(site.config, "final_logit_softcapping", None) is not None:
        raise Declined(f"`final_logit_softcapping` is {site.config.final_logit_softcapping}")
    logits = b.op("MatMul", last_state(b, states, mask), b.given("answers.weight", np.ascontiguousarray(rows.T)))
    if head.mode == "logit":
        return [logits]
    yes, no = b.ops("Split", logits, b.ints(1, 1), outputs=2, axis=-1)
    difference = b.op("Sub", yes, no)
    return [b.op("Sigmoid", difference) if head.mode == "probability" else difference]


def _projected_text(b: GraphBuilder, head: ProjectedText, states: Value, mask: Value, site: HeadSite) -> list[Value]:
    return [normalized(b, _towers(site).text_vector(b, site.config, states, INPUT_IDS, mask))]


def _projected_image(b: GraphBuilder, head: ProjectedImage, states: Value, mask: Value, site: HeadSite) -> list[Value]:
    return [normalized(b, _towers(site).image_vector(b, site.config, states))]


def _page_vectors(b: GraphBuilder, head: PageVectors, states: Value, mask: Value, site: HeadSite) -> list[Value]:
    bias = b.tensors.has(f"{head.projection}.bias")
    return [normalized(b, b.linear(states, head.projection, bias=bias, precision="float32"))]


def _towers(site: HeadSite) -> Towers:
    if site.architecture.towers is None:
        raise Declined(f"the projections of the architecture `{site.config.model_type}` are not written")
    return site.architecture.towers


# Who adds a kind of output need not write it twice: what is missing here is traced.
_WRITERS: Mapping[type[object], Callable[[GraphBuilder, Any, Value, Value, HeadSite], list[Value]]] = {
    DensePooling: _dense,
    SparseMax: _sparse,
    TokenWeights: _token_weights,
    TokenVectors: _token_vectors,
    Classifier: _classifier,
    LastTokenLogits: _last_token,
    ProjectedText: _projected_text,
    ProjectedImage: _projected_image,
    PageVectors: _page_vectors,
}
