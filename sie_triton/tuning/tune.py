"""`sie-triton tune`: how much a run should hold and how to use the cores of this machine, written into a repository."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import msgspec
from google.protobuf import text_format
from sie_frontend.manifest import Batching, Manifest, Measured, Model

from sie_triton.backends.embedded import ALONE_THREADS, STREAMS
from sie_triton.backends.embedded import CONFIG_NAME as EMBEDDED
from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where
from sie_triton.formats import FORMATS
from sie_triton.repository.publish import current_manifest, publish, staged_repository, write_manifest
from sie_triton.repository.record import redigest
from sie_triton.tuning.settings import RunSetting, budgets_of, candidates, choose
from sie_triton.tuning.speeds import Samples, TimedModel
from sie_triton.verify.checks import check_structure
from sie_triton.verify.model_runner import TimedServer, config_path, read_model_config
from sie_triton.verify.public_model import input_of, public_model, served_by

Announce: TypeAlias = "Callable[[str], None]"

_SERVERS: Mapping[TimedServer, str] = {"embedded": "the embedded server", "nvidia": "NVIDIA's server"}


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was measured for one public Triton model, and which setting was chosen.

    `speeds` are what is computed in a second by setting, in the `unit` that runs are limited in.
    """

    triton_model: str
    speeds: Mapping[RunSetting, float]
    chosen: RunSetting
    server: TimedServer = "embedded"
    unit: str = "tokens"


def tune_repository(
    repository: Path, manifest: Manifest, *, cores: int, samples: Samples, announce: Announce
) -> list[Tuned]:
    """Measure every public model that has a configuration for CPUs, write what was chosen, publish.

    Raises `DiagnosticError` if there is none, or if one has a format whose streams share one thread count.
    """
    tuned = []
    for name in tunable(repository, manifest):
        model = TimedModel(repository, manifest, name)
        budgets, unit = budgets_of(model.reader)
        settings = list(candidates(cores, weight_bytes(repository, manifest, name), budgets))
        announce(f"{name}: {len(settings)} settings, {samples.rounds} rounds of {samples.seconds:g} s each")
        [speeds] = model.speeds([repository], settings, samples)
        tuned.append(Tuned(name, speeds, choose(speeds), samples.server, unit))
    with staged_repository(repository) as staging:
        # Measuring took minutes, and only now is the repository locked: a build may have published in between.
        current = current_manifest(staging) or manifest
        for result in tuned:
            built = current.built.get(result.triton_model)
            if built is None or built.key != manifest.built[result.triton_model].key:
                message = f"`{result.triton_model}` was built again while it was measured; nothing was changed"
                raise DiagnosticError([Diagnostic("SIE609", message, Where(repository), "run `sie-triton tune` again")])
            current = _apply(staging, current, result)
        write_manifest(staging, current)
        if problems := list(check_structure(staging, current)):
            raise DiagnosticError(problems)
        publish(staging, repository)
    return tuned


def tunable(repository: Path, manifest: Manifest) -> list[str]:
    """The public models whose settings on a CPU can be measured. Raises `DiagnosticError` as `tune_repository` does."""
    names = [name for name, built in manifest.served().built.items() if "cpu" in built.configs]
    if not names:
        raise DiagnosticError([Diagnostic("SIE607", "no model is built for CPUs: nothing to tune", Where(repository))])
    for name in names:
        if not FORMATS[manifest.built[name].format].own_threads:
            message = f"`{name}` is {manifest.built[name].format}: torch has one number of threads for all streams"
            raise DiagnosticError([Diagnostic("SIE608", message, Where(repository), "tune an ONNX build")])
    return names


def weight_bytes(repository: Path, manifest: Manifest, name: str) -> int:
    """The bytes of the graph that computes, as it is opened on a CPU."""
    built = manifest.built[name]
    heavy, *_ = built.triton_models
    filename = read_model_config(config_path(repository / heavy, built.configs["cpu"])).default_model_filename
    # Beyond protobuf's limit the weights lie beside the graph, in `NAME.data`.
    return sum(path.stat().st_size for path in (repository / heavy / "1").glob(f"{filename}*"))


def _apply(staging: Path, manifest: Manifest, tuned: Tuned) -> Manifest:
    """The chosen setting in the staged configurations and in the manifest, with everything that was measured."""
    setting = tuned.chosen
    served = served_by(manifest.served(), tuned.triton_model)
    model = public_model(staging, manifest, tuned.triton_model)
    name, entry = input_of(next(iter(served.values())), tuned.triton_model)
    old = entry.batching["cpu"]
    rows = max(old.max_batch_size, setting.run_tokens // model.reader.widths(exact=False)[0])
    batching = msgspec.structs.replace(
        old,
        max_batch_size=rows,
        run_tokens=setting.run_tokens,
        streams=setting.streams,
        threads=setting.threads,
        measured=_measured(tuned),
    )
    models = {
        **manifest.models,
        **{model_id: _batched(model, name, batching) for model_id, model in served.items()},
    }
    built = manifest.built[tuned.triton_model]
    # The first graph is the one with the transformer; the small ones behind it stay as they are.
    heavy, *_ = built.triton_models
    for part in built.triton_models:
        path = config_path(staging / part, built.configs["cpu"])
        _rewrite(path, setting, batching, computes=part == heavy)
        if (embedded := staging / part / "configs" / f"{EMBEDDED}.pbtxt").is_file():  # older builds have none
            _rewrite(embedded, setting, batching, computes=part == heavy)
    return redigest(msgspec.structs.replace(manifest, models=models), staging, built.triton_models)


def _batched(model: Model, name: str, batching: Batching) -> Model:
    """A model whose input `name` is batched so on CPUs."""
    entry = msgspec.structs.replace(model.inputs[name], batching={**model.inputs[name].batching, "cpu": batching})
    return msgspec.structs.replace(model, inputs={**model.inputs, name: entry})


def _rewrite(path: Path, setting: RunSetting, batching: Batching, *, computes: bool) -> None:
    config = read_model_config(path)
    config.max_batch_size = batching.max_batch_size
    if computes:
        streams, threads = setting.streams + batching.express, setting.threads
        if STREAMS in config.parameters:
            config.parameters[STREAMS].string_value = str(streams)
            threads = 1 if threads == 1 else threads * setting.streams
            if threads > 1:
                config.parameters.pop(ALONE_THREADS, None)
        else:
            (group,) = config.instance_group
            group.count = streams
        config.parameters["intra_op_thread_count"].string_value = str(threads)
    # The file may be a hard link into the published repository: it is replaced, never written into.
    path.unlink()
    path.write_text(text_format.MessageToString(config), encoding="utf-8")


def _measured(tuned: Tuned) -> Measured:
    return Measured(
        machine=f"{platform.processor() or platform.machine()}, {platform.system()} {platform.release()}, "
        f"with sessions as on {_SERVERS[tuned.server]}",
        tokens_per_second={
            f"{setting.run_tokens} {tuned.unit}, {setting.streams} x {setting.threads} threads": round(speed)
            for setting, speed in tuned.speeds.items()
        },
    )
