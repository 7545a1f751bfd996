"""Where the patches of a tile stand: as SIE's own server has them on a GPU, and as it has them on a CPU.

`sie_colsmol.npz` is what SIE 0.10.1 and transformers 4.57.6 gave on a CPU, with torch 2.13. `places_SIDE_TYPE` are the
positions that `Idefics3VisionEmbeddings` looks up for the patches of a whole tile, of SIDE by SIDE, in that type.
`page_TYPE` and `query_TYPE` are what `ColSmolAdapter` made of one page and one query with the checkpoint below, under
an adapter that adds nothing, in float32 as on a CPU, and in float16, a type that it chooses on a GPU alone.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from compiler.command import sie_triton
from frontend.pictures import encoded, noise
from PIL import Image
from sie_frontend.images.preparing import preparer
from sie_frontend.reference import Case
from sie_frontend.rows import Array
from transformers import AutoTokenizer

from sie_triton.bundle import parse_bundle
from sie_triton.diagnostics import DiagnosticError
from sie_triton.facts import read_facts
from sie_triton.planning.catalogue import verdict
from sie_triton.planning.families import PageRecipe
from sie_triton.planning.plan import TritonPlan
from sie_triton.planning.planner import make_plans
from sie_triton.witness import pages as witness

from .idefics3 import END, write_colsmol
from .test_colpali_graphs import bundle_text, run
from .test_colsmol_graphs import ADAPTER, entry_of

DIM = 128
PAGE = (18, 40)
QUERY = "total revenue"
HALVES = ("float16", "bfloat16")
SHIFTED = "runtime: {patch_positions: shifted}"


@pytest.fixture(scope="module")
def recorded() -> dict[str, Array]:
    with np.load(Path(__file__).with_name("sie_colsmol.npz"), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("colsmol")
    write_colsmol(folder, width=DIM)
    return folder


def planned(folder: Path, *, runtime: str = "runtime: {}", computes: str = "bfloat16") -> list[TritonPlan]:
    """Of a bundle with the two profiles; `runtime` stands in `default`."""
    text = bundle_text(folder, DIM, ADAPTER).replace("compute_precision: bfloat16", f"compute_precision: {computes}")
    text = text.replace("      loadtime:", f"      {runtime}\n      loadtime:", 1)
    bundle, mistakes = parse_bundle(text, folder)
    assert bundle is not None, mistakes
    profiles = []
    for name in bundle.profiles:
        profile = bundle.resolve(name)
        recipe = verdict(profile, bundle)
        assert isinstance(recipe, PageRecipe)
        profiles.append((profile, recipe))
    return list(make_plans(bundle, profiles, read_facts(folder)))


def image_plan(plans: list[TritonPlan]) -> TritonPlan:
    (plan,) = (plan for plan in plans if plan.modality == "image")
    return plan


def page_vectors(folder: Path, plan: TritonPlan) -> Array:
    row = preparer(entry_of(plan)).row(Image.fromarray(noise(*PAGE)))
    (folder / f"{plan.name}.float32.onnx").unlink(missing_ok=True)
    made: Array = run(folder, plan, {name: array[None] for name, array in row.arrays.items()})[0]
    return made


def cosines(ours: Array, theirs: Array) -> Array:
    assert ours.shape == theirs.shape
    theirs = theirs.astype(np.float64)
    made: Array = (ours * theirs).sum(-1) / np.linalg.norm(theirs, axis=-1) / np.linalg.norm(ours, axis=-1)
    return made


@pytest.mark.parametrize("side", [4, 8, 16, 32])
def test_half_precision_has_the_positions_of_training_and_float32_those_in_front(
    recorded: dict[str, Array], side: int
) -> None:
    """What the two words of the option mean, in transformers' own numbers."""
    for name in HALVES:
        assert recorded[f"places_{side}_{name}"].tolist() == list(range(side * side))
    lines = recorded[f"places_{side}_float32"].reshape(side, side)
    assert lines[0].tolist() == [0, *range(side - 1)]
    assert (lines[:, 0] // side).tolist() == [0, *range(side - 1)]


@pytest.mark.parametrize(
    ("places", "same", "other"), [("trained", "float16", "float32"), ("shifted", "float32", "float16")]
)
def test_pages_are_those_of_sies_own_server(
    checkpoint: Path, recorded: dict[str, Array], places: str, same: str, other: str
) -> None:
    """In float32 to the sixth digit; in float16 as closely as that type goes, and ten times closer than the other."""
    ours = page_vectors(checkpoint, image_plan(planned(checkpoint, runtime=f"runtime: {{patch_positions: {places}}}")))
    close, far = cosines(ours, recorded[f"page_{same}"]), cosines(ours, recorded[f"page_{other}"])
    assert close.min() >= (0.99999 if same == "float32" else 0.999)
    assert far.min() < 0.985
    assert 1 - far.mean() > 10 * (1 - close.mean())


def test_queries_are_sies_whatever_stands_where(checkpoint: Path, recorded: dict[str, Array]) -> None:
    (text,) = (plan for plan in planned(checkpoint, runtime=SHIFTED) if plan.modality == "text")
    ids = AutoTokenizer.from_pretrained(checkpoint)(QUERY + END * 10, return_tensors="np")["input_ids"]
    found = run(checkpoint, text, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]
    assert cosines(found, recorded["query_float32"]).min() >= 0.99999
    assert cosines(found, recorded["query_float16"]).min() >= 0.999


@pytest.mark.parametrize("places", ["trained", "shifted"])
def test_the_witness_has_them_too(checkpoint: Path, recorded: dict[str, Array], places: str) -> None:
    """This release of transformers, told to look where 4.57 looked, is close to what 4.57 gave, and so are we."""
    shifted = places == "shifted"
    plan = image_plan(planned(checkpoint, runtime=f"runtime: {{patch_positions: {places}}}"))
    row = preparer(entry_of(plan)).row(Image.fromarray(noise(*PAGE)))
    case = Case(base64.b64encode(encoded(Image.fromarray(noise(*PAGE)), "PNG")).decode())
    with torch.inference_mode():
        told = witness.testify_pages(checkpoint, ["multivector"], [case], [row], shifted=shifted)
    (theirs,) = told.outputs["multivector"]
    np.testing.assert_allclose(page_vectors(checkpoint, plan), theirs, atol=1e-5, rtol=0)
    assert cosines(theirs, recorded["page_float32" if shifted else "page_float16"]).min() >= 0.999
    assert ("transformers 4.57" in told.implementation) == shifted
    assert any("positions" in text for text in told.not_compared) == shifted


@pytest.mark.parametrize(
    ("computes", "runtime", "shifted"),
    [
        ("bfloat16", "runtime: {}", False),
        ("float16", "runtime: {}", False),
        ("null", "runtime: {}", False),
        ("float32", "runtime: {}", True),
        ("float32", "runtime: {patch_positions: trained}", False),
        ("float32", "runtime: {patch_positions: null}", True),
        ("bfloat16", SHIFTED, True),
    ],
)
def test_the_bundle_decides_as_sies_gpu_does(checkpoint: Path, computes: str, runtime: str, shifted: bool) -> None:
    plans = planned(checkpoint, runtime=runtime, computes=computes)
    assert image_plan(plans).encoder.shifted_patches == shifted
    # MUVERA's profile shares its graphs.
    assert [(plan.modality, len(plan.served)) for plan in plans] == [("text", 2), ("image", 2)]
    assert not any(plan.warnings for plan in plans)


def test_a_profile_of_its_own_shares_the_graph_of_texts(checkpoint: Path) -> None:
    """So that an index of either kind can be asked while pages are embedded again."""
    text = bundle_text(checkpoint, DIM, ADAPTER)
    text += "  cpu:\n    extends: default\n    adapter_options: {runtime: {patch_positions: shifted}}\n"
    (checkpoint / "bundle.yaml").write_text(text, encoding="utf-8")
    done = sie_triton("plan", "--bundles", checkpoint, "-m", "acme/pages")
    assert done.code == 0, done.stderr
    blocks = re.split(r"\n(?=\S)", done.stdout)
    served = {block.split(" ")[0]: block for block in blocks}
    assert served["acme__pages"].startswith("acme__pages serves acme/pages, acme/pages:muvera, acme/pages:cpu\n")
    assert "shifted" not in served["acme__pages.image"]
    assert "shifted" in served["acme__pages__cpu.image"]


def test_another_word_is_refused_where_it_stands(checkpoint: Path) -> None:
    with pytest.raises(DiagnosticError, match=r"`runtime\.patch_positions` 'half'") as raised:
        planned(checkpoint, runtime="runtime: {patch_positions: half}")
    (found,) = raised.value.diagnostics
    assert found.code == "SIE217"
    assert found.where is not None
    assert found.where.line is not None


def test_a_model_without_tiles_says_that_it_does_not_read_the_option(tmp_path: Path) -> None:
    text = bundle_text(tmp_path, DIM, "ColPaliAdapter").replace(
        "      loadtime:", f"      {SHIFTED}\n      loadtime:", 1
    )
    bundle, mistakes = parse_bundle(text, tmp_path)
    assert bundle is not None, mistakes
    profile = bundle.resolve("default")
    recipe = verdict(profile, bundle)
    assert isinstance(recipe, PageRecipe)
    warnings = [text for plan in make_plans(bundle, [(profile, recipe)], None) for text in plan.warnings]
    assert any("runtime.patch_positions" in text and "no effect" in text for text in warnings)
