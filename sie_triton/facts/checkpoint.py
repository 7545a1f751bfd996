"""`CheckpointFacts`: widths, limits, pipeline and settings of a checkpoint, out of its JSON files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where

from .card import CARD_NAME, ModelCard, read_card, whole_widths
from .files import read_json, read_object, unreadable, unsupported, weight_shapes
from .known_keys import FILES, check_keys
from .pipeline import Pipeline, activation_class, read_pipeline
from .routes import NO_LIMIT
from .transformer import TRANSFORMER_SETTINGS

# Models that count positions from `padding_idx + 1` lose that many of `max_position_embeddings`.
OFFSET_POSITIONS = frozenset({"roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "mpnet", "roberta-prelayernorm"})

SETTINGS_NAME = "config_sentence_transformers.json"
TOKENIZER_SETTINGS_NAME = "tokenizer_config.json"
STANFORD_NAME = "artifact.metadata"
"""Where ColBERT's own code keeps its markers and lengths, as JSON."""
MATRYOSHKA_KEY = "matryoshka_dimensions"
LATE_SETTINGS = (
    "query_prefix",
    "document_prefix",
    "query_length",
    "document_length",
    "attend_to_expansion_tokens",
    "do_query_expansion",
    "skiplist_words",
)


@dataclass(frozen=True, slots=True)
class SentenceSettings:
    """`config_sentence_transformers.json`: `prompts` are those with a text, `late` the keys of late interaction."""

    model_type: str | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    truncate_dim: int | None = None
    max_active_dims: int | None = None
    activation_fn: str | None = None
    late: Mapping[str, Any] = field(default_factory=dict)

    @property
    def default_prompt(self) -> str | None:
        """The prompt that goes in front of every text that no other prompt is named for."""
        return self.prompts.get(self.default_prompt_name) if self.default_prompt_name else None


@dataclass(frozen=True, slots=True)
class Matryoshka:
    """The widths that vectors may be cut to, descending, and which key of which file says so."""

    widths: tuple[int, ...] = ()
    file: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class CheckpointFacts:
    """Everything planning needs of a checkpoint.

    `stanford` is what ColBERT's own code wrote beside the weights, `card` what the model card says. `problems` say what
    in the sentence-transformers files is damaged, unknown or not compiled; only recipes that follow those files mind:
    they ask `followed` for the pipeline and get the problems instead.
    """

    folder: Path
    config: Mapping[str, Any]
    tokenizer_config: Mapping[str, Any]
    pipeline: Pipeline
    settings: SentenceSettings = field(default_factory=SentenceSettings)
    problems: Sequence[Diagnostic] = ()
    files: frozenset[str] = frozenset()
    weight_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    truncation_side: Literal["left", "right"] = "right"
    stanford: Mapping[str, Any] = field(default_factory=dict)
    card: ModelCard = field(default_factory=ModelCard)

    def followed(self, *model_types: str) -> Pipeline:
        """The pipeline, for a recipe that runs it and serves checkpoints of these types; raises `DiagnosticError`."""
        if self.problems:
            raise DiagnosticError(self.problems)
        found = self.settings.model_type
        if found is not None and found not in model_types:
            raise DiagnosticError(
                [
                    Diagnostic(
                        "SIE335",
                        f"the checkpoint is a `{found}` of sentence-transformers, this adapter serves "
                        + " or ".join(f"`{name}`" for name in model_types),
                        Where(self.folder / SETTINGS_NAME),
                        "name the adapter of its kind in `adapter_path`",
                    )
                ]
            )
        return self.pipeline

    @property
    def model_type(self) -> str:
        """The architecture family as transformers names it."""
        return str(self.config.get("model_type", ""))

    @property
    def architectures(self) -> tuple[str, ...]:
        """The classes of transformers that the checkpoint was saved from; the first one loads it."""
        named = self.config.get("architectures")
        return tuple(map(str, named)) if isinstance(named, list) else ()

    @property
    def generates(self) -> bool:
        """Whether the checkpoint was made for writing text, so that sentence-transformers pools its last token."""
        first = next(iter(self.architectures), "")
        return first.endswith("ForCausalLM") and self.config.get("is_causal", True) is not False

    @property
    def hidden_size(self) -> int | None:
        """Width of the token embeddings that leave the encoder."""
        for key in ("hidden_size", "dim", "d_model", "n_embd"):
            if isinstance(self.config.get(key), int):
                return int(self.config[key])
        return None

    @property
    def max_positions(self) -> int | None:
        """How many tokens the position embeddings allow, the padding offset taken off."""
        for key in ("max_position_embeddings", "n_positions", "max_trained_positions"):
            value = self.config.get(key)
            if isinstance(value, int) and value > 0:
                if self.model_type in OFFSET_POSITIONS:
                    pad = self.config.get("pad_token_id")
                    return value - (int(pad) if isinstance(pad, int) else 1) - 1
                return value
        return None

    @property
    def tokenizer_max_length(self) -> int | None:
        """The tokenizer's own limit in tokens, None where it has none."""
        value = self.tokenizer_config.get("model_max_length", self.tokenizer_config.get("max_len"))
        return int(value) if isinstance(value, int | float) and 0 < value < NO_LIMIT else None

    @property
    def sentence_limit(self) -> int | None:
        """The limit that sentence-transformers reads: the transformer's setting, else the tokenizer's."""
        return self.pipeline.limit or self.tokenizer_max_length

    @property
    def unread(self) -> tuple[str, ...]:
        """Settings files that sentence-transformers does not read either, because `modules.json` is missing."""
        names = (SETTINGS_NAME, *TRANSFORMER_SETTINGS)
        return () if self.pipeline.listed else tuple(name for name in names if name in self.files)

    @property
    def matryoshka(self) -> Matryoshka:
        """The widths that vectors may be cut to, from the configuration, else from the model card.

        `truncate_dim` does not count: it cuts every vector. Raises `DiagnosticError` if the value is not a list of
        widths.
        """
        if (named := self.config.get(MATRYOSHKA_KEY)) is not None:
            widths = whole_widths(named)
            if widths is None:
                raise unreadable(self.folder / "config.json", f"`{MATRYOSHKA_KEY}` is {named!r}, no list of widths")
            return Matryoshka(widths, "config.json", MATRYOSHKA_KEY)
        return Matryoshka(self.card.matryoshka, CARD_NAME, "matryoshka_dims") if self.card.matryoshka else Matryoshka()

    @property
    def late(self) -> dict[str, Any]:
        """What the checkpoint says about late interaction. SIE takes this from the bundle instead."""
        return {**self.settings.late, **self.pipeline.late}


def read_facts(folder: Path, weights: Sequence[Path] | None = None) -> CheckpointFacts:
    """Read the JSON files of a checkpoint; raises `DiagnosticError` for what cannot be read or built from.

    `weights` are the safetensors files that count (None: all of the folder).
    """
    pipeline, settings = Pipeline(listed=True), SentenceSettings()
    problems: list[Diagnostic] = []
    try:
        pipeline = read_pipeline(folder)
    except DiagnosticError as error:
        problems += error.diagnostics
    if pipeline.listed:
        try:
            settings = _settings(folder / SETTINGS_NAME)
        except DiagnosticError as error:
            problems += error.diagnostics
    tokenizer_config = read_object(folder / TOKENIZER_SETTINGS_NAME)
    return CheckpointFacts(
        folder=folder,
        config=read_object(folder / "config.json"),
        tokenizer_config=tokenizer_config,
        pipeline=pipeline,
        settings=settings,
        problems=tuple(problems),
        files=frozenset(path.name for path in folder.iterdir() if path.is_file()),
        weight_shapes=weight_shapes(sorted(folder.glob("*.safetensors")) if weights is None else weights),
        truncation_side=_truncation_side(folder, tokenizer_config),
        stanford=read_object(folder / STANFORD_NAME),
        card=read_card(folder),
    )


def _settings(path: Path) -> SentenceSettings:
    document = read_object(path)
    if problems := check_keys(document, FILES[SETTINGS_NAME], path, SETTINGS_NAME):
        raise DiagnosticError(problems)
    prompts = document.get("prompts") or {}
    if not isinstance(prompts, dict) or any(not isinstance(text, str | None) for text in prompts.values()):
        raise unreadable(path, "`prompts` does not map names to texts")
    default = document.get("default_prompt_name")
    if default is not None and not (isinstance(default, str) and default in prompts):
        raise unreadable(path, f"`default_prompt_name` is {default!r}, which `prompts` does not have")
    activation = document.get("activation_fn")
    return SentenceSettings(
        model_type=str(document["model_type"]) if document.get("model_type") else None,
        prompts={str(name): text for name, text in prompts.items() if text},
        default_prompt_name=default,
        truncate_dim=_positive(document, "truncate_dim", path),
        max_active_dims=_positive(document, "max_active_dims", path),
        activation_fn=str(activation) if activation else None,
        late={key: document[key] for key in LATE_SETTINGS if document.get(key) is not None},
    )


def _positive(document: Mapping[str, Any], key: str, path: Path) -> int | None:
    value = document.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise unreadable(path, f"`{key}` is {value!r}, not a positive whole number")
    return value


def _truncation_side(folder: Path, tokenizer_config: Mapping[str, Any]) -> Literal["left", "right"]:
    """The end at which a long text loses tokens, from the configuration, else from `tokenizer.json`."""
    path = folder / TOKENIZER_SETTINGS_NAME
    if problems := check_keys(tokenizer_config, FILES[TOKENIZER_SETTINGS_NAME], path, TOKENIZER_SETTINGS_NAME):
        raise DiagnosticError(problems)
    side = tokenizer_config.get("truncation_side")
    if side is None:
        document = read_json(folder / "tokenizer.json")
        truncation = document.get("truncation") if isinstance(document, dict) else None
        side = str(truncation.get("direction", "right")).lower() if isinstance(truncation, dict) else "right"
    if side == "left":
        return "left"
    if side != "right":
        raise unreadable(path, f"`truncation_side` is {side!r}, neither `left` nor `right`")
    return "right"


def activation(facts: CheckpointFacts) -> str:
    """What follows a reranker's single logit, as a class of `torch.nn`: what the checkpoint names, else a sigmoid.

    sentence-transformers 6 writes the function into its own settings, older releases into `config.json`. Raises
    `DiagnosticError` for a function that is not compiled.
    """
    nested = facts.config.get("sentence_transformers")
    named = (
        facts.settings.activation_fn
        or (nested.get("activation_fn") if isinstance(nested, Mapping) else None)
        or facts.config.get("sbert_ce_default_activation_function")
    )
    if named is None:
        return "Sigmoid"
    found = activation_class(named)
    if found is None:
        raise DiagnosticError([unsupported(facts.folder / SETTINGS_NAME, f"the activation `{named}` of a score")])
    return found
