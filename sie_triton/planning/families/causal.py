"""Scores of pairs by a causal language model: the logits of its answer at the end of a prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec
from sie_frontend.outputs.pair_score import CausalHead
from sie_frontend.outputs.table import OutputType
from sie_frontend.text.entry import CausalPrompt

from sie_triton.bundle import Bundle, ResolvedProfile
from sie_triton.diagnostics import DiagnosticError
from sie_triton.facts import CheckpointFacts, answers, read_answer
from sie_triton.facts.pipeline import AnswerStep
from sie_triton.planning.modules import Encoder, PlannedHead, WitnessName
from sie_triton.planning.need import Need
from sie_triton.planning.recipe import RecipeBase, requires_text
from sie_triton.planning.tensors import Axis, Tensor

# zerank scores a pair by the logit of this token.
ZERANK_TOKEN = "Yes"
ZERANK_ID = 9454


@dataclass(frozen=True, slots=True)
class LastTokenLogits(PlannedHead):
    """Logits of one or two tokens at the last position, `[batch, 1]`: their difference, P(yes), or the one logit."""

    yes: str
    no: str | None
    mode: Literal["difference", "probability", "logit"]
    kind: Literal["score"] = "score"

    @property
    def told_by(self) -> tuple[WitnessName, ...]:
        """The witnesses that know it."""
        return ("causal_model", "mixed_model")

    def outputs(self, width: Axis) -> tuple[Tensor, ...]:
        """`[batch, 1]`."""
        return (Tensor("score", "FP32", ("batch", 1)),)


@dataclass(frozen=True, kw_only=True)
class CausalRecipe(RecipeBase):
    """Adapters that put a pair into a prompt and read the next token's logits."""

    outputs: tuple[OutputType, ...] = ("score",)
    witness: WitnessName = "causal_model"
    request_limit: bool = True
    runtime_options: frozenset[str] = frozenset({"max_seq_length"})
    is_zerank: bool = False
    """Whether the checkpoint says prompt and answer, or else zerank does; if not, the load-time options choose them."""

    def need(self, bundle: Bundle, profile: ResolvedProfile, facts: CheckpointFacts | None) -> Need[LastTokenLogits]:
        """One head on the answer tokens, and the prompt that they answer."""
        head, prompt = self._asked(profile, facts)
        return Need(
            encoder=Encoder("causal_lm"),
            heads=(head,),
            prompting=msgspec.structs.replace(self.prompting_rule(facts), causal=prompt),
            served={"score": CausalHead("score")},
            max_length=self.token_limit(profile, facts),
        )

    def _asked(self, profile: ResolvedProfile, facts: CheckpointFacts | None) -> tuple[LastTokenLogits, CausalPrompt]:
        """By the checkpoint's own modules where the adapter runs them and they say it, else by what was published.

        Raises `DiagnosticError` where they say what is not compiled.
        """
        if not self.is_zerank:
            return _chosen(profile)
        if facts is None or not answers(facts):
            return _zerank()
        try:
            said = read_answer(facts)
        except DiagnosticError:
            # Of this one checkpoint the prompt is known, whatever its template does.
            if _is_published_zerank(facts):
                return _zerank()
            raise
        return LastTokenLogits(said.yes, said.no, said.mode), CausalPrompt("template", parts=said.parts)


def _is_published_zerank(facts: CheckpointFacts) -> bool:
    asked = [(step.true_id, step.false_id) for step in facts.pipeline.steps if isinstance(step, AnswerStep)]
    return asked == [(ZERANK_ID, None)]


def _zerank() -> tuple[LastTokenLogits, CausalPrompt]:
    return LastTokenLogits(ZERANK_TOKEN, None, "logit"), CausalPrompt("zerank")


def _chosen(profile: ResolvedProfile) -> tuple[LastTokenLogits, CausalPrompt]:
    """By the options that SIE's adapter is constructed with."""
    options = profile.loadtime
    head = LastTokenLogits(
        str(options.get("yes_token", "1")),
        str(options.get("no_token", "0")),
        "probability" if options.get("score_mode") == "log_softmax" else "difference",
    )
    prompt: Literal["qwen3", "mxbai"] = "qwen3" if options.get("input_format") == "qwen3" else "mxbai"
    return head, CausalPrompt(prompt, options.get("default_instruction"))


CausalHeads: TypeAlias = LastTokenLogits
"""The heads of this family alone."""

ADAPTERS: dict[str, CausalRecipe] = {
    "Qwen2FlashCrossEncoderAdapter": CausalRecipe(
        name="causal_cross_encoder",
        requires_text_message=requires_text("Qwen2FlashCrossEncoder"),
        prompting="causal_cross_encoder",
        loadtime_options=frozenset({"yes_token", "no_token", "input_format", "score_mode", "default_instruction"}),
        notes="blank text is refused as missing text is",
    ),
    "NativeCausalCrossEncoderAdapter": CausalRecipe(
        name="native_causal_cross_encoder",
        requires_text_message="Native causal CrossEncoder accepts text-only query and document items",
        prompting="native_causal_cross_encoder",
        is_zerank=True,
        notes="an instruction is refused",
    ),
}
