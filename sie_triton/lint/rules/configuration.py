"""Rules on a configuration as a whole: that it parses, its names, its backend, its batch size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sie_triton.backends.releases import Release
from sie_triton.lint.repository import PLATFORMS
from sie_triton.lint.rule import LintSubject, Problem, rule
from sie_triton.lint.wording import did_you_mean

# Fields that older servers do not know: their text parser then refuses the whole file. `model_metrics` is absent in
# the 24.10 binary (measured); the month of its arrival is not known, so it is only held against 24.10.
_NEW_FIELDS: tuple[tuple[tuple[str, ...], Release], ...] = (
    (("ensemble_scheduling", "max_inflight_requests"), Release(25, 11)),
    (("model_metrics",), Release(24, 11)),
)
# The backends in NVIDIA's images, each in some of them.
_SHIPPED_BACKENDS = (
    "dali",
    "fil",
    "identity",
    "onnxruntime",
    "openvino",
    "python",
    "pytorch",
    "repeat",
    "square",
    "tensorflow",
    "tensorrt",
    "tensorrtllm",
    "vllm",
)


@rule(
    "L101",
    "error",
    title="the configuration does not parse",
    explanation=(
        "Triton reads `config.pbtxt` with protobuf's text format. One unknown field, misspelt enum value or missing "
        "brace makes the model fail to load, and in the default mode the whole server then exits."
    ),
    hint="correct the named line; fields and values are those of Triton's `model_config.proto`",
)
def _parses(_: LintSubject) -> Iterator[Problem]:
    return iter(())  # said by the reader: what does not parse becomes no subject


@rule(
    "L102",
    "error",
    title="a field is newer than the release",
    explanation="An older server's text parser does not know the field and refuses the whole file.",
    hint="remove the field, or serve with the release that knows it",
)
def _newer_field(s: LintSubject) -> Iterator[Problem]:
    for path, since in _NEW_FIELDS:
        message: Any = s.config.message
        for name in path[:-1]:
            message = getattr(message, name)
        written = message.ListFields()
        if s.release < since and any(f.name == path[-1] for f, _ in written):
            yield Problem(f"`{'.'.join(path)}` is not known to Triton {s.release}", s.line(*path))


@rule(
    "L103",
    "error",
    title="the backend cannot be told",
    explanation=(
        "Triton picks the backend from `backend`, else from `platform`, else from the file in the first version "
        "folder, and refuses pairs that contradict each other."
    ),
    hint='write `backend`, for instance `backend: "onnxruntime"`, and leave `platform` out or let it agree',
    scope="repository",
)
def _backend_known(s: LintSubject) -> Iterator[Problem]:
    message = s.config.message
    if s.config.is_ensemble:
        return
    if message.platform and message.backend:
        expected = PLATFORMS.get(message.platform, (str(message.backend), ""))[0]
        # Triton ties only the backends that have platforms; any platform goes with the others.
        tied = message.backend in {backend for backend, _ in PLATFORMS.values()}
        if tied and (expected != message.backend or message.platform not in PLATFORMS):
            yield Problem(
                f"platform `{message.platform}` does not go with backend `{message.backend}`", s.line("platform")
            )
    elif not s.backend:
        if message.platform:
            yield Problem(f"platform `{message.platform}` is none that Triton knows", s.line("platform"))
        else:
            yield Problem("neither `backend` nor `platform` is written, and no version holds a file that tells it")


@rule(
    "L124",
    "error",
    title="a backend that Triton does not come with",
    explanation=(
        "NVIDIA's images hold their own backends. Another one is looked for as `libtriton_NAME.so` in the version "
        "folder, the model folder and `NAME/` of the backend directory; without it the model does not load."
    ),
    hint="correct the name, or put the backend's library into the model folder",
    scope="repository",
)
def _backend_shipped(s: LintSubject) -> Iterator[Problem]:
    name = str(s.config.message.backend)
    if not name or name in _SHIPPED_BACKENDS or s.config.is_ensemble:
        return
    library = f"libtriton_{name}.so"
    folders = [s.model.path, *(s.model.path / str(version) for version in s.model.versions)]
    if str(s.config.message.runtime) or (s.model.on_disk and any((f / library).is_file() for f in folders)):
        return
    meant = did_you_mean(name, _SHIPPED_BACKENDS)
    yield Problem(f"Triton comes without a backend `{name}`{meant}", s.line("backend"))


@rule(
    "L104",
    "error",
    title="`name` is not the folder's name",
    explanation="Triton refuses a model whose `name` differs from its folder.",
    hint="rename the folder, or remove `name`: the folder's name is then used",
    scope="repository",
)
def _name_is_folder(s: LintSubject) -> Iterator[Problem]:
    name = str(s.config.message.name)
    if name and name != s.model.name and "/" not in name:
        yield Problem(f"`name` is `{name}`, the folder is `{s.model.name}`", s.line("name"))


@rule(
    "L105",
    "error",
    title="a model's name has a `/`",
    explanation="Names become one segment of request URLs and one folder; newer releases validate them.",
    hint="replace `/`, for instance by two underscores: `BAAI__bge-m3`",
)
def _name_has_slash(s: LintSubject) -> Iterator[Problem]:
    if "/" in s.config.message.name:
        yield Problem(f"`name` is `{s.config.message.name}`, with a `/`", s.line("name"))
    for index, step in enumerate(s.config.message.ensemble_scheduling.step):
        if "/" in step.model_name:
            line = s.line("ensemble_scheduling", "step", index, "model_name")
            yield Problem(f"step {index} names the model `{step.model_name}`, with a `/`", line)


@rule(
    "L106",
    "warning",
    title="`max_batch_size` is not written",
    explanation=(
        "The reader cannot tell whether batching was forgotten or is unwanted. Absent means 0, no batching, except "
        "where Triton completes the configuration: there it becomes 4 (`default-max-batch-size`)."
    ),
    hint="write `max_batch_size`, also when it is 0",
)
def _max_batch_size_written(s: LintSubject) -> Iterator[Problem]:
    if s.config.written and not s.config.lines.has("max_batch_size"):
        yield Problem("`max_batch_size` is not written")


@rule(
    "L107",
    "error",
    title="`max_batch_size` is negative",
    explanation="Triton refuses negative batch sizes.",
    hint="write 0 for no batching, or the largest number of rows of one run",
)
def _max_batch_size_negative(s: LintSubject) -> Iterator[Problem]:
    if s.config.max_batch_size < 0:
        yield Problem(f"`max_batch_size` is {s.config.max_batch_size}", s.line("max_batch_size"))


@rule(
    "L116",
    "error",
    title="the response cache cannot be used here",
    explanation="Triton refuses the response cache for sequence models and for decoupled models.",
    hint="remove `response_cache`",
)
def _cacheable(s: LintSubject) -> Iterator[Problem]:
    message = s.config.message
    if not message.response_cache.enable:
        return
    if message.HasField("sequence_batching"):
        yield Problem("`response_cache` and `sequence_batching` are both on", s.line("response_cache"))
    if message.model_transaction_policy.decoupled:
        yield Problem("`response_cache` is on in a decoupled model", s.line("response_cache"))
