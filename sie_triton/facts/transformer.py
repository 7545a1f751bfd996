"""`sentence_bert_config.json` and its older names: what sentence-transformers sets on the transformer itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where

from .files import read_object, unreadable, unsupported
from .known_keys import FILES, check_keys

MessageFormat: TypeAlias = Literal["flat", "structured"]
# sentence-transformers looks for the transformer's settings under these names, in this order.
TRANSFORMER_SETTINGS = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
TASKS: Mapping[str, str] = {
    "feature-extraction": "last_hidden_state",
    "fill-mask": "logits",
    "sequence-classification": "logits",
    "text-generation": "logits",
}


@dataclass(frozen=True, slots=True)
class TransformerSettings:
    """How the transformer of a pipeline is run. `limit` is in tokens; `late` holds what is said of late interaction.

    `message_format` is how a chat template is given a pair, None where none reads it; `generation_prompt` whether the
    template ends where an answer begins.
    """

    task: str
    limit: int | None = None
    do_lower_case: bool = False
    late: Mapping[str, Any] = field(default_factory=dict)
    message_format: MessageFormat | None = None
    generation_prompt: bool = False


def read_transformer(folder: Path, path: str, task: str) -> TransformerSettings:
    """The settings in the transformer's folder `path`, whose class means `task` where they name none.

    Raises `DiagnosticError` for what is damaged, unknown or not compiled.
    """
    found = next((home for name in TRANSFORMER_SETTINGS if (home := folder / path / name).is_file()), None)
    if found is None:
        return TransformerSettings(task)
    config = read_object(found)
    if problems := [*check_keys(config, FILES["sentence_bert_config.json"], found, found.name)]:
        raise DiagnosticError(problems)
    task = str(config.get("transformer_task") or task)
    _check_arguments(config, found, chats=task == "text-generation")
    message_format = _check_output(config, task, found)
    limit = config.get("max_seq_length")
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit <= 0):
        raise unreadable(found, f"`max_seq_length` is {limit!r}, not a number of tokens")
    return TransformerSettings(
        task=task,
        limit=limit,
        do_lower_case=bool(config.get("do_lower_case", False)),
        late={key: config[key] for key in ("query_length", "document_length", "query_expansion") if config.get(key)},
        message_format=message_format,
        generation_prompt=bool(_chat_arguments(config).get("add_generation_prompt", False)),
    )


def _chat_arguments(config: Mapping[str, Any]) -> Mapping[str, Any]:
    arguments = (config.get("processing_kwargs") or {}).get("chat_template")
    return arguments if isinstance(arguments, dict) else {}


def _check_arguments(config: Mapping[str, Any], path: Path, *, chats: bool) -> None:
    """Arguments of the tokenizer's call: of a chat template, whether it ends where an answer begins."""
    given = config.get("processing_kwargs") or {}
    known = chats and isinstance(given, dict) and set(given) <= {"chat_template"}
    if given and not (known and set(_chat_arguments(config)) <= {"add_generation_prompt"}):
        why = "arguments of the tokenizer's call, which are not compiled"
        text = f"`{path.name}` sets `processing_kwargs` to {given!r}: {why}"
        raise DiagnosticError([Diagnostic("SIE337", text, Where(path), "use a checkpoint without it")])


def _check_output(config: Mapping[str, Any], task: str, path: Path) -> MessageFormat | None:
    """Text must be passed to `forward`, and the task's ordinary output must be used.

    Returns how messages are passed: to a language model, and to nothing else.
    """
    if task not in TASKS:
        raise DiagnosticError([unsupported(path, f"a transformer for the task `{task}`")])
    modalities = config.get("modality_config")
    if modalities is None:
        return None
    plain = {"method": "forward", "method_output_name": TASKS[task]}
    given = modalities if isinstance(modalities, dict) else {}
    message = dict(given.get("message") or {}) if task == "text-generation" else None
    form = message.pop("format", None) if message else None
    if given.get("text") != plain or ("message" in given and (message != plain or form not in ("flat", "structured"))):
        raise DiagnosticError([unsupported(path, f"`modality_config` {modalities!r}, which is no plain text path")])
    return form
