"""The plans of the modality `image`: one graph, from the levels of prepared pictures to vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from sie_frontend.text.entry import Prompting

from sie_triton.bundle import Bundle, ResolvedProfile
from sie_triton.facts import CheckpointFacts
from sie_triton.planning.families import HeadModule, ImageTextRecipe, PageRecipe, Recipe
from sie_triton.planning.pictures import Pictures
from sie_triton.planning.plan import Fused, GraphOptions, GraphPlan, ServedPlan, TritonPlan
from sie_triton.planning.precisions import check_format, precisions_for
from sie_triton.planning.tensors import triton_model_name

MODALITY = "image"
Seeing: TypeAlias = ImageTextRecipe | PageRecipe
"""The recipes that have this modality."""


def image_plans(
    bundle: Bundle,
    profiles: Sequence[tuple[ResolvedProfile, Recipe]],
    facts: CheckpointFacts | None,
    options: GraphOptions,
) -> tuple[TritonPlan, ...]:
    """Profiles that compute the same in the same precisions, in runs of the same size, share one Triton model.

    Raises `DiagnosticError` for what cannot be planned.
    """
    groups: dict[object, list[tuple[ResolvedProfile, Seeing]]] = {}
    for profile, recipe in profiles:
        assert isinstance(recipe, Seeing), "no other recipe has this modality"
        seen = recipe.graph_key(bundle, profile)
        key = (profile.max_batch_tokens, tuple(precisions_for(profile, options).items()), seen)
        groups.setdefault(key, []).append((profile, recipe))
    return tuple(_plan(bundle, members, facts, options) for members in groups.values())


def _plan(
    bundle: Bundle,
    members: Sequence[tuple[ResolvedProfile, Seeing]],
    facts: CheckpointFacts | None,
    options: GraphOptions,
) -> TritonPlan:
    profile, recipe = members[0]
    pictures: Pictures[HeadModule] = recipe.pictures(bundle, profile, facts)
    head = pictures.head
    check_format(head, options)
    assert recipe.witness in head.told_by, f"{recipe.witness} does not know what `{head.kind}` gives"
    name = triton_model_name(profile.model_id, MODALITY)
    graph = GraphPlan(name, Fused(pictures.encoder, (head,)), pictures.inputs, head.outputs(pictures.width))
    return TritonPlan(
        name=name,
        inputs=pictures.inputs,
        outputs=graph.outputs,
        graphs=(graph,),
        steps=(),
        max_length=pictures.costs[-1],
        buckets=pictures.costs,
        max_batch_tokens=profile.max_batch_tokens,
        served=tuple(ServedPlan(p, r, Prompting("plain"), pictures.served) for p, r in members),
        format=options.format,
        layout="fused",
        precisions=precisions_for(profile, options),
        engine=options.engine,
        modality=MODALITY,
        row_tokens=pictures.row_tokens,
    )
