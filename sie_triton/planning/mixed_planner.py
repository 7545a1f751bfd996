"""The plans of the modality `mixed`: one graph, from tokens and patches to vectors or scores."""

from __future__ import annotations

from collections.abc import Sequence

from sie_triton.bundle import Bundle, ResolvedProfile
from sie_triton.facts import CheckpointFacts
from sie_triton.planning.families import MixedRecipe, Recipe
from sie_triton.planning.mixed import mixed_inputs
from sie_triton.planning.plan import Fused, GraphOptions, GraphPlan, ServedPlan, TritonPlan, bucket_lengths
from sie_triton.planning.precisions import check_format, precisions_for
from sie_triton.planning.tensors import triton_model_name

MODALITY = "mixed"


def mixed_plans(
    bundle: Bundle,
    profiles: Sequence[tuple[ResolvedProfile, Recipe]],
    facts: CheckpointFacts | None,
    options: GraphOptions,
) -> tuple[TritonPlan, ...]:
    """One Triton model for each profile. Raises `DiagnosticError` for what cannot be planned."""
    return tuple(_plan(bundle, profile, recipe, facts, options) for profile, recipe in profiles)


def _plan(
    bundle: Bundle, profile: ResolvedProfile, recipe: Recipe, facts: CheckpointFacts | None, options: GraphOptions
) -> TritonPlan:
    assert isinstance(recipe, MixedRecipe), "no other recipe has this modality"
    need = recipe.need(bundle, profile, facts)
    (head,) = need.heads
    check_format(head, options, written_only=True)
    assert recipe.witness in head.told_by, f"{recipe.witness} does not know what `{head.kind}` gives"
    name = triton_model_name(profile.model_id)
    inputs = mixed_inputs(need.encoder.sighted)
    graph = GraphPlan(name, Fused(need.encoder, (head,)), inputs, head.outputs(need.width))
    return TritonPlan(
        name=name,
        inputs=inputs,
        outputs=graph.outputs,
        graphs=(graph,),
        steps=(),
        max_length=need.max_length,
        buckets=bucket_lengths(need.max_length),
        max_batch_tokens=profile.max_batch_tokens,
        served=(ServedPlan(profile, recipe, need.prompting, need.served),),
        format=options.format,
        layout="fused",
        precisions=precisions_for(profile, options),
        modality=MODALITY,
        truncation_side=facts.truncation_side if facts else "right",
    )
