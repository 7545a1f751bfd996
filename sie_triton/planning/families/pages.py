"""Pages and queries: a language model that sees pictures, with a vector for each of its positions (ColPali, Faysse et
al., 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias, cast, get_args

from sie_frontend.images.entry import Places
from sie_frontend.images.options import IMAGE_OPTIONS
from sie_frontend.images.tiling import grids
from sie_frontend.outputs.multivector import MultiVectorHead
from sie_frontend.outputs.table import Head, OutputType
from sie_frontend.text.entry import Prompting, PromptStyle, Queries, Usage

from sie_triton.bundle import Bundle, ResolvedProfile
from sie_triton.diagnostics import Diagnostic, DiagnosticError
from sie_triton.facts import (
    PREPROCESSOR_NAME,
    CheckpointFacts,
    Framing,
    Tiling,
    TowerSizes,
    check_bare,
    check_positions,
    read_page_sizes,
    read_page_texts,
    read_pixels,
    read_tiling,
    special_token,
    token_ids,
)
from sie_triton.planning.families.image_text import other_squares, square, square_pixels
from sie_triton.planning.modules import Encoder, PlannedHead, WitnessName
from sie_triton.planning.need import Need
from sie_triton.planning.pictures import Pictures, check_view
from sie_triton.planning.recipe import RecipeBase
from sie_triton.planning.tensors import INPUT_IDS, PIXELS, Axis, Tensor

VECTORS: Literal["multivector"] = "multivector"
# As many pad tokens stand behind a query: room to think, which the models were trained with.
BUFFERS = 10
# An option of ours, among the runtime options since SIE ignores those that it does not know.
PATCH_POSITIONS = "patch_positions"


@dataclass(frozen=True, slots=True)
class PageVectors(PlannedHead):
    """A vector of unit length for each position: `[batch, positions, dim]`.

    `projection` is the checkpoint's linear layer. Of pictures that take as many positions each, their number is known.
    """

    projection: str
    positions: Axis = "sequence"
    kind: Literal["page"] = "page"
    reads_mask: ClassVar[bool] = False
    traceable: ClassVar[bool] = False

    @property
    def told_by(self) -> tuple[WitnessName, ...]:
        """The witnesses that know it."""
        return ("page_model", "mixed_model")

    def outputs(self, width: Axis) -> tuple[Tensor, ...]:
        """One tensor."""
        return (Tensor(VECTORS, "FP32", ("batch", self.positions, width)),)


@dataclass(frozen=True, kw_only=True)
class PageRecipe(RecipeBase):
    """Adapters that embed pages and queries. No template, instruction or option changes their vectors.

    `model_type` is the architecture that they serve, `parts` lead to its two configurations in `config.json`, and
    `projection` is the linear layer that makes vectors of states.
    """

    model_type: str
    projection: str
    parts: tuple[str, ...] = ()
    outputs: tuple[OutputType, ...] = ("multivector",)
    witness: WitnessName = "page_model"
    prompting: PromptStyle = "plain"
    usage_counts: Usage = "bare"
    queries: Queries = "text_first"
    modalities: tuple[str, ...] = ("text", "image")
    loadtime_options: frozenset[str] = frozenset({"muvera_config", "normalize", "token_dim"})
    runtime_options: frozenset[str] = IMAGE_OPTIONS
    extra_files: tuple[str, ...] = (PREPROCESSOR_NAME,)

    def need(self, bundle: Bundle, profile: ResolvedProfile, facts: CheckpointFacts | None) -> Need[PageVectors]:
        """Texts: what the processor writes around them, and a vector for each token of the whole."""
        sizes = self._sizes(facts)
        prefix, framing = self._around_texts(facts)
        return Need(
            encoder=Encoder(),
            heads=(PageVectors(self.projection),),
            prompting=Prompting(self.prompting, default_prompt=prefix or None),
            served=served_vectors(),
            max_length=self.token_limit(profile, facts),
            width=vector_width(bundle, profile, sizes),
            framing=framing,
        )

    def pictures(
        self, bundle: Bundle, profile: ResolvedProfile, facts: CheckpointFacts | None
    ) -> Pictures[PageVectors]:
        """Pages: what the tower sees of a square, and the prompt behind it.

        Raises `DiagnosticError` where the files say two sizes, or prepare pictures in a way that is not understood.
        """
        check_view(bundle, profile)
        sizes = self._sizes(facts)
        width, served = vector_width(bundle, profile, sizes), served_vectors()
        if facts is None or sizes is None:
            head = PageVectors(self.projection, "positions")
            return Pictures(Encoder(page=()), head, (square(None),), served, width)
        pixels, texts = square_pixels(facts, sizes), read_page_texts(facts)
        check_positions(facts, sizes.patches)
        prompt = token_ids(facts, f"{special_token(facts, 'bos')}{texts.visual_prompt}\n")
        positions = sizes.patches + len(prompt)
        return Pictures(
            encoder=Encoder(pixels=pixels, page=prompt),
            head=PageVectors(self.projection, positions),
            inputs=(square(pixels),),
            served=served,
            width=width,
            costs=(positions,),
        )

    def graph_key(self, bundle: Bundle, profile: ResolvedProfile) -> object:
        """No option changes the graph."""
        return None

    def _around_texts(self, facts: CheckpointFacts | None) -> tuple[str, Framing | None]:
        """The text in front of a text, and the tokens around both."""
        if facts is None:
            return "", None
        after = special_token(facts, "pad") * BUFFERS + "\n"
        return read_page_texts(facts).query_prefix, Framing(special_token(facts, "bos"), after)

    def _sizes(self, facts: CheckpointFacts | None) -> TowerSizes | None:
        if facts is None:
            return None
        return read_page_sizes(facts, self.model_type, f"{self.projection}.weight", *self.parts)

    def _checkpoint_limits(self, declared: int | None, facts: CheckpointFacts) -> tuple[int | None, ...]:
        sizes = self._sizes(facts)
        return facts.tokenizer_max_length, sizes.positions if sizes else None


@dataclass(frozen=True, kw_only=True)
class TiledRecipe(PageRecipe):
    """Pages that are cut into tiles, which stand among tokens of text. `prompt` is what stands around a picture, and
    `buffer` the token that stands behind queries.
    """

    prompt: tuple[str, str]
    buffer: str
    runtime_options: frozenset[str] = IMAGE_OPTIONS | {PATCH_POSITIONS}

    def graph_key(self, bundle: Bundle, profile: ResolvedProfile) -> object:
        """The positions of patches."""
        return patch_positions(bundle, profile)

    def pictures(
        self, bundle: Bundle, profile: ResolvedProfile, facts: CheckpointFacts | None
    ) -> Pictures[PageVectors]:
        """Tiles, and the tokens among which they stand.

        Raises `DiagnosticError` where the files do not fit together.
        """
        check_view(bundle, profile)
        sizes = self._sizes(facts)
        pixels = read_pixels(facts) if facts else None
        page: tuple[int, ...] | Tiling = ()
        costs: tuple[int, ...] = (1,)
        if facts and sizes and pixels:
            if pixels.longest is None or pixels.size != sizes.image_size:
                raise other_squares(facts, pixels, sizes)
            check_bare(facts)
            page = read_tiling(facts, sizes, grids(pixels.longest, pixels.size), self.prompt)
            costs = page.costs
        edge: Axis = pixels.size if pixels else "edge"
        return Pictures(
            encoder=Encoder(pixels=pixels, page=page, shifted_patches=patch_positions(bundle, profile) == "shifted"),
            head=PageVectors(self.projection),
            inputs=(
                Tensor(PIXELS, "UINT8", ("batch", "tiles", edge, edge, 3)),
                Tensor(INPUT_IDS, "INT64", ("batch", "sequence")),
            ),
            served=served_vectors(),
            width=vector_width(bundle, profile, sizes),
            costs=costs,
        )

    def _around_texts(self, facts: CheckpointFacts | None) -> tuple[str, Framing | None]:
        if facts:
            check_bare(facts)
        return "", Framing(after=self.buffer * BUFFERS)


def patch_positions(bundle: Bundle, profile: ResolvedProfile) -> Places:
    """The positions that the patches of a tile have: what the bundle says, else what SIE computes on a GPU.

    transformers 4.57 makes fractions of an edge, a millionth too small, in the type that pictures have in the model.
    In half precision they round to the right ones; in float32 each is one row and one column early, except the first.
    SIE computes in float32 where `compute_precision` says so, and on a CPU. What the profile `default` says holds for
    those that say nothing, since one index is asked through all of them. Raises `DiagnosticError` (`SIE217`).
    """
    said = profile.runtime.get(PATCH_POSITIONS)
    if said is None and profile.profile != "default" and "default" in bundle.profiles:
        said = bundle.resolve("default").runtime.get(PATCH_POSITIONS)
    if said is None:
        return "shifted" if profile.compute_precision == "float32" else "trained"
    for places in get_args(Places):
        if said == places:
            return cast("Places", places)
    message = f"`{profile.model_id}` has the `runtime.{PATCH_POSITIONS}` {said!r}, which is neither of the two"
    where = bundle.positions.get(f"profiles.{profile.profile}.adapter_options.runtime")
    hint = "write `trained`, or `shifted` for an index that SIE made on a CPU; docs/pages.md has the difference"
    raise DiagnosticError([Diagnostic("SIE217", message, where, hint)])


def served_vectors() -> dict[OutputType, Head]:
    """How the frontend reads the vectors of pages and of texts: they have unit length, whatever a call asks for."""
    return {VECTORS: MultiVectorHead(VECTORS)}


def vector_width(bundle: Bundle, profile: ResolvedProfile, sizes: TowerSizes | None) -> Axis:
    """How long a vector is. Raises `DiagnosticError` where the bundle declares another width."""
    declared = bundle.dims.get(VECTORS)
    if sizes is None:
        return declared or "dim"
    if declared is None or declared == sizes.width:
        return sizes.width
    message = f"`{profile.model_id}` declares vectors of {declared} numbers, the checkpoint gives {sizes.width}"
    hint = f"set `tasks.encode.multivector.dim: {sizes.width}`, or name the checkpoint that the bundle means"
    raise DiagnosticError([Diagnostic("SIE211", message, bundle.positions.get("tasks.encode.multivector.dim"), hint)])


PageHeads: TypeAlias = PageVectors
"""The heads of this family alone."""

ADAPTERS: dict[str, PageRecipe] = {
    "ColPaliAdapter": PageRecipe(
        name="colpali",
        requires_text_message="ColPaliAdapter requires either text or images input",
        model_type="colpali",
        projection="embedding_proj_layer",
        parts=("vlm_config",),
        notes="images win over text, except in queries; several images of an item are joined",
    ),
    "ColSmolAdapter": TiledRecipe(
        name="colsmol",
        requires_text_message="ColSmolAdapter requires either text or images input",
        model_type="idefics3",
        projection="linear",
        queries="text_only",
        prompt=("<|im_start|>User:", "Describe the image.<end_of_utterance>\nAssistant:"),
        buffer="<end_of_utterance>",
        notes="images win over text, queries are texts; several images of an item are joined",
    ),
}
