"""Rules on TorchScript models: their files and signatures, and `parameters` as the pytorch backend reads them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from sie_triton.embedded.torch_archive import TorchArchive, TorchArchiveError
from sie_triton.embedded.torchscript_rules import TORCH_TYPES, argument_refusals, output_positions
from sie_triton.lint.accelerators import did_you_mean
from sie_triton.lint.ensemble import matching_config
from sie_triton.lint.release import Release
from sie_triton.lint.rule import Problem, Rule, Subject

_BOOLEANS = (
    "DISABLE_OPTIMIZED_EXECUTION",
    "INFERENCE_MODE",
    "ENABLE_WEIGHT_SHARING",
    "ENABLE_CACHE_CLEANING",
    "ENABLE_TENSOR_FUSER",
    "ENABLE_JIT_PROFILING",
    "ENABLE_JIT_EXECUTOR",
    "ENABLE_NVFUSER",
    "DISABLE_CUDNN",
)
INTER_OP = "INTER_OP_THREAD_COUNT"
_THREADS = ("INTRA_OP_THREAD_COUNT", INTER_OP)
_KEYS = (*_BOOLEANS, *_THREADS)


def is_torchscript(s: Subject) -> bool:
    """Whether the C++ pytorch backend runs the model from TorchScript."""
    return s.backend == "pytorch" and s.config.message.platform != "torch_aoti" and not s.config.message.runtime


def _written(s: Subject) -> Iterator[tuple[str, str, int | None]]:
    """Parameters of a TorchScript model with their lines."""
    for key, value in s.config.parameters.items() if is_torchscript(s) else ():
        yield key, value, s.config.lines.entry(("parameters",), key)


def known_keys(s: Subject) -> Iterator[Problem]:
    """Keys that the backend reads."""
    for key, _, line in _written(s):
        if key not in _KEYS:
            text = f"`{key}` is no key that the pytorch backend reads{did_you_mean(key.upper(), _KEYS)}"
            yield Problem(text, line)


def values(s: Subject) -> Iterator[Problem]:
    """Values that the backend can read."""
    for key, value, line in _written(s):
        if key in _BOOLEANS and value.lower() not in ("true", "false", "1", "0"):
            yield Problem(f"`{key}` is `{value}`, which is no boolean", line)
        elif key in _THREADS and not re.fullmatch(r"\s*[+-]?[0-9]{1,9}\s*", value):
            yield Problem(f"`{key}` is `{value}`, which is no integer", line)


def threads_agree(s: Subject) -> Iterator[Problem]:
    """Thread counts, which are the process's, are the same in all TorchScript models."""
    for key, value, line in _written(s):
        if key not in _THREADS:
            continue
        for model in s.repository.models.values():
            for config in model.configs:
                other = Subject(s.repository, model, config, s.release, s.machine)
                theirs = config.parameters.get(key) if is_torchscript(other) else None
                if config.path.name == s.config.path.name and theirs not in (None, value):
                    yield Problem(f"`{key}` is {value} here and {theirs} in `{model.name}`", line)


def _sets_inter_op(s: Subject) -> bool:
    return is_torchscript(s) and _positive(s.config.parameters.get(INTER_OP, ""))


def _positive(text: str) -> bool:
    """Whether the backend hands the number on: only one above 0."""
    return re.fullmatch(r"\s*\+?[0-9]{1,9}\s*", text) is not None and int(text) > 0


def inter_op_once(s: Subject) -> Iterator[Problem]:
    """The number of threads between operators is set once in the server's process."""
    if not _sets_inter_op(s):
        return
    line = s.config.lines.entry(("parameters",), INTER_OP)
    versions = s.model.served_versions(s.config)
    if len(versions) > 1:
        yield Problem(f"`{INTER_OP}` is set by each of the {len(versions)} versions that are served", line)
    others = []
    for model in s.repository.models.values():
        config = matching_config(model, s.served_as or s.config.path.name)
        if config is None or model.name == s.model.name:
            continue
        if _sets_inter_op(Subject(s.repository, model, config, s.release, s.machine)):
            others.append(f"`{model.name}`")
    if others:
        yield Problem(f"`{INTER_OP}` is set here, and by {', '.join(others)} too", line)


def inter_op_again(s: Subject) -> Iterator[Problem]:
    """A model that sets the number of threads between operators cannot be loaded again."""
    if _sets_inter_op(s):
        line = s.config.lines.entry(("parameters",), INTER_OP)
        yield Problem(f"`{INTER_OP}` is set each time that the model is loaded", line)


def _archives(s: Subject) -> Iterator[tuple[Path, TorchArchive | TorchArchiveError]]:
    """The TorchScript files of the served versions."""
    if not is_torchscript(s):
        return
    for version in s.model.served_versions(s.config):
        file = s.model.path / str(version) / s.model.model_file(s.config)
        if file.is_file():
            yield file, _read(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _read(file: Path, _changed: int) -> TorchArchive | TorchArchiveError:
    try:
        return TorchArchive.read(file)
    except TorchArchiveError as error:
        return error


def archive_opens(s: Subject) -> Iterator[Problem]:
    """The files are TorchScript, and whole."""
    for file, archive in _archives(s):
        if isinstance(archive, TorchArchiveError):
            yield Problem(str(archive), path=file)


def types_served(s: Subject) -> Iterator[Problem]:
    """The backend knows the types of inputs and outputs."""
    for tensor in s.config.inputs + s.config.outputs if is_torchscript(s) else ():
        # Strings are one type more that the backend has; a type that is not written is another rule's.
        if tensor.data_type not in (*TORCH_TYPES, "TYPE_STRING", "TYPE_INVALID"):
            text = f"{tensor.kind} `{tensor.name}` is {tensor.data_type}, which the pytorch backend does not have"
            yield Problem(text, s.tensor_line(tensor, "data_type"))


def inputs_fit(s: Subject) -> Iterator[Problem]:
    """The inputs are what `forward` takes."""
    for file, archive in _archives(s):
        if isinstance(archive, TorchArchive) and archive.arguments is not None and s.config.inputs:
            config = {
                "input": [{"name": t.name} for t in s.config.inputs],
                "batch_input": [{"target_name": list(b.target_name)} for b in s.config.message.batch_input],
            }
            for reason in argument_refusals(config, archive.arguments):
                yield Problem(f"{reason} (version {file.parent.name})", s.line("input"))


def outputs_fit(s: Subject) -> Iterator[Problem]:
    """The outputs are among what `forward` gives."""
    for _, archive in _archives(s):
        if not isinstance(archive, TorchArchive) or archive.results is None:
            continue
        places = output_positions({"output": [{"name": t.name} for t in s.config.outputs]})
        for tensor in s.config.outputs:
            if places[tensor.name] >= archive.results:
                text = f"output `{tensor.name}` is number {places[tensor.name]}, and `forward` gives {archive.results}"
                yield Problem(text, s.tensor_line(tensor, "name"))


def recompiles(s: Subject) -> Iterator[Problem]:
    """Varying shapes and the optimizing executor."""
    varying = s.config.max_batch_size > 1 or any(-1 in t.dims for t in s.config.inputs)
    if is_torchscript(s) and varying and "DISABLE_OPTIMIZED_EXECUTION" not in s.config.parameters:
        yield Problem("shapes vary, and `DISABLE_OPTIMIZED_EXECUTION` is not written", s.line("parameters"))


def rules() -> Iterable[Rule]:
    """The rules of this file. They look at the repository, since the model file alone may tell the backend."""
    return (
        Rule(
            "L726",
            "warning",
            "a parameter that the pytorch backend does not read",
            "The pytorch backend's keys are in capitals; all others, those of the onnxruntime backend too, are ignored "
            "in silence.",
            "correct the key, or remove it",
            known_keys,
            scope="repository",
        ),
        Rule(
            "L727",
            "error",
            "a parameter that the pytorch backend cannot read",
            "Switches are `true`, `false`, `1` or `0`, thread counts are integers; the backend refuses anything else.",
            "write `true` or `false`, or an integer, as a string",
            values,
            scope="repository",
        ),
        Rule(
            "L728",
            "warning",
            "TorchScript thread counts that contradict each other",
            "PyTorch has one pool of threads in a process. The model that is loaded first sets its size, for all.",
            "write the same count in every TorchScript model",
            threads_agree,
            scope="repository",
        ),
        Rule(
            "L729",
            "info",
            "TorchScript may compile again while requests wait",
            "The optimizing executor profiles the first runs and specialises the graph to their shapes: requests of "
            "new shapes may take seconds.",
            "measure, and write `DISABLE_OPTIMIZED_EXECUTION` as `true`, or as `false` to say that it is meant",
            recompiles,
            scope="repository",
        ),
        Rule(
            "L730",
            "error",
            f"`{INTER_OP}` in several TorchScript models",
            "libtorch lets a process set the number of threads between operators once. All TorchScript models live in "
            "one process, and before 25.11 the backend does not catch the second attempt: the whole server aborts. "
            "Each version that is served counts. `INTRA_OP_THREAD_COUNT` may be set again and again; the last one "
            "counts.",
            f"remove `{INTER_OP}`: a graph without `torch.jit.fork` has no use for it",
            inter_op_once,
            scope="repository",
            until=Release(25, 11),
        ),
        Rule(
            "L731",
            "warning",
            "a TorchScript model that can be loaded once",
            f"`{INTER_OP}` is set when a model is loaded, and libtorch lets a process do that once. Before 25.11 the "
            "server aborts when such a model is unloaded and loaded again, or reloaded because a file has changed.",
            f"remove `{INTER_OP}`: a graph without `torch.jit.fork` has no use for it",
            inter_op_again,
            scope="repository",
            until=Release(25, 11),
        ),
        Rule(
            "L732",
            "error",
            "the model file is no TorchScript archive, or damaged",
            "TorchScript is a zip archive with source text in it. One that was cut short, a git-LFS pointer or the "
            "weights that `torch.save` writes are refused. Flipped bits are not even noticed: torch compares no "
            "checksums, and computes with what it reads.",
            "fetch the file again, or save it with `torch.jit.save`",
            archive_opens,
            scope="repository",
        ),
        Rule(
            "L733",
            "error",
            "the inputs are not those of `forward`",
            "The pytorch backend gives every argument of `forward` one input, found by the argument's name, by the "
            "position behind `__`, or by the order in which they are written. Arguments are tensors, or one dictionary "
            "of tensors.",
            "write one input for each argument of `forward`",
            inputs_fit,
            scope="repository",
        ),
        Rule(
            "L734",
            "error",
            "a type that the pytorch backend does not have",
            "The backend maps TYPE_BOOL, TYPE_UINT8, signed integers and floats of 16 to 64 bits, and strings.",
            "write a type that the backend has, and convert inside of `forward`",
            types_served,
            scope="repository",
        ),
        Rule(
            "L735",
            "error",
            "an output that `forward` does not give",
            "Results are found by the position behind `__`, or by the order in which outputs are written. One beyond "
            "the last loads, and fails at each request.",
            "remove the output, or correct the position in its name",
            outputs_fit,
            scope="repository",
        ),
    )
