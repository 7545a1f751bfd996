"""Resolved profiles and the checkpoint's facts -> `TritonPlan`s: which profiles share graphs, how those are wired."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sie_triton.bundle import Bundle, ResolvedProfile
from sie_triton.diagnostics import DiagnosticError
from sie_triton.facts import CheckpointFacts
from sie_triton.formats import FORMATS, Format
from sie_triton.planning.effects import check_effects
from sie_triton.planning.families import HeadModule, Recipe
from sie_triton.planning.image_planner import image_plans
from sie_triton.planning.mixed_planner import MODALITY as MIXED
from sie_triton.planning.mixed_planner import mixed_plans
from sie_triton.planning.need import Need
from sie_triton.planning.plan import (
    Fused,
    GraphOptions,
    GraphPlan,
    Layout,
    ServedPlan,
    Step,
    TritonPlan,
    bucket_lengths,
)
from sie_triton.planning.precisions import check_answerable, check_format, precisions_for
from sie_triton.planning.tensors import (
    ATTENTION_MASK,
    HIDDEN,
    INPUT_IDS,
    TOKEN_TYPE_IDS,
    Axis,
    Tensor,
    triton_model_name,
)


@dataclass(frozen=True, slots=True)
class _Member:
    """A profile with what it asks for. Those that ask the same of the graphs share a Triton model."""

    profile: ResolvedProfile
    recipe: Recipe
    need: Need[HeadModule]
    warnings: tuple[str, ...]

    def shared(self, options: GraphOptions) -> object:
        """What must be equal for two profiles to share their graphs."""
        heads = tuple(head.shared() for head in self.need.heads)
        precisions = tuple(precisions_for(self.profile, options).items())
        return (self.need.encoder, heads, self.need.max_length, self.profile.max_batch_tokens, precisions)


Profiles: TypeAlias = Sequence[tuple[ResolvedProfile, Recipe]]
PlansProfiles: TypeAlias = Callable[[Bundle, Profiles, "CheckpointFacts | None", GraphOptions], tuple[TritonPlan, ...]]
"""The plans of one modality of one bundle. Raises `DiagnosticError` for what cannot be planned."""


def make_plans(
    bundle: Bundle, profiles: Profiles, facts: CheckpointFacts | None, options: GraphOptions | None = None
) -> tuple[TritonPlan, ...]:
    """Plan the profiles of one bundle, each of its modalities by itself.

    `facts` is None while the checkpoint is not at hand: widths are then named axes and limits the bundle's.
    Raises `DiagnosticError` for what cannot be planned.
    """
    options = options or GraphOptions()
    served: dict[str, list[tuple[ResolvedProfile, Recipe]]] = {}
    for profile, recipe in profiles:
        read = [modality for modality in recipe.modalities if modality in bundle.inputs]
        for modality in (MIXED,) if recipe.joins else read:
            served.setdefault(modality, []).append((profile, recipe))
    plans = tuple(plan for m, those in served.items() for plan in PLANNERS[m](bundle, those, facts, options))
    for plan in plans:
        check_answerable(plan)
    return plans


def text_plans(
    bundle: Bundle, profiles: Profiles, facts: CheckpointFacts | None, options: GraphOptions
) -> tuple[TritonPlan, ...]:
    """Profiles that need the same graphs share one Triton model, one copy of the weights."""
    groups: dict[object, list[_Member]] = {}
    for profile, recipe in profiles:
        need: Need[HeadModule] = recipe.need(bundle, profile, facts)
        member = _Member(profile, recipe, need, _warnings(bundle, profile, recipe, need, facts))
        groups.setdefault(member.shared(options), []).append(member)
    return tuple(_plan(members, facts, options) for members in groups.values())


def _warnings(
    bundle: Bundle, profile: ResolvedProfile, recipe: Recipe, need: Need[HeadModule], facts: CheckpointFacts | None
) -> tuple[str, ...]:
    """What the bundle asks for without effect; raises `DiagnosticError` where something else would come out."""
    found, problems = check_effects(bundle, profile, recipe, pooling=need.pooling, unit=need.unit)
    if problems:
        raise DiagnosticError(problems)
    declared = profile.token_limit
    if declared and declared > need.max_length:
        cut = f"texts of `{profile.model_id}` are cut at {need.max_length} tokens, not at {declared}"
        found = (*found, f"{cut}: the checkpoint reads no more")
    if facts and recipe.runs_sentence_transformers:
        unread = (
            f"`{name}` has no effect: sentence-transformers reads it beside `modules.json` only"
            for name in facts.unread
        )
        found = (*found, *unread)
    return found


def _plan(members: Sequence[_Member], facts: CheckpointFacts | None, options: GraphOptions) -> TritonPlan:
    profile, recipe, need = members[0].profile, members[0].recipe, members[0].need
    name = triton_model_name(profile.model_id)
    heads: tuple[HeadModule, ...] = tuple(
        head.joined([member.need.heads[place] for member in members]) for place, head in enumerate(need.heads)
    )
    for head in heads:
        check_format(head, options)
        assert recipe.witness in head.told_by, f"{recipe.witness} does not know what `{head.kind}` gives"
    graphs, layout = _graphs(profile.model_id, need, heads, facts, options)
    # A graph that has the public model's own name needs no ensemble around it.
    steps = () if graphs[0].triton_model == name else tuple(_step(graph, options.format) for graph in graphs)
    return TritonPlan(
        name=name,
        inputs=graphs[0].inputs,
        outputs=tuple(tensor for graph in graphs for tensor in graph.outputs if tensor.name != HIDDEN),
        graphs=graphs,
        steps=steps,
        max_length=need.max_length,
        buckets=(need.max_length,) if need.encoder.padded else bucket_lengths(need.max_length),
        max_batch_tokens=profile.max_batch_tokens,
        served=tuple(_served(member, heads) for member in members),
        query_weights=need.query_weights,
        format=options.format,
        layout=layout,
        precisions=precisions_for(profile, options),
        engine=options.engine,
        packing=options.packing and not any(member.need.reads_padding for member in members),
        traced=options.traced,
        truncation_side=facts.truncation_side if facts else "right",
        warnings=tuple(dict.fromkeys(text for member in members for text in member.warnings)),
        spelling=need.spelling,
        framing=need.framing,
        lowercase=bool(facts and recipe.runs_sentence_transformers and facts.pipeline.do_lower_case),
    )


def _served(member: _Member, heads: Sequence[HeadModule]) -> ServedPlan:
    """One id, which reads the tensors of graphs that others may share."""
    entries = member.need.served
    for head in heads:
        entries = head.named(entries)
    return ServedPlan(member.profile, member.recipe, member.need.prompting, entries)


def _graphs(
    model_id: str,
    need: Need[HeadModule],
    heads: tuple[HeadModule, ...],
    facts: CheckpointFacts | None,
    options: GraphOptions,
) -> tuple[tuple[GraphPlan, ...], Layout]:
    """The graphs and their layout. With one head there is nothing to prune: an ensemble would only cost its hop."""
    inputs = _token_inputs(need)
    layout: Layout = options.layout or ("fused" if len(heads) == 1 else "ensemble")
    if layout == "fused":
        outputs = tuple(tensor for head in heads for tensor in head.outputs(need.width))
        part = "fused" if FORMATS[options.format].indexed_names else None
        return (GraphPlan(triton_model_name(model_id, part), Fused(need.encoder, heads), inputs, outputs),), layout
    hidden: Axis = (facts.hidden_size if facts else None) or "hidden"
    states = Tensor(HIDDEN, "FP32", ("batch", "sequence", hidden))
    return (
        GraphPlan(triton_model_name(model_id, "encoder"), need.encoder, inputs, (states,)),
        *(
            GraphPlan(
                triton_model_name(model_id, head.kind),
                head,
                (states, *(tensor for tensor in inputs if tensor.name in head.reads)),
                head.outputs(need.width),
            )
            for head in heads
        ),
    ), layout


def _token_inputs(need: Need[HeadModule]) -> tuple[Tensor, ...]:
    """What the encoder reads of texts. Where padding counts there is no mask, and one length alone."""
    if need.encoder.padded:
        return (Tensor(INPUT_IDS, "INT64", ("batch", need.max_length)),)
    names = (INPUT_IDS, ATTENTION_MASK, *([TOKEN_TYPE_IDS] if need.encoder.token_types else []))
    return tuple(Tensor(name, "INT64", ("batch", "sequence")) for name in names)


def _step(graph: GraphPlan, graph_format: Format) -> Step:
    """The graph in the ensemble, under the names that its backend knows its tensors by."""
    called = FORMATS[graph_format].tensor_name
    return Step(
        graph.triton_model,
        {called(tensor.name, index): tensor.name for index, tensor in enumerate(graph.inputs)},
        {called(tensor.name, index): tensor.name for index, tensor in enumerate(graph.outputs)},
    )


PLANNERS: dict[str, PlansProfiles] = {"text": text_plans, "image": image_plans, MIXED: mixed_plans}
"""By modality. A process may add one of its own before it plans."""
