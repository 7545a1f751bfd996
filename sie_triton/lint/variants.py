"""Rules on several configurations of one model, and on several model files in one version."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from sie_triton.lint.config import Config, Tensor
from sie_triton.lint.instances import groups
from sie_triton.lint.repository import CONFIG_NAME, CUSTOM_CONFIGS
from sie_triton.lint.rule import Problem, Rule, Subject

_MODEL_SUFFIXES = {"onnxruntime": (".onnx",), "pytorch": (".pt", ".pt2"), "tensorrt": (".plan",)}
# On a CPU ONNX Runtime has kernels for few operators in half precision, and converts around the others.
_HALF = ("TYPE_FP16", "TYPE_BF16")


def _is_variant(config: Config) -> bool:
    return config.path.parent.name == CUSTOM_CONFIGS


def _is_composing(s: Subject) -> bool:
    """Whether an ensemble wires the model, so that clients see the ensemble's signature instead."""
    return any(
        step.model_name == s.model.name
        for model in s.repository.models.values()
        for config in model.configs
        for step in config.message.ensemble_scheduling.step
    )


def _says(tensor: Tensor) -> str:
    return f"{tensor.data_type} {list(tensor.dims)}"


def same_signature(s: Subject) -> Iterator[Problem]:
    """Clients see one signature, whatever configuration was chosen."""
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
                text = f"{tensor.kind} `{tensor.name}` is not in `{CONFIG_NAME}`"
                yield Problem(text, s.tensor_line(tensor, "name"))
            elif _says(tensor) != _says(other):
                text = f"{tensor.kind} `{tensor.name}` is {_says(tensor)} here and {_says(other)} in `{CONFIG_NAME}`"
                yield Problem(text, s.tensor_line(tensor))
        for name, tensor in there.items():
            yield Problem(f"{tensor.kind} `{name}` of `{CONFIG_NAME}` is missing here", s.line(tensor.kind))


def variants_complete(s: Subject) -> Iterator[Problem]:
    """The models of an ensemble's variant have that variant too."""
    if not _is_variant(s.config):
        return
    for index, step in enumerate(s.config.message.ensemble_scheduling.step):
        model = s.repository.models.get(str(step.model_name))
        if model and not any(_is_variant(c) and c.path.name == s.config.path.name for c in model.configs):
            text = f"step {index}: `{model.name}` has no `{CUSTOM_CONFIGS}/{s.config.path.name}`"
            yield Problem(text, s.line("ensemble_scheduling", "step", index, "model_name"))


def _model_files(s: Subject, version: int) -> list[Path]:
    """Files, and folders, of one version that the model's backend could open."""
    suffixes = _MODEL_SUFFIXES.get(s.backend, ())
    folder = s.model.path / str(version)
    return sorted(p for p in folder.iterdir() if p.suffix in suffixes) if suffixes else []


def file_chosen(s: Subject) -> Iterator[Problem]:
    """Where there are several model files, the configuration says which."""
    if s.config.message.default_model_filename or s.config.message.cc_model_filenames:
        return
    for version in s.model.served_versions(s.config):
        files = _model_files(s, version)
        if len(files) > 1:
            there = ", ".join(f"`{p.name}`" for p in files)
            text = f"version {version} holds {there}; without `default_model_filename` it is "
            yield Problem(f"{text}`{s.model.model_file(s.config)}`")


def files_opened(s: Subject) -> Iterator[Problem]:
    """Every model file is opened by some configuration."""
    opened = {s.model.model_file(c) for c in s.model.configs}
    opened |= {str(name) for c in s.model.configs for name in c.message.cc_model_filenames.values()}
    if len({s.model.backend(c) for c in s.model.configs}) > 1 or s.model.failures:
        return
    for version in s.model.served_versions(s.config):
        for file in _model_files(s, version):
            if file.name not in opened:
                yield Problem(f"no configuration opens `{file.name}`", path=file)


def half_on_cpu(s: Subject) -> Iterator[Problem]:
    """Half precision is for GPUs."""
    if any(s.on_cpu(g.kind) for g in groups(s)):
        for graph in s.graphs:
            if graph.weights_type in _HALF:
                name = graph.weights_type.removeprefix("TYPE_")
                text = f"the weights of `{graph.path.name}` are {name}, and instances run on the CPU"
                yield Problem(text, s.line("instance_group"))


def gpu_copies(s: Subject) -> Iterator[Problem]:
    """Several GPU instances hold the weights several times."""
    shared = s.config.parameters.get("ENABLE_WEIGHT_SHARING", "").lower() in ("true", "1")
    if s.backend not in ("onnxruntime", "pytorch") or (s.backend == "pytorch" and shared):
        return
    for group in groups(s):
        if group.kind == "KIND_GPU" and group.count > 1 and group.index is not None:
            text = f"{group.count} instances on every GPU hold the weights {group.count} times there"
            yield Problem(text, s.line("instance_group", group.index, "count"))


def rules() -> Iterable[Rule]:
    """The rules of this file."""
    return (
        Rule(
            "L121",
            "warning",
            "a variant with another signature",
            "`--model-config-name` chooses how a server runs a model. Where the variants differ in names, types or "
            "dims, clients that work with one server fail with the other.",
            f"write the inputs and outputs of `{CONFIG_NAME}`; a float16 graph can cast at its borders",
            same_signature,
            scope="repository",
        ),
        Rule(
            "L321",
            "info",
            "a variant that only some models of an ensemble have",
            f"Where `{CUSTOM_CONFIGS}/NAME.pbtxt` is missing Triton takes `{CONFIG_NAME}`: steps on different devices "
            "copy their tensors between them.",
            "add the variant to the composing model, or leave it if that is meant",
            variants_complete,
            scope="repository",
        ),
        Rule(
            "L511",
            "info",
            "every GPU instance copies the weights",
            "Each ONNX Runtime instance is a session with weights and memory arena of its own, on every GPU that the "
            "group names; TorchScript shares them where `ENABLE_WEIGHT_SHARING` says so.",
            "lower `count` where GPU memory matters; for TorchScript set `ENABLE_WEIGHT_SHARING` to `true`",
            gpu_copies,
            scope="repository",
        ),
        Rule(
            "L512",
            "warning",
            "half precision on the CPU",
            "ONNX Runtime has few CPU kernels in half precision and converts to float32 and back around all other "
            "operators: slower than float32, and less exact.",
            "name a float32 file in `default_model_filename` for the CPU; keep the half-precision one for GPUs",
            half_on_cpu,
            scope="repository",
        ),
        Rule(
            "L614",
            "info",
            "several model files and none chosen",
            "A configuration without `default_model_filename` opens the backend's own file name, whatever else lies "
            "beside it.",
            "write `default_model_filename`",
            file_chosen,
            scope="repository",
        ),
        Rule(
            "L615",
            "info",
            "a model file that no configuration opens",
            "It is copied and kept with the repository and never served.",
            "name it in a configuration's `default_model_filename`, or remove it",
            files_opened,
            scope="repository",
        ),
    )
