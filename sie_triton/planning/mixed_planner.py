"""The plans of the modality `mixed`: one graph, from tokens and patches to vectors or scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sie_triton.bundle import Bundle, ResolvedProfile
from sie_triton.facts import CheckpointFacts
from sie_triton.planning.families import MixedRecipe, Recipe
from sie_triton.planning.families.mixed import MixedHead
from sie_triton.planning.mixed import mixed_inputs
from sie_triton.planning.need import Need
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
    """Profiles that ask the same of the graph share one Triton model. Raises `DiagnosticError`."""
    groups: dict[object, list[_MixedMember]] = {}
    for profile, recipe in profiles:
        assert isinstance(recipe, MixedRecipe), "no other recipe has this modality"
        member = _MixedMember(profile, recipe, recipe.need(bundle, profile, facts))
        groups.setdefault(member.shared(options), []).append(member)
    return tuple(_plan(members, facts, options) for members in groups.values())


@dataclass(frozen=True, slots=True)
class _MixedMember:
    """A profile with what it asks for."""

    profile: ResolvedProfile
    recipe: MixedRecipe
    need: Need[MixedHead]

    def shared(self, options: GraphOptions) -> object:
        """What must be equal for two profiles to share their graph."""
        precisions = tuple(precisions_for(self.profile, options).items())
        need = self.need
        said = self.recipe.default_instruction(self.profile)
        return (need.encoder, need.heads, need.max_length, self.profile.max_batch_tokens, precisions, said)


def _plan(members: Sequence[_MixedMember], facts: CheckpointFacts | None, options: GraphOptions) -> TritonPlan:
    profile, recipe, need = members[0].profile, members[0].recipe, members[0].need
    (head,) = need.heads
    check_format(head, options, written_only=True)
    assert recipe.witness in head.told_by, f"{recipe.witness} does not know what `{head.kind}` gives"
    name = triton_model_name(profile.model_id)
    inputs = mixed_inputs(need.encoder.sighted, windows=recipe.windows)
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
        served=tuple(ServedPlan(one.profile, one.recipe, one.need.prompting, one.need.served) for one in members),
        format=options.format,
        layout="fused",
        precisions=precisions_for(profile, options),
        engine=options.engine,
        modality=MODALITY,
        truncation_side=facts.truncation_side if facts else "right",
    )
