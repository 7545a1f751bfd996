"""Resolved profiles -> `BuildPlan`: the graphs, their signatures and the ensemble, decided before anything heavy runs.

The plan is printable without torch. What is exported must equal it in names, order, types and dynamic axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from sie_frontend.manifest import OutputType, PromptStyle

from sie_triton.bundle import Bundle, ResolvedProfile
from sie_triton.catalog import Recipe
from sie_triton.diagnostics import Diagnostic, DiagnosticError
from sie_triton.facts import CheckpointFacts, DenseLayer, Pooling

# Raise when the exported bytes change for equal inputs, so that `build` does not skip what it should renew.
EXPORTER_REVISION = 1

Format = Literal["onnx"]
Layout = Literal["ensemble"]
Axis: TypeAlias = str | int  # a name for what varies ("batch", "sequence") or is not known yet ("hidden")

INPUT_IDS = "input_ids"
ATTENTION_MASK = "attention_mask"
HIDDEN = "last_hidden_state"


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named, typed place in a signature. `axes[0]` is "batch"; `datatype` is Triton's name for it."""

    name: str
    datatype: str
    axes: tuple[Axis, ...]

    @property
    def dims(self) -> tuple[int, ...]:
        """As in `config.pbtxt`: without batch, -1 for what varies."""
        return tuple(axis if isinstance(axis, int) else -1 for axis in self.axes[1:])


@dataclass(frozen=True, slots=True)
class Encoder:
    """The transformer body: token ids and mask to `last_hidden_state`."""

    kind: Literal["encoder"] = "encoder"


@dataclass(frozen=True, slots=True)
class DensePooling:
    """Token embeddings to one vector per pooling, `[batch, dim]`, each L2-normalised and as pooled.

    All poolings that a request may choose are in one graph: beside the encoder they cost nothing, and on the embedded
    server every graph is a process.
    """

    poolings: tuple[Pooling, ...]
    layers: tuple[DenseLayer, ...] = ()
    kind: Literal["dense"] = "dense"


Module: TypeAlias = Encoder | DensePooling


@dataclass(frozen=True, slots=True)
class GraphPlan:
    """One exported computation and the Triton model that holds it."""

    triton_model: str
    module: Module
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One entry of `ensemble_scheduling`; the maps go from a composing model's tensor to the ensemble's."""

    triton_model: str
    input_map: dict[str, str]
    output_map: dict[str, str]


@dataclass(frozen=True, slots=True)
class DensePlan:
    """How the frontend reads dense vectors: pooling name -> (normalised tensor, tensor as pooled)."""

    dim: int | None
    pooling: Pooling
    pooling_names: dict[str, str]
    tensors: dict[str, tuple[str, str]]
    normalize: bool
    honours_normalize: bool


@dataclass(frozen=True, slots=True)
class PromptPlan:
    """The text preparation rule and what it falls back on."""

    style: PromptStyle
    query_template: str | None
    doc_template: str | None
    prompts: dict[str, str]
    default_prompt: str | None
    lowercase: bool


@dataclass(frozen=True, slots=True)
class ServedPlan:
    """One routable model id on top of a `TritonPlan`."""

    profile: ResolvedProfile
    recipe: Recipe
    prompt: PromptPlan
    dense: DensePlan | None


@dataclass(frozen=True, slots=True)
class TritonPlan:
    """A public Triton model: its graphs, its wiring, its limits and the ids that it serves."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    graphs: tuple[GraphPlan, ...]
    steps: tuple[Step, ...]
    max_length: int
    buckets: tuple[int, ...]
    max_batch_tokens: int
    served: tuple[ServedPlan, ...]
    format: Format = "onnx"
    layout: Layout = "ensemble"
    precision: str = "float32"


def triton_model_name(model_id: str, part: str | None = None) -> str:
    """Triton's name of a model id or of one of its parts; Triton refuses `/`, and `:` is no file name everywhere."""
    name = model_id.replace("/", "__").replace(":", "__")
    return f"{name}.{part}" if part else name


def bucket_lengths(max_length: int) -> tuple[int, ...]:
    """Padded lengths up to `max_length`: steps of 16 up to 128, then an eighth of the next power of two.

    Rounding up to a bucket adds at most 15 tokens to a short text and 12.5 % to a long one, while the number of shapes
    that ONNX Runtime's arena and Triton's batcher see stays small (12 + 4 per doubling).
    """
    buckets: list[int] = []
    length = 16
    while length < max_length:
        buckets.append(length)
        length += max(16, (1 << (length.bit_length())) // 8) if length >= 128 else 16
    return (*buckets, max_length)


@dataclass(frozen=True, slots=True)
class _DenseNeed:
    """What one profile asks of the dense head; profiles whose `layers` agree share it."""

    own: Pooling
    poolings: tuple[Pooling, ...]
    layers: tuple[DenseLayer, ...]
    dim: Axis


def make_plans(
    bundle: Bundle, profiles: Sequence[tuple[ResolvedProfile, Recipe]], facts: CheckpointFacts | None
) -> tuple[TritonPlan, ...]:
    """Plan the profiles of one bundle; those that truncate alike share one Triton model, so one copy of the weights.

    `facts` is None while the checkpoint is not at hand: widths are then named axes and limits the bundle's.
    Raises `DiagnosticError` for what cannot be planned.
    """
    groups: dict[object, list[tuple[ResolvedProfile, Recipe, _DenseNeed]]] = {}
    for profile, recipe in profiles:
        if recipe.name not in ("dense", "sentence_transformer_dense"):
            raise DiagnosticError([_no_exporter(profile, recipe)])
        need = _dense_need(bundle, profile, recipe, facts)
        key = (token_limit(profile, recipe, facts), profile.max_batch_tokens, need.layers)
        groups.setdefault(key, []).append((profile, recipe, need))
    return tuple(_plan(members, facts) for members in groups.values())


def _plan(members: Sequence[tuple[ResolvedProfile, Recipe, _DenseNeed]], facts: CheckpointFacts | None) -> TritonPlan:
    profile, recipe, need = members[0]
    hidden: Axis = (facts.hidden_size if facts else None) or "hidden"
    ids, mask = (Tensor(n, "INT64", ("batch", "sequence")) for n in (INPUT_IDS, ATTENTION_MASK))
    states = Tensor(HIDDEN, "FP32", ("batch", "sequence", hidden))
    encoder = GraphPlan(triton_model_name(profile.model_id, "encoder"), Encoder(), (ids, mask), (states,))
    poolings = tuple(dict.fromkeys(p for _, _, other in members for p in other.poolings))
    tensors = {
        pooling: tuple(
            Tensor(f"dense{'' if pooling == need.own else f'_{pooling}'}{end}", "FP32", ("batch", need.dim))
            for end in ("", "_unnormalized")
        )
        for pooling in poolings
    }
    dense = GraphPlan(
        triton_model_name(profile.model_id, "dense"),
        DensePooling(poolings, need.layers),
        (states, mask),
        tuple(tensor for pair in tensors.values() for tensor in pair),
    )
    graphs = (encoder, dense)
    max_length = token_limit(profile, recipe, facts)
    names = {pooling: (pair[0].name, pair[1].name) for pooling, pair in tensors.items()}
    return TritonPlan(
        name=triton_model_name(profile.model_id),
        inputs=encoder.inputs,
        outputs=dense.outputs,
        graphs=graphs,
        steps=tuple(
            Step(g.triton_model, {t.name: t.name for t in g.inputs}, {t.name: t.name for t in g.outputs})
            for g in graphs
        ),
        max_length=max_length,
        buckets=bucket_lengths(max_length),
        max_batch_tokens=profile.max_batch_tokens,
        served=tuple(ServedPlan(p, r, _prompt(p, r, facts), _dense_plan(p, r, n, names, facts)) for p, r, n in members),
    )


def _no_exporter(profile: ResolvedProfile, recipe: Recipe) -> Diagnostic:
    return Diagnostic(
        "SIE210",
        f"`{profile.model_id}` needs the recipe `{recipe.name}`, which this version cannot export",
        hint="`sie-triton catalog` lists what each bundle compiles to",
    )


def _dense_need(bundle: Bundle, profile: ResolvedProfile, recipe: Recipe, facts: CheckpointFacts | None) -> _DenseNeed:
    sentence = facts.sentence if facts and recipe.name == "sentence_transformer_dense" else None
    # On this adapter the repository's modules decide; the bundle's `pooling` has no effect.
    own: Pooling = sentence.pooling if sentence else recipe.pooling_for(profile.runtime.get("pooling")) or "mean"
    layers = sentence.dense if sentence else ()
    dim: Axis = layers[-1].out_features if layers else (facts.hidden_size if facts else None) or "hidden"
    declared = bundle.dims.get("dense")
    if isinstance(dim, int) and declared is not None and declared != dim:
        raise DiagnosticError(
            [
                Diagnostic(
                    "SIE211",
                    f"`{profile.model_id}` declares {declared} dense dimensions, the checkpoint gives {dim}",
                    bundle.positions.get("tasks.encode.dense.dim"),
                    f"set `tasks.encode.dense.dim: {dim}`, or name the checkpoint that the bundle means",
                )
            ]
        )
    poolings = tuple(dict.fromkeys((own, *_request_poolings(recipe))))
    return _DenseNeed(own, poolings, layers, dim if isinstance(dim, int) else declared or dim)


def _dense_plan(
    profile: ResolvedProfile,
    recipe: Recipe,
    need: _DenseNeed,
    names: Mapping[Pooling, tuple[str, str]],
    facts: CheckpointFacts | None,
) -> DensePlan:
    # A `Normalize` module of the repository leaves nothing to choose.
    always = bool(recipe.name == "sentence_transformer_dense" and facts and facts.sentence and facts.sentence.normalize)
    normalize = profile.runtime.get("normalize")
    spellings: dict[str, str] = {}
    if recipe.pooling_otherwise and len(need.poolings) > 1:
        spellings = {**recipe.pooling_override, "*": recipe.pooling_otherwise}
    return DensePlan(
        dim=need.dim if isinstance(need.dim, int) else None,
        pooling=need.own,
        pooling_names=spellings,
        tensors={pooling: names[pooling] for pooling in need.poolings},
        normalize=always or bool(recipe.default_normalize if normalize is None else normalize),
        honours_normalize=recipe.honours_normalize and not always,
    )


def _request_poolings(recipe: Recipe) -> tuple[Pooling, ...]:
    """The poolings that a request's `pooling` option can choose for this adapter."""
    if recipe.pooling_otherwise is None or recipe.pooling_otherwise == recipe.default_pooling != "mean":
        return ()
    return tuple(dict.fromkeys((*recipe.pooling_override.values(), recipe.pooling_otherwise)))


def token_limit(profile: ResolvedProfile, recipe: Recipe, facts: CheckpointFacts | None) -> int:
    """Where text is truncated, special tokens included: the least of what bundle, tokenizer and positions allow.

    sentence-transformers sets its own limit from the bundle alone; without one the repository's setting holds.
    """
    limits: list[int] = []
    declared = profile.token_limit
    if declared:
        limits.append(int(declared))
    if facts:
        if recipe.name == "sentence_transformer_dense" and facts.sentence:
            if not declared and facts.sentence.max_seq_length:
                limits.append(facts.sentence.max_seq_length)
        elif facts.tokenizer_max_length:
            limits.append(facts.tokenizer_max_length)
        if facts.max_positions:
            limits.append(facts.max_positions)
    if not limits:
        raise DiagnosticError(
            [
                Diagnostic(
                    "SIE212",
                    f"nothing says how many tokens `{profile.model_id}` takes",
                    None,
                    "add `max_sequence_length` to the bundle",
                )
            ]
        )
    return min(limits)


def _prompt(profile: ResolvedProfile, recipe: Recipe, facts: CheckpointFacts | None) -> PromptPlan:
    runtime: Mapping[str, Any] = profile.runtime
    sentence = facts.sentence if facts else None
    prompts = sentence.prompts if sentence and recipe.prompting == "sentence_transformer" else {}
    default = sentence.default_prompt_name if sentence else None
    return PromptPlan(
        style=recipe.prompting,
        query_template=runtime.get("query_template", recipe.default_query_template),
        doc_template=runtime.get("doc_template", recipe.default_doc_template),
        prompts=prompts,
        default_prompt=prompts.get(default) if default else None,
        lowercase=bool(sentence and sentence.do_lower_case and recipe.prompting == "sentence_transformer"),
    )


def outputs_of(plan: TritonPlan) -> tuple[OutputType, ...]:
    """The output types that the plan computes, in the contract's order."""
    return ("dense",) if any(served.dense for served in plan.served) else ()
