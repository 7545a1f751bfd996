"""`sie-triton tune --alternatives`: what other engines and precisions would give on this machine, and how close.

Everything is made of the float32 graphs in the repository, as `build` would make it, in a folder of its own, and
compared as a build is: with the stored reference, and by float32's answers that stay. Nothing of it is published.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

from google.protobuf import text_format
from sie_frontend.manifest import Built, Distance, Manifest

from sie_triton.answers.items import ITEMS
from sie_triton.answers.runs import items_for
from sie_triton.backends.embedded import ALONE_THREADS
from sie_triton.backends.embedded import CONFIG_NAME as EMBEDDED
from sie_triton.compiler.answers import Answers, Float32Answers
from sie_triton.compiler.eight_bits import attempts
from sie_triton.diagnostics import DiagnosticError
from sie_triton.embedded.openvino_engine import ACCELERATOR, PRECISION_KEY, engine_precision, installed
from sie_triton.formats import Precision
from sie_triton.interrupts import fleeting
from sie_triton.planning.precisions import UNMEASURED, answerable
from sie_triton.repository.processor import multiplies_bfloat16
from sie_triton.tuning.settings import RunSetting, budgets_of, candidates, choose
from sie_triton.tuning.speeds import Samples, TimedModel
from sie_triton.tuning.tune import tunable, weight_bytes
from sie_triton.verify.model_runner import ModelRunner, config_path, read_model_config
from sie_triton.verify.parity import check_parity, measure
from sie_triton.verify.public_model import PublicModel, public_model

Announce: TypeAlias = "Callable[[str], None]"


@dataclass(frozen=True, slots=True)
class Rung:
    """An engine and a precision, as `build --engine --precision` names them."""

    engine: str
    precision: Precision

    def __str__(self) -> str:
        return f"{self.precision} by {self.engine}"


SERVED = Rung("onnxruntime", "float32")
RUNGS: Sequence[Rung] = (
    SERVED,
    Rung("onnxruntime", "int8"),
    Rung("openvino", "float32"),
    Rung("openvino", "bfloat16"),
    Rung("openvino", "int8"),
)


@dataclass(frozen=True, slots=True)
class Alternative:
    """What a rung gives a model on this machine.

    `lacking`: why it cannot be had here; then the rest is empty. `close`: whether a build would publish it. `written`:
    how it is written, where there are several ways. `speeds` are in the model's `unit` a second, `alone_s` is the time
    of one row in a run of its own, `bytes` are those of the graphs.
    """

    rung: Rung
    lacking: str = ""
    close: bool = True
    written: str = ""
    distances: Mapping[str, Distance] = field(default_factory=dict)
    answers: Answers = field(default_factory=Answers)
    speeds: Mapping[RunSetting, float] = field(default_factory=dict)
    alone_s: float = 0.0
    bytes: int = 0

    @property
    def chosen(self) -> RunSetting:
        """The setting that `tune` would choose."""
        return choose(self.speeds)

    @property
    def min_cosine(self) -> float | None:
        """The lowest of all outputs, over the reference; None for scores."""
        return min((d.min_cosine for d in self.distances.values() if d.min_cosine is not None), default=None)

    @property
    def kept(self) -> float | None:
        """The share of float32's ten nearest, or first, that stay, of the worst output; None where none is asked."""
        nearest = (share for found in self.answers.nearest.values() for share in (found.alike, found.mixed))
        return min((*nearest, *(found.kept for found in self.answers.reranked.values())), default=None)


@dataclass(frozen=True, slots=True)
class Alternatives:
    """All rungs of one public Triton model, the served one first; or why nothing can be made of it."""

    triton_model: str
    unit: str = "tokens"
    rungs: Sequence[Alternative] = ()
    nothing: str = ""


def weigh(
    repository: Path, manifest: Manifest, *, cores: int, samples: Samples, announce: Announce
) -> Iterator[Alternatives]:
    """Measure for each public model what every rung would give. Raises `DiagnosticError` as `tune_repository` does."""
    for name in tunable(repository, manifest):
        built = manifest.built[name]
        if built.precisions.get("cpu") != "float32" or _engine(repository, built) != SERVED.engine:
            yield Alternatives(
                name, nothing="alternatives are made of float32 computed by ONNX Runtime: build that first"
            )
            continue
        with tempfile.TemporaryDirectory(prefix="sie-triton-") as folder, fleeting(Path(folder)):
            weighing = _Weighing(repository, manifest, name, Path(folder), announce)
            yield weighing.alternatives(cores, samples)


class _Weighing:
    """One public model, with a folder for the graphs of each rung."""

    def __init__(self, repository: Path, manifest: Manifest, name: str, folder: Path, announce: Announce) -> None:
        self._repository = repository
        self._built = manifest.built[name]
        self._model: PublicModel = public_model(repository, manifest, name)
        self._timed = TimedModel(repository, manifest, name)
        self._weights = weight_bytes(repository, manifest, name)
        self._config_name = self._built.configs["cpu"]
        self._folder = folder
        self._announce = announce

    def alternatives(self, cores: int, samples: Samples) -> Alternatives:
        """Make and compare all of them, then time those that there are, in turns."""
        made = [self._made(rung) for rung in RUNGS]
        budgets, unit = budgets_of(self._model.reader)
        settings = list(candidates(cores, self._weights, budgets))
        folders = {self._place(one.rung): one for one in made if not one.lacking}
        self._announce(
            f"{self._model.name}: {len(folders)} alternatives in {len(settings)} settings, {samples.rounds} rounds of "
            f"{samples.seconds:g} s each"
        )
        speeds = dict(zip(folders, self._timed.speeds(list(folders), settings, samples), strict=True))
        threads = {folder: self._alone_threads(one.rung, choose(speeds[folder])) for folder, one in folders.items()}
        alone = dict(zip(folders, self._timed.alone(threads, samples), strict=True))
        timed = {
            one.rung: replace(one, speeds=speeds[folder], alone_s=alone[folder]) for folder, one in folders.items()
        }
        return Alternatives(self._model.name, unit, [timed.get(one.rung, one) for one in made])

    def _made(self, rung: Rung) -> Alternative:
        lacking = self._lacking(rung)
        if lacking:
            return Alternative(rung, lacking)
        self._announce(f"{self._model.name}: {rung}")
        self._copy(rung)
        try:
            return self._eight_bits(rung) if rung.precision == "int8" else self._as_it_is(rung)
        except DiagnosticError as error:
            return Alternative(rung, error.diagnostics[0].message)

    def _lacking(self, rung: Rung) -> str:
        if rung.engine == ACCELERATOR and not installed():
            return "the package `openvino` is not installed: `pip install 'sie-triton[openvino]'`"
        if rung.precision == "bfloat16" and not multiplies_bfloat16():
            return "this processor does not multiply bfloat16"
        if rung.precision != "float32" and not answerable(self._model.modality, self._model.comparables):
            return UNMEASURED
        return ""

    def _as_it_is(self, rung: Rung) -> Alternative:
        """The float32 graphs themselves, computed by another engine or in bfloat16."""
        place = self._place(rung)
        distances = measure(place, self._model, self._config_name)
        close = not any(check_parity(place, self._model, distances, rung.precision))
        answers = Answers()
        if rung.precision != "float32":
            answers = self._float32.against(ModelRunner(place, self._model.name, self._config_name))
            close = close and answers.close({})
        return Alternative(rung, "", close, "", distances, answers, bytes=self._bytes(place))

    def _eight_bits(self, rung: Rung) -> Alternative:
        """The first way of writing 8 bits that is close enough, else the last one."""
        place = self._place(rung)
        graphs = list(zip(self._graphs(self._repository), self._graphs(place), strict=True))
        for attempt in attempts(graphs, place, self._model, lambda: self._float32, self._config_name):
            self._announce(f"{self._model.name}: {attempt.told()}")
            if attempt.close:
                break
        how = attempt.how.told()
        return Alternative(rung, "", attempt.close, how, attempt.distances, attempt.answers, bytes=self._bytes(place))

    @cached_property
    def _float32(self) -> Float32Answers:
        count = items_for(self._model, self._place(SERVED))
        told = ITEMS[self._model.modality].told
        self._announce(f"{self._model.name}: answers over {count} {told} or pairs of them, in float32")
        return Float32Answers.of(
            self._model, ModelRunner(self._place(SERVED), self._model.name, self._config_name), count
        )

    def _place(self, rung: Rung) -> Path:
        return self._folder / f"{rung.engine}-{rung.precision}"

    def _copy(self, rung: Rung) -> None:
        """The model's folders, with the engine in their configurations; graphs that change are written anew."""
        place = self._place(rung)
        for name in dict.fromkeys((*self._built.triton_models, self._model.name)):
            shutil.copytree(self._repository / name, place / name, copy_function=_linked)
        if rung.precision == "int8":
            for path in self._graphs(place):
                for part in path.parent.glob(f"{path.name}*"):
                    part.unlink()
        if rung.engine == ACCELERATOR:
            for path in self._graphs(place):
                _by_openvino(config_path(path.parents[1], self._config_name), rung.precision)

    def _graphs(self, folder: Path) -> Iterator[Path]:
        """The files of the graphs, the one that reads the model's inputs first."""
        for name in self._built.triton_models:
            config = read_model_config(config_path(self._repository / name, self._config_name))
            if not config.ensemble_scheduling.step:
                yield folder / name / "1" / config.default_model_filename

    def _bytes(self, folder: Path) -> int:
        return sum(p.stat().st_size for path in self._graphs(folder) for p in path.parent.glob(f"{path.name}*"))

    def _alone_threads(self, rung: Rung, setting: RunSetting) -> int:
        """The threads of a run that is alone."""
        heavy, *_ = self._built.triton_models
        embedded = read_model_config(config_path(self._repository / heavy, EMBEDDED))
        if ALONE_THREADS not in embedded.parameters:
            return setting.threads
        return max(setting.threads, int(embedded.parameters[ALONE_THREADS].string_value))


def _engine(repository: Path, built: Built) -> str:
    heavy, *_ = built.triton_models
    config = read_model_config(config_path(repository / heavy, built.configs["cpu"]))
    accelerators = config.optimization.execution_accelerators.cpu_execution_accelerator
    return next((str(one.name) for one in accelerators), SERVED.engine)


def _by_openvino(path: Path, precision: Precision) -> None:
    config = read_model_config(path)
    accelerator = config.optimization.execution_accelerators.cpu_execution_accelerator.add()
    accelerator.name = ACCELERATOR
    if computed_in := engine_precision(precision):
        accelerator.parameters[PRECISION_KEY] = computed_in
    # A hard link into the repository: it is replaced, never written into.
    path.unlink()
    path.write_text(text_format.MessageToString(config), encoding="utf-8")


def _linked(source: str, target: str) -> None:
    """A hard link, or a copy where the temporary folder lies on another disk."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
