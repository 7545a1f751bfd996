"""`tune`: what it tries, what it chooses, what it writes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import onnxruntime
import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from sie_frontend.manifest import read_manifest
from sie_frontend.text.reader import TextReader

from compiler import tiny
from compiler.command import sie_triton
from sie_triton.diagnostics import DiagnosticError
from sie_triton.repository.config import INSTANCE_WEIGHT_BYTES
from sie_triton.repository.publish import tree_digests, write_manifest
from sie_triton.tuning import speeds
from sie_triton.tuning.settings import BUDGETS, RunSetting, candidates, choose
from sie_triton.tuning.speeds import Samples, TimedModel, sample_rows
from sie_triton.tuning.tune import tune_repository
from sie_triton.verify.checks import verify_repository
from sie_triton.verify.model_runner import ModelRunner, TimedServer, read_model_config
from sie_triton.verify.public_model import public_model

BRIEF = Samples(0.05, 1)


@given(st.integers(1, 64), st.integers(0, 1 << 33))
def test_every_candidate_fits_the_machine(cores: int, weight_bytes: int) -> None:
    found = list(candidates(cores, weight_bytes))
    assert {setting.run_tokens for setting in found} == set(BUDGETS)
    assert len(set(found)) == len(found)
    for setting in found:
        assert 1 <= setting.streams * setting.threads <= cores
        assert setting.streams == 1 or setting.streams * weight_bytes <= INSTANCE_WEIGHT_BYTES


def test_among_equals_the_shortest_runs_and_the_most_streams_win() -> None:
    speeds = {
        RunSetting(512, 2, 1): 1000.0,
        RunSetting(256, 2, 1): 980.0,
        RunSetting(256, 1, 2): 985.0,
        RunSetting(128, 2, 1): 900.0,
    }
    assert choose(speeds) == RunSetting(256, 2, 1)
    assert choose({**speeds, RunSetting(128, 2, 1): 999.0}) == RunSetting(128, 2, 1)


def test_rows_are_the_same_every_time_and_within_the_limit(repository: Path) -> None:
    manifest = read_manifest(repository)
    reader = public_model(repository, manifest, tiny.TRITON_NAME).reader
    assert isinstance(reader, TextReader)
    first, second = sample_rows(reader), sample_rows(reader)
    assert [row.ids.tolist() for row in first] == [row.ids.tolist() for row in second]
    lengths = [len(row) for row in first]
    assert 1 <= min(lengths) < max(lengths) == manifest.models[tiny.MODEL_ID].text.tokenization.max_length


def test_what_was_chosen_is_written_and_nothing_else_changes(repository: Path, tmp_path: Path) -> None:
    kept = Path(shutil.copytree(repository, tmp_path / "kept"))
    said: list[str] = []
    (tuned,) = tune_repository(repository, read_manifest(repository), cores=2, samples=BRIEF, announce=said.append)
    manifest = read_manifest(repository)
    assert verify_repository(repository, manifest) == []
    for model in manifest.models.values():
        batching = model.inputs["text"].batching["cpu"]
        assert (batching.run_tokens, batching.streams) == (tuned.chosen.run_tokens, tuned.chosen.streams)
        assert batching.max_batch_size >= tuned.chosen.run_tokens // model.text.tokenization.buckets[0]
        assert batching.measured is not None
        assert len(batching.measured.tokens_per_second) == len(tuned.speeds) == len(list(candidates(2, 0)))
        assert all(speed > 0 for speed in batching.measured.tokens_per_second.values())
    encoder = read_model_config(repository / f"{tiny.TRITON_NAME}.encoder" / "config.pbtxt")
    express = next(iter(manifest.models.values())).inputs["text"].batching["cpu"].express
    assert encoder.instance_group[0].count == tuned.chosen.streams + express
    assert encoder.parameters["intra_op_thread_count"].string_value == str(tuned.chosen.threads)
    embedded = read_model_config(repository / f"{tiny.TRITON_NAME}.encoder" / "configs" / "embedded.pbtxt")
    assert embedded.instance_group[0].count == 1  # one process, which computes as many runs as there are instances
    assert embedded.parameters["streams"].string_value == str(tuned.chosen.streams + express)
    assert embedded.max_batch_size == encoder.max_batch_size
    head = read_model_config(repository / f"{tiny.TRITON_NAME}.dense" / "config.pbtxt")
    assert head.instance_group[0].count == 1
    before, after = tree_digests(kept), tree_digests(repository)
    changed = {name for name in before if before[name] != after.get(name)}
    assert before.keys() == after.keys()
    assert all(name.endswith(("config.pbtxt", "embedded.pbtxt")) or name.startswith("manifest.") for name in changed)
    assert said


def test_a_build_in_between_is_not_lost(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = read_manifest(repository)
    (record,) = manifest.built.values()

    def rebuild(*_: object) -> list[dict[RunSetting, float]]:
        newer = {tiny.TRITON_NAME: msgspec.structs.replace(record, key="another build")}
        write_manifest(repository, msgspec.structs.replace(manifest, built=newer))
        return [{RunSetting(128, 1, 1): 1.0}]

    monkeypatch.setattr(TimedModel, "speeds", rebuild)
    with pytest.raises(DiagnosticError, match="SIE609"):
        tune_repository(repository, manifest, cores=1, samples=BRIEF, announce=lambda _: None)
    assert read_manifest(repository).built[tiny.TRITON_NAME].key == "another build"


def test_a_cpu_build_of_another_precision_is_tuned(repository: Path) -> None:
    for part in ("encoder", "dense"):
        folder = repository / f"{tiny.TRITON_NAME}.{part}"
        (folder / "1" / "model.onnx").rename(folder / "1" / "model.float16.onnx")
        for config in (folder / "config.pbtxt", folder / "configs" / "embedded.pbtxt"):
            config.write_text(config.read_text().replace('"model.onnx"', '"model.float16.onnx"'))
    (tuned,) = tune_repository(repository, read_manifest(repository), cores=1, samples=BRIEF, announce=lambda _: None)
    assert len(tuned.speeds) == len(BUDGETS)


def test_the_command_prints_every_speed(repository: Path) -> None:
    done = sie_triton("tune", "-r", repository, "--seconds", "0.1", "--rounds", "1", "--cores", "1")
    assert done.code == 0
    lines = done.stdout.splitlines()
    assert len(lines) == len(BUDGETS)
    assert sum("<- chosen" in line for line in lines) == 1


@pytest.mark.parametrize(
    ("field", "value", "code"), [("configs", {"cuda": ""}, "SIE607"), ("format", "torchscript", "SIE608")]
)
def test_what_cannot_be_tuned_is_told(field: str, value: object, code: str, repository: Path) -> None:
    manifest = read_manifest(repository)
    built = {name: msgspec.structs.replace(record, **{field: value}) for name, record in manifest.built.items()}
    with pytest.raises(DiagnosticError, match=code):
        tune_repository(
            repository,
            msgspec.structs.replace(manifest, built=built),
            cores=1,
            samples=BRIEF,
            announce=lambda _: None,
        )


@pytest.mark.parametrize(
    ("server", "written", "spins"),
    [("embedded", None, "0"), ("embedded", "1", "1"), ("nvidia", None, "1"), ("nvidia", "0", "1")],
)
def test_sessions_are_those_of_the_server_that_will_serve(
    repository: Path, monkeypatch: pytest.MonkeyPatch, server: TimedServer, written: str | None, spins: str
) -> None:
    """The embedded backend makes its options of the same configuration, and NVIDIA's of 24.10 reads no such key."""
    if written:
        for path in repository.glob("*/config.pbtxt"):
            config = read_model_config(path)
            config.parameters["session.intra_op.allow_spinning"].string_value = written
            path.write_text(text_format.MessageToString(config))
    made: list[onnxruntime.SessionOptions] = []
    session = onnxruntime.InferenceSession

    def recorded(path: str, options: onnxruntime.SessionOptions, **more: Any) -> onnxruntime.InferenceSession:
        made.append(options)
        return session(path, options, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", recorded)
    manifest = read_manifest(repository)
    settings = [RunSetting(128, 1, 2)]
    model = TimedModel(repository, manifest, tiny.TRITON_NAME)
    [speeds] = model.speeds([repository], settings, Samples(0.05, 1, server))
    assert speeds[settings[0]] > 0
    assert made
    for options in made:
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == spins
        assert options.intra_op_num_threads == 2


def test_what_is_written_tells_whose_sessions_were_measured(repository: Path) -> None:
    command = ["tune", "-r", str(repository), "--cores", "2", "--seconds", "0.1", "--rounds", "1", "--server", "nvidia"]
    assert sie_triton(*command).code == 0
    measured = read_manifest(repository).models[tiny.MODEL_ID].inputs["text"].batching["cpu"].measured
    assert measured
    assert measured.machine.endswith("NVIDIA's server")


def test_settings_are_timed_in_turns_where_memory_is_short(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is opened when its turn comes, and none is left out."""
    opened: list[tuple[int, int]] = []
    manifest = read_manifest(repository)
    settings = list(candidates(2, 0, budgets=(128, 256)))
    shapes = {(setting.streams, setting.threads) for setting in settings}

    class Counted(ModelRunner):
        def __init__(self, *arguments: Any) -> None:
            opened.append((arguments[-1].streams, arguments[-1].threads))
            super().__init__(*arguments)

    monkeypatch.setattr(speeds, "ModelRunner", Counted)
    for room, times in ((1 << 40, 1), (0, 2), (None, 1)):
        opened.clear()
        monkeypatch.setattr(speeds, "available_memory", lambda room=room: room)
        [found] = TimedModel(repository, manifest, tiny.TRITON_NAME).speeds([repository], settings, Samples(0.02, 2))
        assert found.keys() == set(settings) and min(found.values()) > 0
        assert sorted(opened) == sorted([*shapes] * times)
