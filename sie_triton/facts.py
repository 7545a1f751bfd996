"""What a checkpoint says about itself, read from its JSON files without torch.

`config.json`, the sentence-transformers files and the tokenizer's configuration decide widths, limits and pooling.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where

Pooling = Literal["cls", "mean", "last_token"]

# Models that count positions from `padding_idx + 1` lose that many of `max_position_embeddings`.
OFFSET_POSITIONS = frozenset({"roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "mpnet", "roberta-prelayernorm"})

# A tokenizer that knows no limit writes a number of this size.
NO_LIMIT = 1_000_000_000


@dataclass(frozen=True, slots=True)
class DenseLayer:
    """A sentence-transformers `Dense` module: `activation(linear(x))`; `folder` is relative to the checkpoint."""

    folder: str
    in_features: int
    out_features: int
    bias: bool
    activation: str
    residual: bool = False


@dataclass(frozen=True, slots=True)
class SentenceModules:
    """The pipeline that `modules.json` lists after the transformer."""

    pooling: Pooling
    dense: tuple[DenseLayer, ...]
    normalize: bool
    max_seq_length: int | None
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    do_lower_case: bool = False


@dataclass(frozen=True, slots=True)
class CheckpointFacts:
    """Everything planning needs of a checkpoint.

    `sentence` is None without a `modules.json`, or if there is something in it that has no counterpart here: then
    `sentence_problem` says what. Only recipes that follow the file mind.
    """

    config: Mapping[str, Any]
    tokenizer_config: Mapping[str, Any]
    sentence: SentenceModules | None
    sentence_problem: Diagnostic | None = None
    files: frozenset[str] = frozenset()
    weight_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def model_type(self) -> str:
        """The architecture family as transformers names it."""
        return str(self.config.get("model_type", ""))

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
        value = self.tokenizer_config.get("model_max_length")
        return int(value) if isinstance(value, int | float) and 0 < value < NO_LIMIT else None


def read_facts(folder: Path) -> CheckpointFacts:
    """Read the JSON files of a checkpoint; raises `DiagnosticError` for what cannot be read or built from."""
    sentence, problem = None, None
    try:
        sentence = _sentence_modules(folder)
    except DiagnosticError as error:
        problem = error.diagnostics[0]
    return CheckpointFacts(
        config=_read_json(folder / "config.json") or {},
        tokenizer_config=_read_json(folder / "tokenizer_config.json") or {},
        sentence=sentence,
        sentence_problem=problem,
        files=frozenset(path.name for path in folder.iterdir() if path.is_file()),
        weight_shapes=_weight_shapes(folder),
    )


def _weight_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors in the folder's safetensors files, from their headers alone.

    A file starts with the header's length, eight bytes little-endian, and the header, JSON.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            try:
                header = json.loads(file.read(length))
            except ValueError as error:
                raise DiagnosticError(
                    [Diagnostic("SIE330", f"`{path.name}` is not a safetensors file: {error}", Where(path))]
                ) from None
        shapes.update({name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"})
    return shapes


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DiagnosticError(
            [Diagnostic("SIE330", f"cannot read `{path.name}`: {error}", Where(path), "fetch the checkpoint again")]
        ) from None


def _sentence_modules(folder: Path) -> SentenceModules | None:
    modules = _read_json(folder / "modules.json")
    if not modules:
        return None
    pooling: Pooling | None = None
    normalize = False
    dense: list[DenseLayer] = []
    transformer = ""
    for module in sorted(modules, key=lambda m: int(m["idx"])):
        kind = str(module["type"]).rsplit(".", 1)[-1]
        path = str(module["path"])
        if kind == "Transformer":
            transformer = path
        elif kind == "Pooling":
            pooling = _pooling_mode(folder, path)
        elif kind == "Dense":
            dense.append(_dense_layer(folder, path, pylate=str(module["type"]).startswith("pylate.")))
        elif kind == "Normalize":
            normalize = True
        elif kind == "SpladePooling":
            _check_splade_pooling(folder, path)
        elif kind == "MLMTransformer":
            transformer = path
        elif kind != "Dropout":
            raise DiagnosticError([_unsupported(folder, f"a `{kind}` module, which has no counterpart here")])
    settings = _read_json(folder / "config_sentence_transformers.json") or {}
    bert = _read_json(folder / transformer / "sentence_bert_config.json") or {}
    limit = bert.get("max_seq_length")
    return SentenceModules(
        pooling=pooling or "mean",
        dense=tuple(dense),
        normalize=normalize,
        max_seq_length=int(limit) if limit else None,
        prompts={str(k): str(v) for k, v in (settings.get("prompts") or {}).items() if v},
        default_prompt_name=settings.get("default_prompt_name"),
        do_lower_case=bool(bert.get("do_lower_case", False)),
    )


def _unsupported(folder: Path, what: str) -> Diagnostic:
    return Diagnostic(
        "SIE331",
        f"the checkpoint's sentence-transformers pipeline has {what}",
        Where(folder / "modules.json"),
        "pick a profile or a checkpoint with cls, mean or last-token pooling",
    )


def _pooling_mode(folder: Path, path: str) -> Pooling:
    config = _read_json(folder / path / "config.json") or {}
    modes = {
        "pooling_mode_cls_token": "cls",
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_lasttoken": "last_token",
    }
    named = {"cls": "cls", "mean": "mean", "lasttoken": "last_token"}.get(str(config.get("pooling_mode")))
    chosen = [named] if named else [mode for key, mode in modes.items() if config.get(key)]
    other = [key for key, value in config.items() if key.startswith("pooling_mode_") and value and key not in modes]
    if other or len(chosen) > 1 or ("pooling_mode" in config and not named):
        raise DiagnosticError([_unsupported(folder, f"the pooling {other or chosen or config['pooling_mode']!r}")])
    return chosen[0] if chosen else "mean"  # type: ignore[return-value]


def _check_splade_pooling(folder: Path, path: str) -> None:
    config = _read_json(folder / path / "config.json") or {}
    strategy, activation = config.get("pooling_strategy", "max"), config.get("activation_function", "relu")
    if strategy != "max" or activation != "relu":
        raise DiagnosticError([_unsupported(folder, f"a SpladePooling of `{strategy}` and `{activation}`")])


def _dense_layer(folder: Path, path: str, *, pylate: bool) -> DenseLayer:
    config = _read_json(folder / path / "config.json") or {}
    default = "Identity" if pylate else "Tanh"
    activation = str(config.get("activation_function", default)).rsplit(".", 1)[-1]
    if activation not in ("Identity", "Tanh", "ReLU", "GELU"):
        raise DiagnosticError([_unsupported(folder, f"a Dense layer with the activation `{activation}`")])
    return DenseLayer(
        folder=path,
        in_features=int(config["in_features"]),
        out_features=int(config["out_features"]),
        bias=bool(config.get("bias", True)),
        activation=activation,
        residual=bool(config.get("use_residual", False)),
    )
