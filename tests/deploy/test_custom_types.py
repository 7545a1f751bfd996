"""Objects of KServe, KEDA and the Gateway API have the fields that their packages know, with values of their types."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest

from deploy import custom_types
from deploy.test_manifests import CASES, objects, of_kind, render
from sie_triton.deploy import DeployOptions

PACKAGES = os.environ.get("SIE_TRITON_CUSTOM_PACKAGES")


@pytest.fixture(scope="module")
def types() -> custom_types.Types:
    found: custom_types.Types = custom_types.recorded()["types"]
    return found


def test_rendered_objects_are_of_their_types(types: custom_types.Types, repository: Path) -> None:
    seen: dict[str, int] = {}
    for kind, options in CASES:
        for found in objects(render(kind, options, repository)):
            if found["kind"] in custom_types.KINDS:
                assert custom_types.problems(found, types) == []
                seen[found["kind"]] = seen.get(found["kind"], 0) + 1
    assert set(seen) == set(custom_types.KINDS)


def _inference_service(repository: Path) -> dict[str, Any]:
    [found] = of_kind(render("kserve", DeployOptions(), repository), "InferenceService").values()
    return copy.deepcopy(found)


def test_a_wrong_field_is_noticed(types: custom_types.Types, repository: Path) -> None:
    found = _inference_service(repository)
    found["spec"]["transformer"]["replicas"] = 2
    assert custom_types.problems(found, types) == ["InferenceService.spec.transformer has no field replicas"]


def test_a_wrong_type_is_noticed(types: custom_types.Types, repository: Path) -> None:
    found = _inference_service(repository)
    found["spec"]["predictor"]["model"]["modelFormat"]["version"] = 2
    found["spec"]["predictor"]["minReplicas"] = "2"
    assert len(custom_types.problems(found, types)) == 2


def test_a_missing_field_is_noticed(types: custom_types.Types, repository: Path) -> None:
    files = render("kubernetes", DeployOptions(autoscaler="keda"), repository)
    found = copy.deepcopy(of_kind(files, "ScaledObject")["sie-triton-triton"])
    del found["spec"]["triggers"][0]["type"]
    [problem] = custom_types.problems(found, types)
    assert "lacks type" in problem


@pytest.mark.skipif(
    PACKAGES is None, reason="needs the packages of the table: SIE_TRITON_CUSTOM_PACKAGES names a folder"
)
def test_the_table_is_what_the_packages_say(request: pytest.FixtureRequest) -> None:
    assert PACKAGES is not None
    table = custom_types.read_packages(Path(PACKAGES))
    text = json.dumps(table, indent=1, sort_keys=True) + "\n"
    if request.config.getoption("--update-golden"):
        custom_types.TABLE.write_text(text, encoding="utf-8")
    assert text == custom_types.TABLE.read_text(encoding="utf-8")
