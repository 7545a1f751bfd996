"""The row of an adapter: how its bundles are compiled and what their callers observe, or why they are not compiled.

What only one family has to say is in that family's file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sie_frontend.outputs.table import OutputType
from sie_frontend.text.entry import Prompting, PromptStyle, Queries, Usage

from sie_triton.bundle import Bundle, ResolvedProfile
from sie_triton.facts import CheckpointFacts
from sie_triton.planning.modules import PlannedHead, WitnessName
from sie_triton.planning.need import Need, mistake

Pooling = Literal["cls", "mean", "last_token"]
"""The poolings that a bundle or a request can name. A checkpoint's own modules know more."""
LimitSource = Literal["tokenizer", "sentence_transformers", "cross_encoder"]
TEMPLATE_OPTIONS = frozenset({"query_template", "doc_template", "default_instruction"})


@dataclass(frozen=True)
class Refusal:
    """Why a bundle is not compiled, as a sentence without its full stop."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class RecipeBase(ABC):
    """What is true of an adapter in every family; the families add what is theirs.

    `verdict` narrows `outputs` to those the bundle declares and fills in what the load-time options decide.
    """

    name: str
    """What tables print, and part of what an unchanged build is recognised by. Nothing is decided by it."""
    outputs: tuple[OutputType, ...]
    requires_text_message: str
    """The 400 message for an item without text, word for word."""
    witness: WitnessName
    """Which implementation the graphs are compared with."""
    prompting: PromptStyle = "template"
    """The rule that turns an item's text into the encoder's (section 3.4 for `template`, else section 7)."""
    limit_from: LimitSource = "tokenizer"
    """Whose limit holds beside those of the bundle and the positions: the tokenizer's; sentence-transformers', which
    counts only where the bundle names none; or its cross-encoder's, which is the same setting and always counts."""
    runs_sentence_transformers: bool = False
    """Whether SIE runs the checkpoint with sentence-transformers, so that all of its settings hold."""
    follows_modules: bool = False
    """Whether the modules that the checkpoint lists behind its transformer are applied."""
    checkpoint_prompts: bool = False
    """Whether the checkpoint's own prompts are put in front of texts."""
    runtime_options: frozenset[str] = frozenset()
    """Runtime options that the adapter reads, beside those that the server reads itself."""
    loadtime_options: frozenset[str] = frozenset()
    """Load-time options that the adapter reads, beside those that every adapter does."""
    default_pooling: Pooling | None = None
    """Pooling when the runtime options name none; None where the checkpoint or the recipe decides."""
    pooling_override: Mapping[str, Pooling] = field(default_factory=dict, hash=False)
    """Runtime `pooling` strings that have a meaning of their own."""
    pooling_otherwise: Pooling | None = None
    """What every other runtime `pooling` string means; None where the option is ignored."""
    pooling_by_request: bool = True
    """Whether a request's `pooling` option counts as the profile's does."""
    default_query_template: str | None = None
    default_doc_template: str | None = None
    default_normalize: bool = True
    honours_normalize: bool = False
    """Whether the runtime option `normalize` has an effect."""
    usage_counts: Usage = "processed"
    """Tokens billed: those the encoder processed, those of the item's raw text, or those without special tokens."""
    queries: Queries = "like_items"
    """What a query is read by that has images beside its text."""
    request_limit: bool = False
    """Whether a request's `max_seq_length` lowers the truncation length of a text or pair."""
    loads_remote_code: bool = False
    """Whether the adapter loads the architecture through the hub, so that the YAML's `trust_remote_code` matters."""
    needs_remote_code: bool = False
    """Whether this profile asks for the checkpoint's own code; an architecture we know ourselves does without it."""
    loads_lora: bool = False
    """Whether the adapter loads a LoRA that a profile names; its weights are merged when the checkpoint is read."""
    reads_append_eos: bool = False
    """Whether the load-time option `append_eos` has an effect."""
    append_eos: bool = False
    """Whether the EOS text is appended to the prepared text before tokenization."""
    extra_files: tuple[str, ...] = ()
    """Files beside the weights that the recipe cannot do without."""
    stand_ins: Mapping[tuple[str, ...], str] = field(default_factory=dict, hash=False)
    """For an adapter that serves several families: whose row counts for each other set of encode outputs that a bundle
    may declare. For its own outputs, each profile must then spell its pooling out."""
    backends: Mapping[str, RecipeBase] = field(default_factory=dict, hash=False)
    """Whose row counts for a load-time `backend` of that name; any other means the adapter's own."""
    modalities: tuple[str, ...] = ("text",)
    """What its items may be made of: each is an input of its own, with a public Triton model of its own."""
    joins: bool = False
    """Whether one row reads all that an item has, of whichever of its modalities: then they are one input, `mixed`."""
    optional_files: tuple[str, ...] = ()
    """Files beside the weights that are taken along where there are such."""
    notes: str = ""

    @abstractmethod
    def need(self, bundle: Bundle, profile: ResolvedProfile, facts: CheckpointFacts | None) -> Need[PlannedHead]:
        """What a profile asks for. `facts` is None while the checkpoint is not at hand.

        Raises `DiagnosticError` for what cannot be planned.
        """

    @property
    def reads_pooling(self) -> bool:
        """Whether the option `pooling` has an effect: an adapter that has one pooling ignores it."""
        return self.pooling_otherwise is not None or bool(self.pooling_override)

    def pooling_for(self, runtime_pooling: object) -> Pooling | None:
        """The pooling of a call whose merged runtime option `pooling` is this; None (not given, null): the default."""
        if runtime_pooling is None or self.pooling_otherwise is None:
            return self.default_pooling
        if isinstance(runtime_pooling, str) and runtime_pooling in self.pooling_override:
            return self.pooling_override[runtime_pooling]
        return self.pooling_otherwise

    def token_limit(self, profile: ResolvedProfile, facts: CheckpointFacts | None) -> int:
        """Where text is truncated, special tokens included: the least of what bundle, tokenizer and positions allow.

        Raises `DiagnosticError` if none of them says anything.
        """
        declared = profile.token_limit
        limits = [declared, *(self._checkpoint_limits(declared, facts) if facts else ())]
        known = [int(limit) for limit in limits if limit]
        if not known:
            raise mistake(
                "SIE212", f"nothing says how many tokens `{profile.model_id}` takes", "add `max_sequence_length`"
            )
        return min(known)

    def _checkpoint_limits(self, declared: int | None, facts: CheckpointFacts) -> tuple[int | None, ...]:
        match self.limit_from:
            case "tokenizer":
                setting = facts.tokenizer_max_length
            case "sentence_transformers":
                setting = None if declared else facts.sentence_limit
            case "cross_encoder":
                setting = facts.sentence_limit
        return setting, facts.max_positions

    def prompting_rule(self, facts: CheckpointFacts | None) -> Prompting:
        """The manifest's rule for text, with what the checkpoint adds to it."""
        settings = facts.settings if facts and self.checkpoint_prompts else None
        return Prompting(
            style=self.prompting,
            # The bundle's templates are among the runtime options of its profiles, which every call starts from.
            query_template=self.default_query_template,
            doc_template=self.default_doc_template,
            prompts=dict(settings.prompts) if settings else {},
            default_prompt=settings.default_prompt if settings else None,
            suffix=_end_of_sequence(facts) if self.append_eos else "",
        )


def requires_text(name: str) -> str:
    """The message of an adapter that calls itself `name`."""
    return f"{name} requires text input"


def _end_of_sequence(facts: CheckpointFacts | None) -> str:
    """The text of the tokenizer's end-of-sequence token, which its configuration gives plain or as a map."""
    token = facts.tokenizer_config.get("eos_token") if facts else None
    return str(token["content"] if isinstance(token, Mapping) else token or "")
