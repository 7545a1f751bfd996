"""The schema of SIE's model file (`wire-contract.md` section 6), applied to one document.

Verdicts are SIE's, except that we also refuse what we could not serve or digest faithfully: an empty `sie_id`,
and options that JSON cannot carry (dates, bytes, infinities). Rules that concern generation engines alone
(KV budgets, launch flags, grammar targets, remote upstreams) are left to SIE: the catalogue refuses those models.
"""

from __future__ import annotations

import re
import string
from pathlib import Path

from sie_triton.diagnostics import Diagnostic
from sie_triton.formats import Precision

from .document import Map, Scalar, read_document
from .fields import BOOLEAN, NUMBER, TEXT, WHOLE_NUMBER, Kind, Report, Section, one_of, shown
from .model import Bundle, ProfileSpec
from .suggest import did_you_mean

TOP_KEYS = (
    "sie_id",
    "hf_id",
    "hf_revision",
    "hf_tokenizer_dependencies",
    "weights_path",
    "package_backed",
    "remote_backed",
    "routing",
    "pool",
    "inputs",
    "tasks",
    "max_sequence_length",
    "profiles",
)
_INPUTS = {"text": True, "image": False, "audio": False, "video": False, "document": False}
_TASKS = ("encode", "score", "extract", "generate")
_ENCODE_OUTPUTS = ("dense", "sparse", "multivector")
_TASK_OUTPUTS = {"score": "score", "extract": "json", "generate": "tokens"}
_GENERATION_ONLY = ("max_output_tokens", "chat_template_kwargs", "grammar_profile")
PROFILE_KEYS = (
    "extends",
    "max_batch_tokens",
    "compute_precision",
    "adapter_path",
    "adapter_options",
    "adaptive_batching",
    "kv_budget_tokens",
    "admission_enabled",
    *_GENERATION_ONLY,
)
_BATCHING_NUMBERS = (
    "target_p50_ms",
    "calibration_multiplier",
    "min_target_p50_ms",
    "max_target_p50_ms",
    "min_wait_ms",
    "max_wait_ms",
    "gain",
    "integral_gain",
)
_ROUTING_NUMBERS = ("wake_above", "sleep_below", "window_s", "cooldown_s")
_GENERATE = (
    "context_length",
    "max_output_tokens",
    "capabilities",
    "chat_template_kwargs",
    "prewarm_grammars",
    "grammar_profile",
)
_CAPABILITY_FLAGS = ("streaming", "tools", "code", "sql", "guard")
_GRAMMARS = ("json_schema", "regex", "ebnf")
_TRIGGERS = ("provisioning", "model_loading", "saturated", "unhealthy")
_PRECISIONS: tuple[Precision, ...] = ("float16", "bfloat16", "float32")
_POOL_CHARACTERS = frozenset(string.ascii_letters + string.digits + "_-")
_LONGEST_POOL = 128
_WIDEST_TENSOR_PARALLEL = 8


def _tensor_parallel(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _WIDEST_TENSOR_PARALLEL:
        return value
    raise ValueError


_TENSOR_PARALLEL: Kind[int] = Kind(f"a whole number from 1 to {_WIDEST_TENSOR_PARALLEL}", _tensor_parallel)
_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)


def read_bundle(path: Path, text: str | None = None, *, own: bool = False) -> tuple[Bundle | None, list[Diagnostic]]:
    """The bundle in one file, or None with every mistake of the file (`SIE101` to `SIE109`), in line order.

    `text` is what is read in place of the file. `own`: the file comes with the distribution.
    """
    document, mistakes = read_document(path, text, own=own)
    if document is None:
        return None, mistakes
    report = Report(path, list(mistakes))
    bundle = _Schema(report, document).bundle()
    if not report.diagnostics:
        return bundle, []
    found = dict.fromkeys(report.diagnostics)
    return None, sorted(found, key=lambda d: (d.where.line, d.where.column) if d.where else (0, 0))


class _Schema:
    """Reads the sections of one document; mistakes go to the report and reading goes on."""

    def __init__(self, report: Report, document: Map) -> None:
        self.report = report
        self.top = Section(report, "", document, TOP_KEYS)

    def bundle(self) -> Bundle | None:
        top = self.top
        top.require("sie_id", "`sie_id` is the id that clients address, such as `BAAI/bge-m3`")
        top.require("tasks", "declare what the model does, such as `tasks: {encode: {dense: {dim: 384}}}`")
        top.require("profiles", "a bundle needs at least one profile, usually `default`")
        sie_id = top.read("sie_id", TEXT, nullable=False)
        if sie_id is not None and not sie_id.strip():
            self._wrong(top, "sie_id", "SIE107", "`sie_id` is empty", "clients could not address the model")
        hf_id = top.read("hf_id", TEXT)
        hf_revision = top.read("hf_revision", TEXT)
        weights_path = top.read("weights_path", TEXT)
        package_backed = top.read("package_backed", BOOLEAN, nullable=False) or False
        remote_backed = top.read("remote_backed", BOOLEAN, nullable=False) or False
        self._source(package_backed, remote_backed)
        self._routing()
        tasks, dims = self._tasks()
        profiles = self._profiles("generate" in tasks)
        return Bundle(
            sie_id=sie_id or "",
            hf_id=hf_id,
            hf_revision=hf_revision,
            hf_tokenizer_dependencies=self._tokenizer_dependencies(),
            weights_path=None if weights_path is None else Path(weights_path),
            package_backed=package_backed,
            remote_backed=remote_backed,
            pool=self._pool(),
            inputs=self._inputs(),
            tasks=tasks,
            outputs=(*dims, *(output for task, output in _TASK_OUTPUTS.items() if task in tasks)),
            dims=dims,
            max_sequence_length=top.read("max_sequence_length", WHOLE_NUMBER),
            profiles=profiles,
            path=self.report.path,
            positions=self.report.positions,
        )

    def _wrong(self, section: Section, key: str, code: str, message: str, hint: str | None) -> None:
        entry = section.entry(key)
        self.report.add(code, message, section.at if entry is None else entry.node.at, hint)

    def _source(self, package_backed: bool, remote_backed: bool) -> None:
        sources = ("hf_id", "weights_path", "hf_revision")
        given = [key for key in sources if self.top.entry(key) is not None and not self.top.is_null(key)]
        style = "remote_backed" if remote_backed else "package_backed" if package_backed else None
        if style is None:
            if "hf_id" not in given and "weights_path" not in given:
                self.report.add(
                    "SIE106",
                    "the bundle names no weights",
                    self.top.at,
                    "set `hf_id`, `weights_path` or `package_backed: true`",
                )
            return
        if remote_backed and package_backed:
            self._wrong(
                self.top, "package_backed", "SIE108", "`remote_backed` excludes `package_backed`", "keep one of the two"
            )
        for key in given:
            self._wrong(self.top, key, "SIE108", f"`{style}` excludes `{key}`", f"remove `{key}`, or `{style}`")

    def _tokenizer_dependencies(self) -> dict[str, str]:
        node = self.top.map("hf_tokenizer_dependencies", nullable=False)
        if node is None:
            return {}
        section = Section(self.report, self.top.path("hf_tokenizer_dependencies"), node, tuple(node.entries))
        revisions = {key: section.read(key, TEXT, nullable=False) for key in node.entries}
        return {key: revision for key, revision in revisions.items() if revision is not None}

    def _pool(self) -> str | None:
        written = self.top.read("pool", TEXT)
        pool = (written or "").strip().lower()
        if not pool:
            return None
        if len(pool) > _LONGEST_POOL or pool == "_default" or not _POOL_CHARACTERS.issuperset(pool):
            self._wrong(
                self.top,
                "pool",
                "SIE107",
                f"`pool` holds letters, digits, `_` and `-`, at most {_LONGEST_POOL}, and is not `_default`",
                "rename the pool",
            )
        return pool

    def _inputs(self) -> tuple[str, ...]:
        section = self.top.section("inputs", tuple(_INPUTS), nullable=False)
        if section is None:
            return ("text",)
        written = {key: section.read(key, BOOLEAN, nullable=False) for key in _INPUTS}
        return tuple(key for key, default in _INPUTS.items() if (default if written[key] is None else written[key]))

    def _routing(self) -> None:
        section = self.top.section("routing", ("policy", "fallback_profile", "triggers", *_ROUTING_NUMBERS))
        if section is None:
            return
        section.require("policy")
        section.read("policy", one_of(("remote_only", "fallback", "threshold")), nullable=False)
        section.read("fallback_profile", TEXT)
        section.each("triggers", one_of(_TRIGGERS))
        for key in _ROUTING_NUMBERS:
            section.read(key, NUMBER)

    def _tasks(self) -> tuple[tuple[str, ...], dict[str, int]]:
        tasks = self.top.section("tasks", _TASKS, nullable=False)
        if tasks is None:
            return (), {}
        dims: dict[str, int] = {}
        encode = tasks.section("encode", _ENCODE_OUTPUTS)
        for output in _ENCODE_OUTPUTS if encode else ():
            spec = encode.section(output, ("dim",)) if encode else None
            if spec is not None:
                spec.require("dim", f"name the width of the `{output}` output")
                dim = spec.read("dim", WHOLE_NUMBER, nullable=False)
                dims[output] = 0 if dim is None else dim
        score, extract = tasks.section("score", ()), tasks.section("extract", ())
        generate = tasks.section("generate", _GENERATE)
        if generate is not None:
            self._generate(generate)
        declared = {"encode": encode, "score": score, "extract": extract, "generate": generate}
        return tuple(task for task in _TASKS if declared[task] is not None), dims

    def _generate(self, section: Section) -> None:
        for key in ("context_length", "max_output_tokens"):
            section.require(key)
            section.read(key, WHOLE_NUMBER, nullable=False)
        section.options("chat_template_kwargs")
        section.read("grammar_profile", TEXT)
        capabilities = section.section("capabilities", ("grammar", *_CAPABILITY_FLAGS), nullable=False)
        if capabilities is not None:
            capabilities.each("grammar", one_of(_GRAMMARS))
            for key in _CAPABILITY_FLAGS:
                capabilities.read(key, BOOLEAN, nullable=False)
        grammars = section.list("prewarm_grammars")
        for i, item in enumerate(grammars.items if grammars else ()):
            name = f"{section.path('prewarm_grammars')}[{i}]"
            if not isinstance(item, Map):
                self.report.add("SIE107", f"`{name}` must be a map, not {shown(item)}", item.at)
                continue
            grammar = Section(self.report, name, item, ("name", "kind", "value"))
            for key in ("name", "kind", "value"):
                grammar.require(key)
            grammar.read("name", TEXT, nullable=False)
            grammar.read("kind", one_of(_GRAMMARS), nullable=False)

    def _profiles(self, generates: bool) -> dict[str, ProfileSpec]:
        node = self.top.map("profiles", nullable=False)
        if node is None:
            return {}
        if not node.entries:
            self._wrong(self.top, "profiles", "SIE107", "`profiles` is empty", "a bundle needs at least one profile")
        names = Section(self.report, "profiles", node, tuple(node.entries))
        sections = {name: names.section(name, PROFILE_KEYS, nullable=False) for name in node.entries}
        profiles = {name: self._profile(name, s, generates) for name, s in sections.items() if s is not None}
        for name, section in sections.items():
            if section is not None:
                self._inheritance(profiles[name], section, profiles, tuple(node.entries))
        return profiles

    def _profile(self, name: str, section: Section, generates: bool) -> ProfileSpec:
        for key in ("kv_budget_tokens", "max_output_tokens"):
            number = section.read(key, WHOLE_NUMBER)
            if key == "max_output_tokens" and number is not None and number <= 0:
                self._wrong(section, key, "SIE107", f"`{section.path(key)}` must be above 0", "remove it for no cap")
        section.read("admission_enabled", BOOLEAN)
        section.read("grammar_profile", TEXT)
        if not section.is_null("chat_template_kwargs"):
            section.options("chat_template_kwargs")
        for key in () if generates else _GENERATION_ONLY:
            if section.entry(key) is not None and not section.is_null(key):
                message = f"`{section.path(key)}` needs a model that declares `tasks.generate`"
                self._wrong(section, key, "SIE113", message, f"remove `{key}`")
        options = section.section("adapter_options", ("loadtime", "runtime"), nullable=False)
        loadtime = options.options("loadtime") if options else {}
        if options:
            self._loadtime(options)
        return ProfileSpec(
            name=name,
            extends=section.read("extends", TEXT),
            max_batch_tokens=section.read("max_batch_tokens", WHOLE_NUMBER),
            compute_precision=section.read("compute_precision", one_of(_PRECISIONS)),
            adapter_path=section.read("adapter_path", TEXT),
            loadtime=loadtime,
            runtime=options.options("runtime") if options else {},
            adaptive_batching=self._adaptive_batching(section),
        )

    def _adaptive_batching(self, profile: Section) -> dict[str, float | bool]:
        section = profile.section("adaptive_batching", ("enabled", *_BATCHING_NUMBERS))
        if section is None:
            return {}
        values: dict[str, float | bool | None] = {"enabled": section.read("enabled", BOOLEAN)}
        values.update({key: section.read(key, NUMBER) for key in _BATCHING_NUMBERS})
        return {key: value for key, value in values.items() if value is not None}

    def _loadtime(self, options: Section) -> None:
        """The rules on load-time keys that can matter to an encoder: a tensor-parallel width, pinned LoRA adapters."""
        node = options.map("loadtime", nullable=False)
        if node is None:
            return
        section = Section(self.report, options.path("loadtime"), node, tuple(node.entries))
        section.read("tensor_parallel_size", _TENSOR_PARALLEL, nullable=False)
        adapters = section.entry("lora_paths")
        if adapters is None or isinstance(adapters.node, Scalar):
            return
        if isinstance(adapters.node, Map):
            for name, entry in adapters.node.entries.items():
                if isinstance(entry.node, Map):
                    self._lora(
                        Section(self.report, f"{section.path('lora_paths')}.{name}", entry.node, ("id", "revision"))
                    )
            return
        for item in adapters.node.items:
            if isinstance(item, Map):
                message = f"`{section.path('lora_paths')}` as a list holds bare repository ids"
                self.report.add("SIE107", message, item.at, "write a map of names to `{id, revision}` to pin one")

    def _lora(self, section: Section) -> None:
        section.require("id")
        if section.read("id", TEXT, nullable=False) == "":
            self._wrong(section, "id", "SIE107", f"`{section.path('id')}` is empty", "name the adapter's repository")
        revision = section.read("revision", TEXT)
        if revision is not None and not _COMMIT.fullmatch(revision):
            message = f"`{section.path('revision')}` is not a 40-digit commit"
            self._wrong(section, "revision", "SIE107", message, "branches and tags move; name the commit")

    def _inheritance(
        self, spec: ProfileSpec, section: Section, profiles: dict[str, ProfileSpec], names: tuple[str, ...]
    ) -> None:
        if section.entry("extends") is None or section.is_null("extends"):
            for key in ("adapter_path", "max_batch_tokens"):
                if section.entry(key) is None or section.is_null(key):
                    message = f"profile `{spec.name}` has no `{key}`"
                    hint = "set it, or name the profile to take it from in `extends`"
                    self._wrong(section, key, "SIE106", message, hint)
            return
        if spec.extends is None:
            return
        if spec.extends not in names:
            message = f"profile `{spec.name}` extends `{spec.extends}`, which is not a profile of this bundle"
            hint = did_you_mean(spec.extends, names) or f"profiles here: {', '.join(f'`{n}`' for n in names)}"
            self._wrong(section, "extends", "SIE109", message, hint)
            return
        parent = profiles.get(spec.extends)
        if parent is not None and parent.extends is not None:
            message = f"profile `{spec.name}` extends `{spec.extends}`, which itself extends `{parent.extends}`"
            self._wrong(section, "extends", "SIE109", message, "one level only; extend a profile that extends none")
