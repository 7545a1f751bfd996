"""Rules on TorchScript models: their files and signatures, and `parameters` as the pytorch backend reads them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from sie_triton.backends.pytorch.archive import TorchArchive, TorchArchiveError
from sie_triton.backends.pytorch.parameters import BOOLEANS, INTER_OP, KNOWN_KEYS, SECOND_INTER_OP_SINCE, THREADS
from sie_triton.backends.pytorch.signature import SERVED_TYPES, argument_problems, named_position, output_positions
from sie_triton.backends.received import read_boolean, read_integer
from sie_triton.lint.embedded import is_for_embedded
from sie_triton.lint.rule import LintSubject, Problem, rule
from sie_triton.lint.wording import did_you_mean, quoted


def _is_torchscript(s: LintSubject) -> bool:
    """Whether the C++ pytorch backend runs the model from TorchScript."""
    return s.backend == "pytorch" and s.config.message.platform != "torch_aoti" and not s.config.message.runtime


def _written(s: LintSubject) -> Iterator[tuple[str, str, int | None]]:
    """Parameters of a TorchScript model with their lines."""
    for key, value in s.config.parameters.items() if _is_torchscript(s) else ():
        yield key, value, s.config.lines.entry(("parameters",), key)


@rule(
    "L117",
    "warning",
    title="TorchScript tensors are taken in the order of the configuration",
    explanation=(
        "TorchScript keeps no output names: the pytorch backend finds output N by a name that ends in `__N`, and "
        "inputs by such names or by the arguments of `forward`. One name that fits neither makes it take all of them "
        "in the order in which they are written."
    ),
    hint="name tensors `NAME__INDEX`, such as `OUTPUT__0`",
    scope="repository",
)
def _torchscript_names(s: LintSubject) -> Iterator[Problem]:
    if not _is_torchscript(s):
        return
    for tensor in s.config.outputs:
        if tensor.name and named_position(tensor.name) is None:
            yield Problem(f"output `{tensor.name}` does not end in its position", s.tensor_line(tensor, "name"))
    numbered = [named_position(t.name) is not None for t in s.config.inputs]
    if any(numbered) and not all(numbered):
        odd = s.config.inputs[numbered.index(False)]
        message = f"input `{odd.name}` does not end in its position while others do"
        yield Problem(message, s.tensor_line(odd, "name"))


@rule(
    "L726",
    "warning",
    title="a parameter that the pytorch backend does not read",
    explanation=(
        "The pytorch backend's keys are in capitals; all others, those of the onnxruntime backend too, are ignored in "
        "silence."
    ),
    hint="correct the key, or remove it",
    scope="repository",
)
def _known_keys(s: LintSubject) -> Iterator[Problem]:
    for key, _, line in _written(s):
        if key not in KNOWN_KEYS and not is_for_embedded(s, key):
            text = f"`{key}` is no key that the pytorch backend reads{did_you_mean(key.upper(), KNOWN_KEYS)}"
            yield Problem(text, line)


@rule(
    "L727",
    "error",
    title="a parameter that the pytorch backend cannot read",
    explanation=(
        "Switches are `true`, `false`, `1` or `0`, thread counts are integers; the backend refuses anything else."
    ),
    hint="write `true` or `false`, or an integer, as a string",
    scope="repository",
)
def _values(s: LintSubject) -> Iterator[Problem]:
    for key, value, line in _written(s):
        if key in BOOLEANS and read_boolean(value) is None:
            yield Problem(f"`{key}` is `{value}`, which is no boolean", line)
        elif key in THREADS and read_integer(value) is None:
            yield Problem(f"`{key}` is `{value}`, which is no integer", line)


@rule(
    "L728",
    "warning",
    title="TorchScript thread counts that contradict each other",
    explanation="PyTorch has one pool of threads in a process. The model that is loaded first sets its size, for all.",
    hint="write the same count in every TorchScript model",
    scope="repository",
)
def _threads_agree(s: LintSubject) -> Iterator[Problem]:
    for key, value, line in _written(s):
        if key not in THREADS:
            continue
        for model in s.repository.models.values():
            for config in model.configs:
                other = s.beside(model, config)
                theirs = config.parameters.get(key) if _is_torchscript(other) else None
                if config.path.name == s.config.path.name and theirs not in (None, value):
                    yield Problem(f"`{key}` is {value} here and {theirs} in `{model.name}`", line)


@rule(
    "L729",
    "info",
    title="TorchScript may compile again while requests wait",
    explanation=(
        "The optimizing executor profiles the first runs and specialises the graph to their shapes: requests of new "
        "shapes may take seconds."
    ),
    hint="measure, and write `DISABLE_OPTIMIZED_EXECUTION` as `true`, or as `false` to say that it is meant",
    scope="repository",
)
def _recompiles(s: LintSubject) -> Iterator[Problem]:
    varying = s.config.max_batch_size > 1 or any(-1 in t.dims for t in s.config.inputs)
    if _is_torchscript(s) and varying and "DISABLE_OPTIMIZED_EXECUTION" not in s.config.parameters:
        yield Problem("shapes vary, and `DISABLE_OPTIMIZED_EXECUTION` is not written", s.line("parameters"))


def _sets_inter_op(s: LintSubject) -> bool:
    return _is_torchscript(s) and (read_integer(s.config.parameters.get(INTER_OP, "")) or 0) > 0


@rule(
    "L730",
    "error",
    title=f"`{INTER_OP}` in several TorchScript models",
    explanation=(
        "libtorch lets a process set the number of threads between operators once. All TorchScript models live in one "
        "process, and before 25.11 the backend does not catch the second attempt: the whole server aborts. Each "
        "version that is served counts. `INTRA_OP_THREAD_COUNT` may be set again and again; the last one counts."
    ),
    hint=f"remove `{INTER_OP}`: a graph without `torch.jit.fork` has no use for it",
    scope="repository",
    until=SECOND_INTER_OP_SINCE,
)
def _inter_op_once(s: LintSubject) -> Iterator[Problem]:
    if not _sets_inter_op(s):
        return
    line = s.config.lines.entry(("parameters",), INTER_OP)
    versions = s.model.served_versions(s.config)
    if len(versions) > 1:
        yield Problem(f"`{INTER_OP}` is set by each of the {len(versions)} versions that are served", line)
    others = []
    for model in s.repository.models.values():
        config = model.config_named(s.file_name)
        if config is None or model.name == s.model.name:
            continue
        if _sets_inter_op(s.beside(model, config)):
            others.append(model.name)
    if others:
        yield Problem(f"`{INTER_OP}` is set here, and by {quoted(others)} too", line)


@rule(
    "L731",
    "warning",
    title="a TorchScript model that can be loaded once",
    explanation=(
        f"`{INTER_OP}` is set when a model is loaded, and libtorch lets a process do that once. Before 25.11 the "
        "server aborts when such a model is unloaded and loaded again, or reloaded because a file has changed."
    ),
    hint=f"remove `{INTER_OP}`: a graph without `torch.jit.fork` has no use for it",
    scope="repository",
    until=SECOND_INTER_OP_SINCE,
)
def _inter_op_again(s: LintSubject) -> Iterator[Problem]:
    if _sets_inter_op(s):
        line = s.config.lines.entry(("parameters",), INTER_OP)
        yield Problem(f"`{INTER_OP}` is set each time that the model is loaded", line)


def _archives(s: LintSubject) -> Iterator[tuple[Path, TorchArchive | TorchArchiveError]]:
    """The TorchScript files of the served versions."""
    if not _is_torchscript(s):
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


@rule(
    "L732",
    "error",
    title="the model file is no TorchScript archive, or damaged",
    explanation=(
        "TorchScript is a zip archive with source text in it. One that was cut short, a git-LFS pointer or the "
        "weights that `torch.save` writes are refused. Flipped bits are not even noticed: torch compares no "
        "checksums, and computes with what it reads."
    ),
    hint="fetch the file again, or save it with `torch.jit.save`",
    scope="repository",
)
def _archive_opens(s: LintSubject) -> Iterator[Problem]:
    for file, archive in _archives(s):
        if isinstance(archive, TorchArchiveError):
            yield Problem(str(archive), path=file)


@rule(
    "L733",
    "error",
    title="the inputs are not those of `forward`",
    explanation=(
        "The pytorch backend gives every argument of `forward` one input, found by the argument's name, by the "
        "position behind `__`, or by the order in which they are written. Arguments are tensors, or one dictionary of "
        "tensors."
    ),
    hint="write one input for each argument of `forward`",
    scope="repository",
)
def _inputs_fit(s: LintSubject) -> Iterator[Problem]:
    for file, archive in _archives(s):
        if isinstance(archive, TorchArchive) and archive.arguments is not None and s.config.inputs:
            for reason in argument_problems(s.config.received, archive.arguments):
                yield Problem(f"{reason} (version {file.parent.name})", s.line("input"))


@rule(
    "L734",
    "error",
    title="a type that the pytorch backend does not have",
    explanation="The backend maps TYPE_BOOL, TYPE_UINT8, signed integers and floats of 16 to 64 bits, and strings.",
    hint="write a type that the backend has, and convert inside of `forward`",
    scope="repository",
)
def _types_served(s: LintSubject) -> Iterator[Problem]:
    for tensor in s.config.inputs + s.config.outputs if _is_torchscript(s) else ():
        # A type that is not written is another rule's.
        if tensor.data_type not in (*SERVED_TYPES, "TYPE_INVALID"):
            text = f"{tensor.role} `{tensor.name}` is {tensor.data_type}, which the pytorch backend does not have"
            yield Problem(text, s.tensor_line(tensor, "data_type"))


@rule(
    "L735",
    "error",
    title="an output that `forward` does not give",
    explanation=(
        "Results are found by the position behind `__`, or by the order in which outputs are written. One beyond the "
        "last loads, and fails at each request."
    ),
    hint="remove the output, or correct the position in its name",
    scope="repository",
)
def _outputs_fit(s: LintSubject) -> Iterator[Problem]:
    for _, archive in _archives(s):
        if not isinstance(archive, TorchArchive) or archive.results is None:
            continue
        places = output_positions(s.config.received)
        for tensor in s.config.outputs:
            if places[tensor.name] >= archive.results:
                text = f"output `{tensor.name}` is number {places[tensor.name]}, and `forward` gives {archive.results}"
                yield Problem(text, s.tensor_line(tensor, "name"))
