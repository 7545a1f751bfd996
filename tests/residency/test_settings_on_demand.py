"""Settings of loading on demand that cannot be used, and what models are expected to take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from compiler import tiny
from frontend.repository import write_repository
from sie_frontend.http.app import create_app
from sie_frontend.manifest import Manifest, TritonModel, read_manifest
from sie_frontend.residency.units import EMBEDDED_CONFIG, PROCESS_BYTES, expected_bytes, graph_bytes, units_of
from sie_frontend.setting_values import as_size
from sie_frontend.settings import Settings, SettingsError


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repository(tmp_path_factory.mktemp("units") / "repository")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pin": tiny.MODEL_ID}, "`SIE_TRITON_PIN` has no effect where all models are loaded at the start"),
        ({"preload": tiny.MODEL_ID}, "`SIE_TRITON_PRELOAD` has no effect"),
        ({"idle_evict_s": 1.0}, "`SIE_TRITON_IDLE_EVICT_S` has no effect"),
        ({"load": "on-demand", "pin": "no/model"}, "`SIE_TRITON_PIN` names 'no/model', which the repository"),
        ({"load": "on-demand", "preload": "no/model"}, "`SIE_TRITON_PRELOAD` names 'no/model'"),
        ({"memory_budget": 1000, "pin": tiny.MODEL_ID}, "the memory budget is 0 MB"),
    ],
)
def test_what_has_no_effect_or_no_room_is_said_at_the_start(
    settings: dict[str, Any], said: str, repository: Path
) -> None:
    with pytest.raises(SettingsError, match=said):
        create_app(Settings(repository=repository, **settings))


@pytest.mark.parametrize(
    ("text", "size"),
    [("8GB", 8 * 10**9), ("512MiB", 2**29), ("1.5g", 15 * 10**8), ("7", 7), ("7 KB", 7000), ("2tib", 2**41)],
)
def test_sizes(text: str, size: int) -> None:
    assert as_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "GB", "-1GB", "1PB", "1e9", "nan", "inf", "8 G B", "9" * 16])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="a size such as"):
        as_size(text)


def with_ensemble(repository: Path) -> Manifest:
    """The tiny model as an ensemble of an encoder and a head."""
    files: dict[str, str] = {}
    manifest = read_manifest(repository)
    encoder = TritonModel((), (), files, sizes={"1/model.onnx": 100, "1/model.onnx.data": 10**8, "1/tokenizer.json": 7})
    models = {
        "encoder": encoder,
        "head": TritonModel((), (), files, sizes={"1/model.onnx": 10**6, "1/model.float16.onnx": 5 * 10**5}),
        tiny.TRITON_NAME: TritonModel((), (), files, ("encoder", "head")),
    }
    return msgspec.structs.replace(manifest, triton_models=models)


def test_ids_of_one_triton_model_are_one_unit_and_its_parts_stand_before_it(repository: Path) -> None:
    units, unit_of = units_of(with_ensemble(repository), frozenset({f"{tiny.MODEL_ID}:raw"}))
    assert unit_of == {tiny.MODEL_ID: tiny.MODEL_ID, f"{tiny.MODEL_ID}:raw": tiny.MODEL_ID}
    [unit] = units.values()
    assert unit.parts == ("encoder", "head", tiny.TRITON_NAME)
    assert unit.public == (tiny.TRITON_NAME,)
    assert unit.pinned


def test_what_a_model_takes_before_anybody_has_seen_it(repository: Path) -> None:
    copies = 2  # instances of the tiny model's configuration
    assert expected_bytes(with_ensemble(repository), repository, "cpu") == {
        "encoder": copies * (PROCESS_BYTES + int(1.25 * (10**8 + 100))),
        "head": copies * (PROCESS_BYTES + int(1.25 * 10**6)),
        tiny.TRITON_NAME: 0,
    }
    assert graph_bytes({"1/tokenizer.json": 9}) == 0


def test_the_embedded_server_holds_weights_once(repository: Path) -> None:
    manifest = with_ensemble(repository)
    encoder = manifest.triton_models["encoder"]
    sizes = {**encoder.sizes, EMBEDDED_CONFIG: 700}
    models = {**manifest.triton_models, "encoder": msgspec.structs.replace(encoder, sizes=sizes)}
    manifest = msgspec.structs.replace(manifest, triton_models=models)
    once = PROCESS_BYTES + int(1.25 * (10**8 + 100))
    assert expected_bytes(manifest, repository, "cpu", embedded=True)["encoder"] == once
    assert expected_bytes(manifest, repository, "cpu")["encoder"] == 2 * once
