"""The plans of the modality `image`: one graph, from the levels of prepared pictures to vectors."""

from __future__ import annotations

from collections.abc import Sequence

from sie_frontend.text.entry import Prompting

from sie_triton.bundle import Bundle, ResolvedProfile
from sie_triton.facts import CheckpointFacts
from sie_triton.planning.families import ImageTextRecipe, ProjectedImage, Recipe
from sie_triton.planning.families.image_text import Pictures, served_vector
from sie_triton.planning.modules import Encoder
from sie_triton.planning.plan import Fused, GraphOptions, GraphPlan, ServedPlan, TritonPlan
from sie_triton.planning.precisions import check_format, precisions_for
from sie_triton.planning.tensors import PIXELS, Axis, Tensor, triton_model_name

MODALITY = "image"


def image_plans(
    bundle: Bundle,
    profiles: Sequence[tuple[ResolvedProfile, Recipe]],
    facts: CheckpointFacts | None,
    options: GraphOptions,
) -> tuple[TritonPlan, ...]:
    """Profiles that compute in the same precisions, in runs of the same size, share one Triton model.

    Raises `DiagnosticError` for what cannot be planned.
    """
    groups: dict[object, list[tuple[ResolvedProfile, ImageTextRecipe]]] = {}
    for profile, recipe in profiles:
        assert isinstance(recipe, ImageTextRecipe), "no other recipe has this modality"
        key = (profile.max_batch_tokens, tuple(precisions_for(profile, options).items()))
        groups.setdefault(key, []).append((profile, recipe))
    return tuple(_plan(bundle, members, facts, options) for members in groups.values())


def _plan(
    bundle: Bundle,
    members: Sequence[tuple[ResolvedProfile, ImageTextRecipe]],
    facts: CheckpointFacts | None,
    options: GraphOptions,
) -> TritonPlan:
    profile, recipe = members[0]
    pictures = recipe.pictures(bundle, profile, facts)
    head = ProjectedImage()
    check_format(head, options)
    assert recipe.witness in head.told_by, f"{recipe.witness} does not know what `{head.kind}` gives"
    name = triton_model_name(profile.model_id, MODALITY)
    inputs = (Tensor(PIXELS, "UINT8", ("batch", *_edges(pictures), 3)),)
    graph = GraphPlan(name, Fused(Encoder(pixels=pictures.pixels), (head,)), inputs, head.outputs(pictures.width))
    return TritonPlan(
        name=name,
        inputs=inputs,
        outputs=graph.outputs,
        graphs=(graph,),
        steps=(),
        max_length=1,
        buckets=(1,),
        max_batch_tokens=profile.max_batch_tokens,
        served=tuple(ServedPlan(p, r, Prompting("plain"), {"dense": served_vector()}) for p, r in members),
        format=options.format,
        layout="fused",
        precisions=precisions_for(profile, options),
        modality=MODALITY,
        row_tokens=pictures.tokens,
    )


def _edges(pictures: Pictures) -> tuple[Axis, Axis]:
    size = pictures.pixels.size if pictures.pixels else None
    return size or "height", size or "width"
