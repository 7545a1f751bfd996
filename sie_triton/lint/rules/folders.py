"""Rules on a model's folder: versions, files, permissions, links."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from sie_triton.lint.repository import CONFIG_NAME, CUSTOM_CONFIGS, is_version
from sie_triton.lint.rule import LintSubject, Problem, rule
from sie_triton.lint.wording import quoted

_MAY_LACK_FILES = ("", "identity", "repeat", "square")  # backends that compute without a model file


@rule(
    "L601",
    "error",
    title="no version folder",
    explanation=(
        "Triton serves numbered versions; without one a model is not available. An ensemble needs an empty one."
    ),
    hint="create `1/` with the model file, or an empty `1/` for an ensemble",
    scope="repository",
)
def _has_version(s: LintSubject) -> Iterator[Problem]:
    if not s.model.versions:
        yield Problem("the model has no version folder", path=s.model.path)


@rule(
    "L602",
    "warning",
    title="a version folder that is ignored",
    explanation="Versions are whole numbers from 1, without leading zeros, letters or dots.",
    hint="rename the folder to a number",
    scope="repository",
)
def _odd_versions(s: LintSubject) -> Iterator[Problem]:
    for folder in sorted(p for p in s.model.path.iterdir() if p.is_dir()):
        if not is_version(folder.name) and re.fullmatch(r"v?\d[\d.]*|latest", folder.name, re.IGNORECASE):
            yield Problem(f"Triton ignores the folder `{folder.name}`", path=folder)


@rule(
    "L603",
    "error",
    title="the model file is missing",
    explanation="The backend opens its own file name, or `default_model_filename`, in each served version.",
    hint="put the file there, or write `default_model_filename`",
    scope="repository",
)
def _model_file(s: LintSubject) -> Iterator[Problem]:
    name = s.model.model_file(s.config)
    names = {name, *map(str, s.config.message.cc_model_filenames.values())} - {""}
    if s.config.is_ensemble or not names or s.backend in _MAY_LACK_FILES:
        return
    for version in s.model.served_versions(s.config):
        folder = s.model.path / str(version)
        if not any((folder / n).exists() for n in names):
            there = quoted(p.name for p in sorted(folder.iterdir())[:5]) if any(folder.iterdir()) else "nothing"
            expected = " or ".join(f"`{n}`" for n in sorted(names))
            yield Problem(f"version {version} lacks {expected}; it holds {there}", path=folder)


@rule(
    "L604",
    "warning",
    title="the version policy names what is absent",
    explanation="Triton serves the versions that are there and only logs the others.",
    hint="name versions that are there, or write `version_policy { latest { num_versions: 1 } }`",
    scope="repository",
)
def _policy_versions(s: LintSubject) -> Iterator[Problem]:
    for version in s.config.message.version_policy.specific.versions:
        if version not in s.model.versions:
            yield Problem(f"`version_policy` names version {version}, which is absent", s.line("version_policy"))


@rule(
    "L613",
    "error",
    title="the version policy serves nothing",
    explanation="At least one version must be available under the policy.",
    hint="name a version that is there, or write `version_policy { latest { num_versions: 1 } }`",
    scope="repository",
)
def _policy_serves(s: LintSubject) -> Iterator[Problem]:
    if s.model.versions and not s.model.served_versions(s.config):
        there = ", ".join(map(str, s.model.versions))
        yield Problem(f"`version_policy` serves none of the versions that are there: {there}", s.line("version_policy"))


@rule(
    "L605",
    "error",
    title="a label file is missing",
    explanation="Label files are read from the model folder, beside `config.pbtxt`.",
    hint="add the file, or remove `label_filename`",
    scope="repository",
)
def _label_files(s: LintSubject) -> Iterator[Problem]:
    for tensor, message in zip(s.config.outputs, s.config.message.output, strict=True):
        if message.label_filename and not (s.model.path / message.label_filename).is_file():
            line = s.tensor_line(tensor, "label_filename")
            yield Problem(f"the label file `{message.label_filename}` of output `{tensor.name}` is missing", line)


def _entries(s: LintSubject) -> Iterator[Path]:
    """The model folder and everything below it, links not followed."""
    yield s.model.path
    for folder, folders, files in os.walk(s.model.path):
        yield from (Path(folder) / name for name in sorted(folders) + sorted(files))


@rule(
    "L607",
    "warning",
    title="files that others cannot read",
    explanation="Servers in containers run as another user (KServe: uid 1000, no capabilities).",
    hint="`chmod -R a+rX` on the repository",
    scope="repository",
)
def _world_readable(s: LintSubject) -> Iterator[Problem]:
    if os.name != "posix":
        return
    for path in _entries(s):
        mode = path.lstat().st_mode
        needed = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(mode) else 0)
        if not stat.S_ISLNK(mode) and mode & needed != needed:
            yield Problem(f"other users may not read it: mode {stat.S_IMODE(mode):04o}", path=path)


@rule(
    "L608",
    "warning",
    title="a link out of the repository",
    explanation="In a container, or copied from an object store, the target is not there.",
    hint="copy the file, or link inside the repository",
    scope="repository",
)
def _links(s: LintSubject) -> Iterator[Problem]:
    root = s.repository.path.resolve()
    for path in _entries(s):
        if path.is_symlink():
            target = Path(os.path.realpath(path))
            if not target.exists():
                yield Problem(f"the link leads to `{path.readlink()}`, which does not exist", path=path)
            elif not target.is_relative_to(root):
                yield Problem("the link leads out of the repository", path=path)


@rule(
    "L611",
    "warning",
    title="a configuration that is not read",
    explanation=(
        f"Triton reads `{CONFIG_NAME}`, or with `--model-config-name=NAME` the file `{CUSTOM_CONFIGS}/NAME.pbtxt`."
    ),
    hint=f"rename the file to `{CONFIG_NAME}`, or move it to `{CUSTOM_CONFIGS}/`",
    scope="repository",
)
def _unread_configs(s: LintSubject) -> Iterator[Problem]:
    for file in sorted(p for p in s.model.path.iterdir() if p.is_file()):
        looks = re.fullmatch(r"(config\.(pbtxt\..*|pbtext|prototxt|pb\.txt|txt|json))|ConfigFile\.pbtxt", file.name)
        if looks or (file.suffix == ".pbtxt" and file.name != CONFIG_NAME):
            yield Problem(f"Triton does not read `{file.name}`", path=file)


@rule(
    "L612",
    "info",
    title="variants without a default",
    explanation=(
        "A server started without `--model-config-name`, or with a name that is not there, completes the "
        "configuration by itself."
    ),
    hint=f"add a `{CONFIG_NAME}`",
    scope="repository",
)
def _variants_only(s: LintSubject) -> Iterator[Problem]:
    if s.config.path.parent.name == CUSTOM_CONFIGS and not (s.model.path / CONFIG_NAME).is_file():
        yield Problem(f"`{CUSTOM_CONFIGS}/` has variants and there is no `{CONFIG_NAME}`", path=s.model.path)
