"""`modules.json` and the folders it names -> `Pipeline`: what runs behind the transformer, in order.

Reads what sentence-transformers 6 and its older releases write. Anything that is not understood becomes a diagnostic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias, TypeGuard

from sie_triton.diagnostics import Diagnostic, DiagnosticError

from .files import read_json, read_object, unreadable, unsupported
from .known_keys import FILES, MODULES, check_keys
from .routes import QueryTable, is_routed, read_routes
from .transformer import MessageFormat, read_transformer

# One of cls, max, mean, mean_sqrt_len, weightedmean, last_token, or several with `+` between them: their vectors stand
# side by side.
Pooling: TypeAlias = str
Level = Literal["token", "sentence"]

POOLINGS: Mapping[str, str] = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weightedmean",
    "lasttoken": "last_token",
}
# The order in which sentence-transformers joins the vectors of the older boolean keys.
BOOLEAN_POOLINGS: Mapping[str, str] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "last_token",
}
# Activations of torch that take no argument and give each number by itself.
ACTIVATIONS = frozenset(
    {
        "Identity",
        "Tanh",
        "ReLU",
        "ReLU6",
        "GELU",
        "Sigmoid",
        "SiLU",
        "Mish",
        "ELU",
        "SELU",
        "CELU",
        "LeakyReLU",
        "Hardtanh",
        "Hardswish",
        "Hardsigmoid",
        "Softplus",
        "Softsign",
        "LogSigmoid",
        "Tanhshrink",
        "Softshrink",
        "Hardshrink",
    }
)
LEVELS: Mapping[str, Level] = {"token_embeddings": "token", "sentence_embedding": "sentence"}
OTHER_ROUTES = "other modules for queries than for documents are not compiled in this place"
OURS = ("sentence_transformers.", "pylate.")


@dataclass(frozen=True, slots=True)
class DenseLayer:
    """A `Dense` module: `activation(linear(x))`, plus the input if `residual`; `folder` is relative to the checkpoint.

    `activation` is the name of a class of `torch.nn`.
    """

    folder: str
    in_features: int
    out_features: int
    bias: bool
    activation: str
    residual: bool = False


@dataclass(frozen=True, slots=True)
class LayerNormLayer:
    """A `LayerNorm` module; `folder` is relative to the checkpoint."""

    folder: str
    features: int


@dataclass(frozen=True, slots=True)
class NormalizeLayer:
    """A `Normalize` module: unit length."""


Layer: TypeAlias = DenseLayer | LayerNormLayer | NormalizeLayer


@dataclass(frozen=True, slots=True)
class LayerStep:
    """A layer and what it is applied to."""

    layer: Layer
    level: Level


@dataclass(frozen=True, slots=True)
class PoolingStep:
    """Token embeddings to one vector. Without `include_prompt` the prompt's tokens are not pooled."""

    mode: Pooling
    include_prompt: bool


@dataclass(frozen=True, slots=True)
class SpladeStep:
    """Logits to one weight for each word: `max` or `sum` over tokens of `log1p(relu)`, once or twice."""

    pooling: Literal["max", "sum"]
    double_log: bool


@dataclass(frozen=True, slots=True)
class MaskStep:
    """Which token vectors leave; what SIE's adapters do instead is the bundle's to say."""

    skiplist: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AnswerStep:
    """A `LogitScore` module: the last position's logit of one token, less that of another; its `folder` is relative."""

    folder: str
    true_id: int
    false_id: int | None


PipelineStep: TypeAlias = LayerStep | PoolingStep | SpladeStep | MaskStep | AnswerStep


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The modules of a checkpoint behind its transformer, and the transformer's own settings.

    `listed` is false without a `modules.json`: then sentence-transformers makes its default pipeline, and `steps` are
    empty. `limit` is in tokens. `late` holds what the files say about late interaction, by key. With a `query_table`,
    all of this is said of documents. `message_format` is how a chat template is given a pair, None where none reads it.
    """

    listed: bool
    steps: tuple[PipelineStep, ...] = ()
    task: str = "feature-extraction"
    limit: int | None = None
    do_lower_case: bool = False
    late: Mapping[str, Any] = field(default_factory=dict)
    query_table: QueryTable | None = None
    message_format: MessageFormat | None = None
    generation_prompt: bool = False

    def __str__(self) -> str:
        return ", ".join(_shown(step) for step in self.steps) or "nothing behind the transformer"


def _shown(step: PipelineStep) -> str:
    if isinstance(step, LayerStep):
        return type(step.layer).__name__.removesuffix("Layer")
    if isinstance(step, PoolingStep):
        return f"Pooling ({step.mode})"
    return {SpladeStep: "SpladePooling", AnswerStep: "LogitScore"}.get(type(step), "MultiVectorMask")


def read_pipeline(folder: Path) -> Pipeline:
    """What the files say; raises `DiagnosticError` for what is damaged, unknown or not compiled, all of it at once."""
    path = folder / "modules.json"
    modules = read_json(path)
    if modules is None:
        # Without the list sentence-transformers makes its default pipeline and reads none of the other files.
        return Pipeline(listed=False)
    entries, table = _entries(modules, path), None
    if is_routed(entries):
        entries, table = read_routes(folder, entries)
    reader = _PipelineReader(folder)
    for entry in entries:
        reader.read(entry)
    if reader.problems:
        raise DiagnosticError(reader.problems)
    found = Pipeline(listed=True, steps=tuple(reader.steps), task=reader.task, query_table=table)
    settings = read_transformer(folder, reader.transformer, found.task)
    return replace(
        found,
        task=settings.task,
        limit=settings.limit,
        do_lower_case=settings.do_lower_case,
        late=settings.late,
        message_format=settings.message_format,
        generation_prompt=settings.generation_prompt,
    )


def _entries(modules: object, path: Path) -> list[dict[str, Any]]:
    """The entries of `modules.json`, each with a path and a type. The order of the list counts, not `idx`."""
    if not isinstance(modules, list):
        raise unreadable(path, "it is no list of modules")
    for number, entry in enumerate(modules):
        if not isinstance(entry, dict):
            raise unreadable(path, f"entry {number} is no object with `name`, `path` and `type`")
        for key in ("path", "type"):
            if not isinstance(entry.get(key), str):
                raise unreadable(path, f"entry {number} has no `{key}`")
        parts = PurePosixPath(entry["path"]).parts
        if ".." in parts or entry["path"].startswith(("/", "\\")) or ":" in entry["path"]:
            raise unreadable(path, f"entry {number} has the path `{entry['path']}`, which leaves the checkpoint")
    if problems := [p for entry in modules for p in check_keys(entry, FILES["modules.json"], path, "modules.json")]:
        raise DiagnosticError(problems)
    return modules


class _PipelineReader:
    """Reads one module after the other and collects what is wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.transformer = ""
        self.task = "feature-extraction"
        self.steps: list[PipelineStep] = []
        self.problems: list[Diagnostic] = []
        self._first = True

    def read(self, entry: Mapping[str, Any]) -> None:
        """One entry of `modules.json`."""
        kind = self._kind(str(entry["type"]))
        first, self._first = self._first, False
        if kind is None or kind == "Dropout":
            return
        if kind in ("Transformer", "MLMTransformer"):
            if not first:
                self._refuse("a second transformer")
            self.transformer = str(entry["path"])
            self.task = "fill-mask" if kind == "MLMTransformer" else self.task
            return
        if first:
            self._refuse(f"`{kind}` as its first module, where a transformer is expected")
        home = self.folder / str(entry["path"])
        config = read_object(home / "config.json")
        self.problems += check_keys(config, FILES[f"{kind}/config.json"], home / "config.json", f"{kind}/config.json")
        try:
            step = _READERS[kind](config, str(entry["path"]), str(entry["type"]))
        except _Odd as odd:
            self._refuse(str(odd), home / "config.json")
            return
        self.steps.append(step)

    def _kind(self, class_path: str) -> str | None:
        """The module's class, or None, with a problem noted, if it is not supported."""
        kind = class_path.rpartition(".")[2]
        known = MODULES.get(kind)
        if not class_path.startswith(OURS):
            self._refuse(f"the module `{class_path}`, which is the checkpoint's own code")
        elif known is None:
            self._refuse(f"a `{kind}` module, which is not known here")
        elif kind in ("Router", "SparseStaticEmbedding"):
            self._refuse(f"a `{kind}` module: {OTHER_ROUTES}")
        elif known.outcome == "refused":
            self._refuse(f"a `{kind}` module: {known.why}")
        else:
            return kind
        return None

    def _refuse(self, what: str, path: Path | None = None) -> None:
        self.problems.append(unsupported(path or self.folder / "modules.json", what))


class _Odd(Exception):
    """A module's configuration that is not compiled; the text says what it has."""


def _level(config: Mapping[str, Any], default: str) -> Level:
    source = config.get("module_input_name") or default
    target = config.get("module_output_name") or source
    level = LEVELS.get(source) if isinstance(source, str) else None
    if level is None or target != source:
        raise _Odd(f"a module that reads `{source}` and writes `{target}`")
    return level


def _width(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise _Odd(f"a module whose `{key}` is {value!r}, not a number of features")
    return value


def _dense(config: Mapping[str, Any], path: str, class_path: str) -> LayerStep:
    pylate = class_path.startswith("pylate.")
    named = config.get("activation_function", "torch.nn.Identity" if pylate else "torch.nn.Tanh")
    layer = DenseLayer(
        folder=path,
        in_features=_width(config, "in_features"),
        out_features=_width(config, "out_features"),
        bias=bool(config.get("bias", True)),
        activation=_compiled_activation(named),
        residual=bool(config.get("use_residual", False)),
    )
    return LayerStep(layer, _level(config, "token_embeddings" if pylate else "sentence_embedding"))


def activation_class(named: object) -> str | None:
    """The class of `torch.nn` that a dotted path names, or None if it is not supported."""
    short = named.rpartition(".")[2] if isinstance(named, str) and named.startswith("torch.") else ""
    return short if short in ACTIVATIONS else None


def _compiled_activation(named: object) -> str:
    found = activation_class(named)
    if found is None:
        raise _Odd(f"the activation `{named}`")
    return found


def _normalize(config: Mapping[str, Any], path: str, class_path: str) -> LayerStep:
    return LayerStep(NormalizeLayer(), _level(config, "sentence_embedding"))


def _layer_norm(config: Mapping[str, Any], path: str, class_path: str) -> LayerStep:
    return LayerStep(LayerNormLayer(path, _width(config, "dimension")), "sentence")


def _pooling(config: Mapping[str, Any], path: str, class_path: str) -> PoolingStep:
    if "pooling_mode" in config:
        written = config["pooling_mode"]
        modes = [written] if isinstance(written, str) else written
        known = [POOLINGS.get(mode) for mode in modes if isinstance(mode, str)] if isinstance(modes, list) else []
        chosen = [mode for mode in known if mode is not None]
        if not chosen or len(chosen) < len(modes):
            raise _Odd(f"the pooling {written!r}")
    else:
        chosen = [mode for key, mode in BOOLEAN_POOLINGS.items() if config.get(key)] or ["mean"]
    return PoolingStep("+".join(chosen), include_prompt=config.get("include_prompt", True) is not False)


def _splade_pooling(config: Mapping[str, Any], path: str, class_path: str) -> SpladeStep:
    pooling = config.get("pooling_strategy", "max")
    activation = config.get("activation_function", "relu")
    if not _is_splade_pooling(pooling) or activation not in ("relu", "log1p_relu"):
        raise _Odd(f"a SpladePooling of `{pooling}` and `{activation}`")
    return SpladeStep(pooling, double_log=activation == "log1p_relu")


def _is_splade_pooling(value: object) -> TypeGuard[Literal["max", "sum"]]:
    return value in ("max", "sum")


def _mask(config: Mapping[str, Any], path: str, class_path: str) -> MaskStep:
    words = config.get("skiplist_words") or []
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise _Odd(f"a MultiVectorMask of the words {words!r}")
    return MaskStep(tuple(words))


def _logit_score(config: Mapping[str, Any], path: str, class_path: str) -> AnswerStep:
    ids = [config.get(key) for key in ("true_token_id", "false_token_id")]
    true_id, false_id = ids
    if not _is_id(true_id) or not (false_id is None or _is_id(false_id)):
        raise _Odd(f"a LogitScore of the tokens {ids}")
    if (source := config.get("module_input_name") or "causal_logits") != "causal_logits":
        raise _Odd(f"a LogitScore that reads `{source}`")
    return AnswerStep(path, true_id, false_id)


def _is_id(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


_READERS: Mapping[str, Callable[[Mapping[str, Any], str, str], PipelineStep]] = {
    "Dense": _dense,
    "Normalize": _normalize,
    "LayerNorm": _layer_norm,
    "Pooling": _pooling,
    "SpladePooling": _splade_pooling,
    "MultiVectorMask": _mask,
    "LogitScore": _logit_score,
}
