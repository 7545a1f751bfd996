"""Rules on folders and files: versions, model files, weights, permissions, links."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from sie_triton.lint.onnx_graph import MAX_PROTOBUF_BYTES
from sie_triton.lint.repository import CONFIG_NAME, CUSTOM_CONFIGS, is_version
from sie_triton.lint.rule import Problem, Rule, Subject

_MAY_LACK_FILES = ("", "identity", "repeat", "square")  # backends that compute without a model file


def has_version(s: Subject) -> Iterator[Problem]:
    """A numbered folder is there."""
    if not s.model.versions:
        yield Problem("the model has no version folder", path=s.model.path)


def odd_versions(s: Subject) -> Iterator[Problem]:
    """Folders that look like versions and are ignored."""
    for folder in sorted(p for p in s.model.path.iterdir() if p.is_dir()):
        if not is_version(folder.name) and re.fullmatch(r"v?\d[\d.]*|latest", folder.name, re.IGNORECASE):
            yield Problem(f"Triton ignores the folder `{folder.name}`", path=folder)


def model_file(s: Subject) -> Iterator[Problem]:
    """Every served version has the backend's file."""
    name = s.model.model_file(s.config)
    names = {name, *map(str, s.config.message.cc_model_filenames.values())} - {""}
    if s.config.is_ensemble or not names or s.backend in _MAY_LACK_FILES:
        return
    for version in s.model.served_versions(s.config):
        folder = s.model.path / str(version)
        if not any((folder / n).exists() for n in names):
            there = ", ".join(f"`{p.name}`" for p in sorted(folder.iterdir())[:5]) or "nothing"
            expected = " or ".join(f"`{n}`" for n in sorted(names))
            yield Problem(f"version {version} lacks {expected}; it holds {there}", path=folder)


def policy_versions(s: Subject) -> Iterator[Problem]:
    """Versions that the policy names are there."""
    for version in s.config.message.version_policy.specific.versions:
        if version not in s.model.versions:
            yield Problem(f"`version_policy` names version {version}, which is absent", s.line("version_policy"))


def policy_serves(s: Subject) -> Iterator[Problem]:
    """The version policy serves at least one of the versions that are there."""
    if s.model.versions and not s.model.served_versions(s.config):
        there = ", ".join(map(str, s.model.versions))
        yield Problem(f"`version_policy` serves none of the versions that are there: {there}", s.line("version_policy"))


def label_files(s: Subject) -> Iterator[Problem]:
    """Label files are there."""
    for tensor, message in zip(s.config.outputs, s.config.message.output, strict=True):
        if message.label_filename and not (s.model.path / message.label_filename).is_file():
            line = s.tensor_line(tensor, "label_filename")
            yield Problem(f"the label file `{message.label_filename}` of output `{tensor.name}` is missing", line)


def warmup_files(s: Subject) -> Iterator[Problem]:
    """Warm-up data is there."""
    for index, sample in enumerate(s.config.message.model_warmup):
        for key in sorted(sample.inputs):
            name = sample.inputs[key].input_data_file
            if name and not (s.model.path / "warmup" / name).is_file():
                line = s.line("model_warmup", index)
                yield Problem(f"the warm-up file `warmup/{name}` of input `{key}` is missing", line)


def _entries(s: Subject) -> Iterator[Path]:
    """The model folder and everything below it, links not followed."""
    yield s.model.path
    for folder, folders, files in os.walk(s.model.path):
        yield from (Path(folder) / name for name in sorted(folders) + sorted(files))


def world_readable(s: Subject) -> Iterator[Problem]:
    """Others may read files and enter folders."""
    if os.name != "posix":
        return
    for path in _entries(s):
        mode = path.lstat().st_mode
        needed = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(mode) else 0)
        if not stat.S_ISLNK(mode) and mode & needed != needed:
            yield Problem(f"other users may not read it: mode {stat.S_IMODE(mode):04o}", path=path)


def links(s: Subject) -> Iterator[Problem]:
    """Links stay inside the repository and lead somewhere."""
    root = s.repository.path.resolve()
    for path in _entries(s):
        if path.is_symlink():
            target = Path(os.path.realpath(path))
            if not target.exists():
                yield Problem(f"the link leads to `{path.readlink()}`, which does not exist", path=path)
            elif not target.is_relative_to(root):
                yield Problem("the link leads out of the repository", path=path)


def external_weights(s: Subject) -> Iterator[Problem]:
    """External weights lie beside the graph."""
    for graph in s.graphs:
        folder = graph.path.parent
        for name in graph.external_files:
            if name.startswith("/") or ".." in Path(name).parts:
                yield Problem(f"the graph's weights are at `{name}`, outside the version folder", path=graph.path)
            elif not (folder / name).is_file():
                yield Problem(f"the graph's weights `{name}` are missing beside it", path=graph.path)


def graph_size(s: Subject) -> Iterator[Problem]:
    """Graph files stay below protobuf's limit."""
    for file in s.model.onnx_files(s.config):
        if file.stat().st_size > MAX_PROTOBUF_BYTES:
            yield Problem(f"the file has {file.stat().st_size / 2**30:.1f} GiB", path=file)


def unread_configs(s: Subject) -> Iterator[Problem]:
    """Files that look like configurations and are not read."""
    for file in sorted(p for p in s.model.path.iterdir() if p.is_file()):
        looks = re.fullmatch(r"(config\.(pbtxt\..*|pbtext|prototxt|pb\.txt|txt|json))|Config\.pbtxt", file.name)
        if looks or (file.suffix == ".pbtxt" and file.name != CONFIG_NAME):
            yield Problem(f"Triton does not read `{file.name}`", path=file)


def variants_only(s: Subject) -> Iterator[Problem]:
    """A default beside the variants."""
    if s.config.path.parent.name == CUSTOM_CONFIGS and not (s.model.path / CONFIG_NAME).is_file():
        yield Problem(f"`{CUSTOM_CONFIGS}/` has variants and there is no `{CONFIG_NAME}`", path=s.model.path)


def rules() -> Iterable[Rule]:
    """The rules of this file."""
    return (
        Rule(
            "L601",
            "error",
            "no version folder",
            "Triton serves numbered versions; without one a model is not available. An ensemble needs an empty one.",
            "create `1/` with the model file, or an empty `1/` for an ensemble",
            has_version,
            scope="repository",
        ),
        Rule(
            "L602",
            "warning",
            "a version folder that is ignored",
            "Versions are whole numbers from 1, without leading zeros, letters or dots.",
            "rename the folder to a number",
            odd_versions,
            scope="repository",
        ),
        Rule(
            "L603",
            "error",
            "the model file is missing",
            "The backend opens its own file name, or `default_model_filename`, in each served version.",
            "put the file there, or write `default_model_filename`",
            model_file,
            scope="repository",
        ),
        Rule(
            "L604",
            "warning",
            "the version policy names what is absent",
            "Triton serves the versions that are there and only logs the others.",
            "name versions that are there, or write `version_policy { latest { num_versions: 1 } }`",
            policy_versions,
            scope="repository",
        ),
        Rule(
            "L605",
            "error",
            "a label file is missing",
            "Label files are read from the model folder, beside `config.pbtxt`.",
            "add the file, or remove `label_filename`",
            label_files,
            scope="repository",
        ),
        Rule(
            "L606",
            "error",
            "a warm-up file is missing",
            "Warm-up data is read from the folder `warmup/` of the model.",
            "add the file, or use `zero_data` or `random_data`",
            warmup_files,
            scope="repository",
        ),
        Rule(
            "L607",
            "warning",
            "files that others cannot read",
            "Servers in containers run as another user (KServe: uid 1000, no capabilities).",
            "`chmod -R a+rX` on the repository",
            world_readable,
            scope="repository",
        ),
        Rule(
            "L608",
            "warning",
            "a link out of the repository",
            "In a container, or copied from an object store, the target is not there.",
            "copy the file, or link inside the repository",
            links,
            scope="repository",
        ),
        Rule(
            "L609",
            "error",
            "external weights are missing",
            "A graph with external data names files relative to itself; ONNX Runtime opens them when it loads.",
            "put the files beside the graph; they move together",
            external_weights,
            scope="repository",
        ),
        Rule(
            "L610",
            "error",
            "the graph file is larger than 2 GiB",
            "Protobuf cannot read messages above 2 GiB.",
            "save the graph with external data",
            graph_size,
            scope="repository",
        ),
        Rule(
            "L611",
            "warning",
            "a configuration that is not read",
            f"Triton reads `{CONFIG_NAME}`, or with `--model-config-name=NAME` the file `{CUSTOM_CONFIGS}/NAME.pbtxt`.",
            f"rename the file to `{CONFIG_NAME}`, or move it to `{CUSTOM_CONFIGS}/`",
            unread_configs,
            scope="repository",
        ),
        Rule(
            "L612",
            "info",
            "variants without a default",
            "A server started without `--model-config-name`, or with a name that is not there, completes the "
            "configuration by itself.",
            f"add a `{CONFIG_NAME}`",
            variants_only,
            scope="repository",
        ),
        Rule(
            "L613",
            "error",
            "the version policy serves nothing",
            "At least one version must be available under the policy.",
            "name a version that is there, or write `version_policy { latest { num_versions: 1 } }`",
            policy_serves,
            scope="repository",
        ),
    )
