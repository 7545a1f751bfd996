"""What a bundle may ask of pictures: read by the frontend, left out of the comparison, refused where it is unknown."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sie_frontend.images.entry import ImageInput
from sie_frontend.reference import Case

from sie_triton.bundle import parse_bundle
from sie_triton.compiler.images import WrittenImages
from sie_triton.diagnostics import DiagnosticError
from sie_triton.planning.catalogue import verdict
from sie_triton.planning.families import Recipe
from sie_triton.planning.plan import TritonPlan
from sie_triton.planning.planner import make_plans
from sie_triton.verify import testimony
from sie_triton.verify.image_cases import image_cases
from sie_triton.verify.public_model import PublicModel, open_reader

from .test_image_text_graphs import bundle_text


def image_plan(option: str) -> TritonPlan:
    text = bundle_text(Path("nowhere")).replace("normalize: true", option)
    bundle, mistakes = parse_bundle(text, Path("clip.yaml"))
    assert bundle is not None, mistakes
    profile = bundle.resolve("default")
    recipe = verdict(profile, bundle)
    assert isinstance(recipe, Recipe)
    (plan,) = (made for made in make_plans(bundle, [(profile, recipe)], None) if made.modality == "image")
    return plan


@pytest.mark.parametrize("option", ["image_alpha: white", "image_orientation: exif"])
def test_an_option_of_the_bundle_is_said_and_not_compared(option: str) -> None:
    """The cases have alpha: the checkpoint's own processor never turns or composes anything."""
    plan = image_plan(option)
    assert plan.warnings == ()
    told = testimony.Testimony(implementation="", outputs={}, compared=())
    (said,) = WrittenImages(plan, Path("nowhere")).warnings(told)
    assert f"`runtime.{option}` of `acme/clip`" in said
    entry = ImageInput("pixels", 24, "crop", "bicubic", "either")
    options = plan.served[0].profile.runtime
    assert option.partition(":")[0] in options
    model = PublicModel(plan.name, open_reader("image", entry, Path("nowhere"), {"default": options}), options, ())
    bare = PublicModel(plan.name, model.reader, {}, ())
    cases = image_cases()
    for one, other in zip(model.rows(cases), bare.rows(cases), strict=True):
        np.testing.assert_array_equal(one.arrays["pixels"], other.arrays["pixels"])
    assert {"RGBA", "LA"} <= {mode(case) for case in cases}


def mode(case: Case) -> str:
    return Image.open(io.BytesIO(base64.b64decode(case.document or ""))).mode


def test_a_bundle_without_them_is_silent() -> None:
    plan = image_plan("query_template: null")
    assert (
        WrittenImages(plan, Path("nowhere")).warnings(testimony.Testimony(implementation="", outputs={}, compared=()))
        == ()
    )


@pytest.mark.parametrize("option", ["image_alpha: grey", "image_orientation: true"])
def test_an_unknown_value_ends_the_plan_by_name(option: str) -> None:
    with pytest.raises(DiagnosticError) as caught:
        image_plan(option)
    (problem,) = caught.value.diagnostics
    name = option.partition(":")[0]
    assert problem.code == "SIE217"
    assert f"`acme/clip`: 'adapter_options.runtime.{name}' must be" in problem.message
