"""Images and texts in one space: two towers, each with a projection of its own (CLIP, Radford et al., 2021)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Protocol, TypeAlias

from sie_frontend.images.options import IMAGE_OPTIONS
from sie_frontend.outputs.dense import DenseHead, Pooled
from sie_frontend.outputs.table import OutputType
from sie_frontend.text.entry import Prompting, PromptStyle

from sie_triton.bundle import Bundle, ResolvedProfile
from sie_triton.checkpoint.files import OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS
from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where
from sie_triton.facts import (
    PREPROCESSOR_NAME,
    CheckpointFacts,
    Pixels,
    TowerSizes,
    read_pixels,
    read_spelling,
    read_towers,
)
from sie_triton.planning.modules import Encoder, PlannedHead, WitnessName
from sie_triton.planning.need import Need
from sie_triton.planning.pictures import Pictures, check_view
from sie_triton.planning.recipe import RecipeBase
from sie_triton.planning.tensors import ATTENTION_MASK, INPUT_IDS, PIXELS, Axis, Tensor

VECTOR = "dense"
POOLING = "projection"


@dataclass(frozen=True, slots=True)
class ProjectedText(PlannedHead):
    """A text's state, projected into the common space: one vector `[batch, dim]` of unit length.

    It is the state at the end token, or, where texts are padded to one length, the last one.
    """

    padded: bool = False
    kind: Literal["dense"] = "dense"
    traceable: ClassVar[bool] = False

    @property
    def reads(self) -> frozenset[str]:
        """The ids tell where a text ends, and the mask what is a token."""
        return frozenset() if self.padded else frozenset({INPUT_IDS, ATTENTION_MASK})

    @property
    def told_by(self) -> tuple[WitnessName, ...]:
        """The witnesses that know it."""
        return ("image_text_model", "open_clip")

    def outputs(self, width: Axis) -> tuple[Tensor, ...]:
        """One tensor."""
        return (Tensor(VECTOR, "FP32", ("batch", width)),)


@dataclass(frozen=True, slots=True)
class ProjectedImage(PlannedHead):
    """A picture's state, projected into the common space: one vector `[batch, dim]` of unit length."""

    kind: Literal["image"] = "image"
    reads_mask: ClassVar[bool] = False
    traceable: ClassVar[bool] = False

    @property
    def told_by(self) -> tuple[WitnessName, ...]:
        """The witnesses that know it."""
        return ("image_text_model", "open_clip")

    def outputs(self, width: Axis) -> tuple[Tensor, ...]:
        """One tensor."""
        return (Tensor(VECTOR, "FP32", ("batch", width)),)


@dataclass(frozen=True, kw_only=True)
class ImageTextRecipe(RecipeBase):
    """Adapters that embed texts and images. No template, instruction or option changes their vectors.

    `model_types` are the architectures that they serve. `states` is how many more states than patches a picture has.
    `padded`: texts are padded to one length, and the padding counts like any token. `clean` is done to texts first.
    """

    model_types: tuple[str, ...]
    states: int = 0
    padded: bool = False
    clean: Literal["open_clip"] | None = None
    outputs: tuple[OutputType, ...] = ("dense",)
    witness: WitnessName = "image_text_model"
    prompting: PromptStyle = "plain"
    modalities: tuple[str, ...] = ("text", "image")
    runtime_options: frozenset[str] = IMAGE_OPTIONS
    extra_files: tuple[str, ...] = (PREPROCESSOR_NAME,)

    def need(self, bundle: Bundle, profile: ResolvedProfile, facts: CheckpointFacts | None) -> Need[ProjectedText]:
        """The tower of texts and its projection."""
        towers = read_towers(facts, *self.model_types) if facts else None
        spelling = read_spelling(facts) if facts and self.padded else None
        return Need(
            encoder=Encoder(padded=self.padded),
            heads=(ProjectedText(self.padded),),
            prompting=Prompting(self.prompting, default_prompt=spelling.start if spelling else None, clean=self.clean),
            served={"dense": served_vector()},
            max_length=self.token_limit(profile, facts),
            width=common_width(bundle, profile, towers),
            reads_padding=self.padded,
            spelling=spelling,
        )

    def pictures(
        self, bundle: Bundle, profile: ResolvedProfile, facts: CheckpointFacts | None
    ) -> Pictures[ProjectedImage]:
        """The tower of pictures and its projection.

        Raises `DiagnosticError` where the files say two sizes, or prepare pictures in a way that is not understood.
        """
        check_view(bundle, profile)
        towers = read_towers(facts, *self.model_types) if facts else None
        pixels = square_pixels(facts, towers) if facts and towers else None
        return Pictures(
            encoder=Encoder(pixels=pixels),
            head=ProjectedImage(),
            inputs=(square(pixels),),
            served={"dense": served_vector()},
            width=common_width(bundle, profile, towers),
            row_tokens=towers.patches + self.states if towers else 1,
        )

    def graph_key(self, bundle: Bundle, profile: ResolvedProfile) -> object:
        """No option changes the graph."""
        return None

    def _checkpoint_limits(self, declared: int | None, facts: CheckpointFacts) -> tuple[int | None, ...]:
        return facts.tokenizer_max_length, read_towers(facts, *self.model_types).positions


class Squares(Protocol):
    """Sizes of a tower that sees squares: edges in pixels."""

    @property
    def image_size(self) -> int:
        """Of a picture."""

    @property
    def patch_size(self) -> int:
        """Of a patch."""


def square_pixels(facts: CheckpointFacts, tower: Squares) -> Pixels:
    """How pictures are prepared. Raises `DiagnosticError` where that does not give what the tower sees."""
    pixels = read_pixels(facts)
    if pixels.fit != "tiles" and pixels.size == tower.image_size and tower.image_size >= tower.patch_size:
        return pixels
    raise other_squares(facts, pixels, tower)


def other_squares(facts: CheckpointFacts, pixels: Pixels, tower: Squares) -> DiagnosticError:
    """Pictures are prepared for another tower than the checkpoint has."""
    message = (
        f"the image processor makes pictures of {pixels.size} pixels, `config.json` says {tower.image_size} "
        f"in patches of {tower.patch_size}"
    )
    return DiagnosticError([Diagnostic("SIE340", message, Where(facts.folder), "fetch the checkpoint again")])


def square(pixels: Pixels | None) -> Tensor:
    """The levels of pictures that are squares."""
    edges: tuple[Axis, Axis] = (pixels.size, pixels.size) if pixels else ("height", "width")
    return Tensor(PIXELS, "UINT8", ("batch", *edges, 3))


def served_vector() -> DenseHead:
    """How the frontend reads the vectors of either tower: they have unit length, whatever a call asks for."""
    pooled = Pooled(VECTOR, VECTOR)
    return DenseHead(POOLING, {}, {POOLING: pooled}, normalize=True, honours_normalize=False)


def common_width(bundle: Bundle, profile: ResolvedProfile, towers: TowerSizes | None) -> Axis:
    """The width of the common space. Raises `DiagnosticError` where the bundle declares another."""
    declared = bundle.dims.get("dense")
    if towers is None:
        return declared or "hidden"
    if declared is None or declared == towers.width:
        return towers.width
    message = f"`{profile.model_id}` declares {declared} dense dimensions, the checkpoint gives {towers.width}"
    hint = f"set `tasks.encode.dense.dim: {towers.width}`, or name the checkpoint that the bundle means"
    raise DiagnosticError([Diagnostic("SIE211", message, bundle.positions.get("tasks.encode.dense.dim"), hint)])


ImageTextHeads: TypeAlias = ProjectedText | ProjectedImage
"""The heads of this family alone."""

_SIGLIP = ImageTextRecipe(
    name="siglip",
    requires_text_message="SiglipAdapter requires either text or images input",
    model_types=("siglip",),
    padded=True,
    notes="texts are padded to the limit, and the padding is billed; images win over text",
)
_OPEN_CLIP = replace(
    _SIGLIP,
    name="open_clip",
    clean="open_clip",
    witness="open_clip",
    extra_files=(OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS),
    loadtime_options=frozenset({"backend", "open_clip_model_id", "dense_dim"}),
)
ADAPTERS: dict[str, ImageTextRecipe] = {
    "CLIPAdapter": ImageTextRecipe(
        name="clip",
        requires_text_message="CLIPAdapter requires either text or images input",
        model_types=("clip",),
        states=1,
        notes="images win over text; several images of an item are the mean of their vectors",
    ),
    "SiglipAdapter": replace(_SIGLIP, backends={"open_clip": _OPEN_CLIP}),
}
