"""Images in the compiler: the manifest's entry, the graph that begins with pixels, the witness on Pillow."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from sie_frontend.images.entry import AnyImageInput, ImageInput, TiledInput
from sie_frontend.images.options import IMAGE_OPTIONS
from sie_frontend.reference import Case
from sie_frontend.rows import Row

from sie_triton.checkpoint.open_clip import published_folder
from sie_triton.compiler.options import Announce
from sie_triton.compiler.packages import NOTHING_TO_COMPARE, check_witness, missing_package
from sie_triton.facts import Pixels, Tiling
from sie_triton.formats import Precision
from sie_triton.planning.plan import ServedPlan, TritonPlan
from sie_triton.planning.tensors import INPUT_IDS, PIXELS
from sie_triton.verify.image_cases import image_cases
from sie_triton.verify.public_model import PublicModel
from sie_triton.verify.testimony import Testimony

if TYPE_CHECKING:
    from sie_triton.onnx_graphs.writer import GraphWriter


class ImageWorkbench:
    """A checkpoint with a tower of pictures. Its graph is always written: torch is needed for the witness alone."""

    def __init__(self, folder: Path, announce: Announce, *, trust_remote_code: bool) -> None:
        os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
        self._folder = folder
        self._announce = announce
        self._trust = trust_remote_code
        self._writer: GraphWriter | None = None

    def write_input(self, plan: TritonPlan, home: Path) -> WrittenImages:
        """Nothing is written: the entry says how pictures are prepared."""
        return WrittenImages(plan, self._folder)

    def write_graphs(self, plan: TritonPlan, staging: Path, precision: Precision) -> None:
        """The one graph of the plan in a precision. Raises `DiagnosticError` for what is not written."""
        try:
            from sie_triton.compiler.text_graphs import graph_path, not_written
            from sie_triton.onnx_graphs.declined import Declined
            from sie_triton.onnx_graphs.writer import GraphWriter
        except ModuleNotFoundError as error:
            raise missing_package(error, "`build` needs transformers, safetensors and onnx") from None
        (graph,) = plan.graphs
        self._announce(f"{graph.triton_model}: writing the graph in {precision}")
        try:
            self._writer = self._writer or GraphWriter(self._folder, _no_tokens, trust_remote_code=self._trust)
            self._writer.write(plan, graph, graph_path(plan, graph, staging, precision), precision)
        except Declined as declined:
            raise not_written(graph.triton_model, str(declined)) from None


def _tiled(pixels: Pixels, tiling: Tiling, requires: str, *, shifted: bool) -> TiledInput:
    assert pixels.longest is not None
    return TiledInput(
        pixels=PIXELS,
        ids=INPUT_IDS,
        size=pixels.size,
        longest=pixels.longest,
        resample=pixels.resample,
        requires=requires,
        image_id=tiling.image_id,
        tile_positions=tiling.positions,
        layouts=dict(tiling.layouts),
        patch_positions="shifted" if shifted else "trained",
    )


class WrittenImages:
    """The image input of one plan."""

    def __init__(self, plan: TritonPlan, folder: Path) -> None:
        self._plan = plan
        self._folder = folder

    def reads(self, served: ServedPlan, testimony: Testimony | None = None) -> AnyImageInput:
        """How a picture becomes what the graph takes."""
        pixels, page = self._plan.encoder.pixels, self._plan.encoder.page
        assert pixels is not None, "a build has the checkpoint's facts"
        if isinstance(page, Tiling):
            requires = served.recipe.requires_text_message
            return _tiled(pixels, page, requires, shifted=self._plan.encoder.shifted_patches)
        assert pixels.fit != "tiles"
        return ImageInput(
            tensor=PIXELS,
            size=pixels.size,
            fit=pixels.fit,
            resample=pixels.resample,
            requires=served.recipe.requires_text_message,
            positions=self._plan.max_length,
        )

    def cases(self, model: PublicModel) -> tuple[Case, ...]:
        """Pictures of many sizes, shapes and modes."""
        return image_cases()

    def testify(self, model: PublicModel, cases: Sequence[Case], rows: Sequence[Row]) -> Testimony:
        """What the witness makes of the pictures. Raises `DiagnosticError` if it prepares one otherwise than we do."""
        witness = self._plan.served[0].recipe.witness
        check_witness(witness)
        names = [tensor.name for tensor in self._plan.outputs]
        try:
            from sie_triton.witness.image_text import testify_images
            from sie_triton.witness.pages import testify_pages
        except ModuleNotFoundError as error:
            raise missing_package(error, NOTHING_TO_COMPARE) from None
        if witness == "page_model":
            return testify_pages(self._folder, names, cases, rows, shifted=self._plan.encoder.shifted_patches)
        return testify_images(published_folder(self._folder), witness, names, cases, rows)

    def warnings(self, testimony: Testimony) -> tuple[str, ...]:
        """What the bundle does to pictures, of which no other implementation was asked."""
        return uncompared_views(self._plan)


def uncompared_views(plan: TritonPlan) -> tuple[str, ...]:
    """A warning for each option of a bundle that changes pictures before they are scaled."""
    return tuple(
        f"`runtime.{name}: {served.profile.runtime[name]}` of `{served.profile.model_id}` is done to pictures "
        "before they are scaled; the build was compared without it"
        for served in plan.served
        for name in sorted(IMAGE_OPTIONS & served.profile.runtime.keys())
    )


def _no_tokens(token: str) -> NoReturn:
    raise AssertionError("no head of pictures reads tokens")
