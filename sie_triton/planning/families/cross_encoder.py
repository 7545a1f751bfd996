"""Scores of pairs by a sequence-classification head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from sie_frontend.outputs.pair_score import CrossEncoderHead
from sie_frontend.outputs.table import OutputType
from sie_frontend.text.entry import PromptStyle

from sie_triton.bundle import Bundle, ResolvedProfile
from sie_triton.diagnostics import DiagnosticError
from sie_triton.facts import CheckpointFacts
from sie_triton.facts.checkpoint import activation
from sie_triton.facts.files import unsupported
from sie_triton.planning.modules import Encoder, PlannedHead, WitnessName
from sie_triton.planning.need import Need, mistake
from sie_triton.planning.recipe import LimitSource, RecipeBase, requires_text
from sie_triton.planning.tensors import Axis, Tensor

# The last layer of a classification head, by the names that transformers' architectures give it.
CLASSIFIER_WEIGHTS = ("classifier.weight", "classifier.out_proj.weight", "score.weight")


@dataclass(frozen=True, slots=True)
class Classifier(PlannedHead):
    """A sequence-classification head with one label, `[batch, 1]`, and the class of `torch.nn` that follows it."""

    activation: str
    kind: Literal["score"] = "score"

    @property
    def told_by(self) -> tuple[WitnessName, ...]:
        """The witnesses that know it."""
        return ("cross_encoder",)

    def outputs(self, width: Axis) -> tuple[Tensor, ...]:
        """`[batch, 1]`."""
        return (Tensor("score", "FP32", ("batch", 1)),)


@dataclass(frozen=True, kw_only=True)
class CrossEncoderRecipe(RecipeBase):
    """Adapters that read a query and a document as one row."""

    name: str = "cross_encoder"
    outputs: tuple[OutputType, ...] = ("score",)
    witness: WitnessName = "cross_encoder"
    prompting: PromptStyle = "cross_encoder"
    limit_from: LimitSource = "cross_encoder"
    runs_sentence_transformers: bool = True
    request_limit: bool = True
    runtime_options: frozenset[str] = frozenset({"max_seq_length"})
    always_sigmoid: bool = False
    """Whether a sigmoid follows the logit, whatever function the checkpoint names."""

    def need(self, bundle: Bundle, profile: ResolvedProfile, facts: CheckpointFacts | None) -> Need[Classifier]:
        """One head with the function behind its logit."""
        config = facts.config if facts else {}
        labels = _label_count(facts) if facts else 1
        if labels != 1:
            raise mistake(
                "SIE214",
                f"`{profile.model_id}` has {labels} labels; a score needs exactly one",
                "use a reranker checkpoint",
            )
        return Need(
            encoder=Encoder("sequence_classification", token_types=int(config.get("type_vocab_size") or 0) > 1),
            heads=(Classifier("Sigmoid" if self.always_sigmoid or facts is None else _activation(facts)),),
            prompting=self.prompting_rule(facts),
            served={"score": CrossEncoderHead("score")},
            max_length=self.token_limit(profile, facts),
        )


def _label_count(facts: CheckpointFacts) -> int:
    """How many scores the head gives: what the configuration says, else the rows of its last layer."""
    config = facts.config
    if isinstance(config.get("num_labels"), int):
        return int(config["num_labels"])
    if labels := config.get("id2label"):
        return len(labels)
    shapes = (facts.weight_shapes.get(name, ()) for name in CLASSIFIER_WEIGHTS)
    return next((shape[0] for shape in shapes if len(shape) == 2), 1)


def _activation(facts: CheckpointFacts) -> str:
    """What follows the logit by the checkpoint's word."""
    pipeline = facts.followed("CrossEncoder")
    odd = f"the modules {pipeline} behind a reranker's transformer" if pipeline.steps else None
    if pipeline.listed and pipeline.task != "sequence-classification":
        odd = f"a transformer for `{pipeline.task}`, where a reranker needs `sequence-classification`"
    if facts.settings.default_prompt:
        odd = f"the prompt `{facts.settings.default_prompt}` in front of every pair"
    if odd:
        raise DiagnosticError([unsupported(facts.folder / "modules.json", odd)])
    return activation(facts)


CrossEncoderHeads: TypeAlias = Classifier
"""The heads of this family alone."""

ADAPTERS: dict[str, CrossEncoderRecipe] = {
    "CrossEncoderAdapter": CrossEncoderRecipe(
        requires_text_message=requires_text("CrossEncoder adapter"),
        request_limit=False,
        loads_remote_code=True,
        notes="`max_seq_length` is ignored",
    ),
    "BertFlashCrossEncoderAdapter": CrossEncoderRecipe(requires_text_message=requires_text("BertFlashCrossEncoder")),
    "ModernBertFlashCrossEncoderAdapter": CrossEncoderRecipe(
        requires_text_message=requires_text("ModernBertFlashCrossEncoder"), always_sigmoid=True
    ),
    "JinaFlashCrossEncoderAdapter": CrossEncoderRecipe(
        requires_text_message=requires_text("JinaFlashCrossEncoder"),
        always_sigmoid=True,
        loads_remote_code=True,
        notes="sigmoid in the model's dtype, then widened",
    ),
}
