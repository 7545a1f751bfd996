"""Rules on several configurations of one model, and on several model files in one version."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sie_triton.backends.received import ConfigTensor
from sie_triton.lint.config import ConfigFile
from sie_triton.lint.repository import CONFIG_NAME, CUSTOM_CONFIGS
from sie_triton.lint.rule import LintSubject, Problem, rule
from sie_triton.lint.wording import quoted

_MODEL_SUFFIXES = {"onnxruntime": (".onnx",), "pytorch": (".pt", ".pt2"), "tensorrt": (".plan",)}


def _is_variant(config: ConfigFile) -> bool:
    return config.path.parent.name == CUSTOM_CONFIGS


def _is_composing(s: LintSubject) -> bool:
    """Whether an ensemble wires the model, so that clients see the ensemble's signature instead."""
    return any(
        step.model_name == s.model.name
        for model in s.repository.models.values()
        for config in model.configs
        for step in config.message.ensemble_scheduling.step
    )


def _says(tensor: ConfigTensor) -> str:
    return f"{tensor.data_type} {list(tensor.dims)}"


@rule(
    "L121",
    "warning",
    title="a variant with another signature",
    explanation=(
        "`--model-config-name` chooses how a server runs a model. Where the variants differ in names, types or dims, "
        "clients that work with one server fail with the other."
    ),
    hint=f"write the inputs and outputs of `{CONFIG_NAME}`; a float16 graph can cast at its borders",
    scope="repository",
)
def _same_signature(s: LintSubject) -> Iterator[Problem]:
    default = s.model.default
    if default is None or not _is_variant(s.config) or _is_composing(s):
        return
    if (default.max_batch_size > 0) != (s.config.max_batch_size > 0):
        text = f"`max_batch_size` is {s.config.max_batch_size} here and {default.max_batch_size} in `{CONFIG_NAME}`"
        yield Problem(text, s.line("max_batch_size"))
    for ours, theirs in ((s.config.inputs, default.inputs), (s.config.outputs, default.outputs)):
        if not ours or not theirs:
            continue  # left to auto-complete
        there = {t.name: t for t in theirs}
        for tensor in ours:
            other = there.pop(tensor.name, None)
            if other is None:
                text = f"{tensor.role} `{tensor.name}` is not in `{CONFIG_NAME}`"
                yield Problem(text, s.tensor_line(tensor, "name"))
            elif _says(tensor) != _says(other):
                text = f"{tensor.role} `{tensor.name}` is {_says(tensor)} here and {_says(other)} in `{CONFIG_NAME}`"
                yield Problem(text, s.tensor_line(tensor))
        for name, tensor in there.items():
            yield Problem(f"{tensor.role} `{name}` of `{CONFIG_NAME}` is missing here", s.line(tensor.role))


@rule(
    "L321",
    "info",
    title="a variant that only some models of an ensemble have",
    explanation=(
        f"Where `{CUSTOM_CONFIGS}/NAME.pbtxt` is missing Triton takes `{CONFIG_NAME}`: steps on different devices "
        "copy their tensors between them."
    ),
    hint="add the variant to the composing model, or leave it if that is meant",
    scope="repository",
)
def _variants_complete(s: LintSubject) -> Iterator[Problem]:
    if not _is_variant(s.config):
        return
    for index, step in enumerate(s.config.message.ensemble_scheduling.step):
        model = s.repository.models.get(str(step.model_name))
        if model and not any(_is_variant(c) and c.path.name == s.config.path.name for c in model.configs):
            text = f"step {index}: `{model.name}` has no `{CUSTOM_CONFIGS}/{s.config.path.name}`"
            yield Problem(text, s.line("ensemble_scheduling", "step", index, "model_name"))


def _model_files(s: LintSubject, version: int) -> list[Path]:
    """Files, and folders, of one version that the model's backend could open."""
    suffixes = _MODEL_SUFFIXES.get(s.backend, ())
    folder = s.model.path / str(version)
    return sorted(p for p in folder.iterdir() if p.suffix in suffixes) if suffixes else []


@rule(
    "L614",
    "info",
    title="several model files and none chosen",
    explanation=(
        "A configuration without `default_model_filename` opens the backend's own file name, whatever else lies "
        "beside it."
    ),
    hint="write `default_model_filename`",
    scope="repository",
)
def _file_chosen(s: LintSubject) -> Iterator[Problem]:
    if s.config.message.default_model_filename or s.config.message.cc_model_filenames:
        return
    for version in s.model.served_versions(s.config):
        files = _model_files(s, version)
        if len(files) > 1:
            text = f"version {version} holds {quoted(p.name for p in files)}; without `default_model_filename` it is "
            yield Problem(f"{text}`{s.model.model_file(s.config)}`")


@rule(
    "L615",
    "info",
    title="a model file that no configuration opens",
    explanation="It is copied and kept with the repository and never served.",
    hint="name it in a configuration's `default_model_filename`, or remove it",
    scope="repository",
)
def _files_opened(s: LintSubject) -> Iterator[Problem]:
    opened = {s.model.model_file(c) for c in s.model.configs}
    opened |= {str(name) for c in s.model.configs for name in c.message.cc_model_filenames.values()}
    if len({s.model.backend(c) for c in s.model.configs}) > 1 or s.model.failures:
        return
    for version in s.model.served_versions(s.config):
        for file in _model_files(s, version):
            if file.name not in opened:
                yield Problem(f"no configuration opens `{file.name}`", path=file)
