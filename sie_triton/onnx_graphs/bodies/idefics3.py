"""Idefics3 (Laurençon et al., 2024) and SmolVLM (Marafioti et al., 2025): Llama reads tiles of a picture among tokens.

The tower is SigLIP's. Neighbouring patches become one position, and those stand where the ids say so.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from sie_triton.onnx_graphs.attention import Inputs, hidden_future
from sie_triton.onnx_graphs.bodies.architecture import Architecture, Config, Frame, PageSight, expect
from sie_triton.onnx_graphs.bodies.clip import encoder, patch_embeddings
from sie_triton.onnx_graphs.bodies.decoder import WORDS, DecoderBody, biases_by_config
from sie_triton.onnx_graphs.builder import GraphBuilder, Value
from sie_triton.onnx_graphs.declined import Declined
from sie_triton.onnx_graphs.pixels import channels_first
from sie_triton.planning.tensors import INPUT_IDS, PIXELS


class _Llama(DecoderBody):
    """Llama on states that stand in the place of words. Nothing of a page is padding."""

    def __init__(self, b: GraphBuilder, config: Config, frame: Frame, given: Value) -> None:
        super().__init__(b, config, frame, biases_by_config(config), head_norms=False)
        self._given = given

    def _embedded(self) -> Value:
        return self._given

    def _penalty(self, window: int | None = None) -> Value | None:
        return hidden_future(self._b, self._frame.inputs.ids)


def _language(config: Config) -> Config:
    expect(config.text_config, "model_type", "llama")
    return config.text_config


def _text(b: GraphBuilder, config: Config, frame: Frame) -> Value:
    text = _language(config)
    return DecoderBody(b, text, frame, biases_by_config(text), head_norms=False).states()


def _page(b: GraphBuilder, config: Config, sight: PageSight) -> Value:
    text, size = _language(config), sight.pixels.size
    tiles = channels_first(b, b.op("Reshape", PIXELS, b.ints(-1, size, size, 3)), sight.pixels)
    seen = _tiles(b, config, tiles, shifted=sight.shifted)
    rows = b.op("Slice", b.op("Shape", INPUT_IDS), b.ints(0), b.ints(1))
    seen = b.op("Reshape", seen, b.op("Concat", rows, b.ints(-1, text.hidden_size), axis=0))
    words = b.op("Gather", b.weight(WORDS), INPUT_IDS, axis=0)
    is_seen = b.op("Equal", INPUT_IDS, b.constant(np.array(config.image_token_id, np.int64)))
    # The first position of a picture takes its first state, and so on.
    one = b.constant(np.array(1, np.int64))
    count = b.op("CumSum", b.op("Cast", is_seen, to=TensorProto.INT64), one)
    place = b.op("Max", b.op("Sub", count, one), b.constant(np.array(0, np.int64)))
    placed = b.op("GatherND", seen, b.op("Unsqueeze", place, b.ints(2)), batch_dims=1)
    states = b.op("Where", b.op("Unsqueeze", is_seen, b.ints(2)), placed, words)
    frame = Frame(Inputs(INPUT_IDS, INPUT_IDS), text.max_position_embeddings)
    return _Llama(b, text, frame, states).states()


def _tiles(b: GraphBuilder, config: Config, pixels: Value, *, shifted: bool) -> Value:
    """What a tower sees of tiles `[tiles, 3, size, size]`, `[tiles, positions, hidden]` of the language model."""
    vision = config.vision_config
    patches = patch_embeddings(b, vision, pixels, "embeddings", bias=True)
    edge = vision.image_size // vision.patch_size
    if edge & (edge - 1):
        # transformers finds a patch's place by fractions of an edge; others it rounds, not always to the patch's own.
        raise Declined(f"a tile is {edge} by {edge} patches, no power of two, and transformers rounds their places")
    positions = b.weight("embeddings.position_embedding.weight", (edge**2, vision.hidden_size))
    if shifted:
        positions = b.op("Gather", positions, b.constant(_in_front(edge)), axis=0)
    states = encoder(b, vision, b.op("Add", patches, positions), "encoder")
    states = b.layer_norm(states, "post_layernorm", vision.layer_norm_eps)
    joined = _joined(b, states, edge, vision.hidden_size, config.scale_factor)
    return b.linear(joined, "connector.modality_projection.proj", bias=False)


def _in_front(edge: int) -> npt.NDArray[np.int64]:
    """For each patch of a square, the one in the row and the column in front of it; the first ones are their own."""
    line = np.maximum(np.arange(edge) - 1, 0)
    return (line[:, None] * edge + line).ravel()


def _joined(b: GraphBuilder, states: Value, edge: int, width: int, scale: int) -> Value:
    """Squares of `scale` by `scale` neighbours as one state, `scale`² times as wide, line by line."""
    left = edge // scale
    split = b.op("Reshape", states, b.ints(-1, left, scale, left, scale * width))
    turned = b.op("Transpose", split, perm=[0, 1, 3, 2, 4])
    return b.op("Reshape", turned, b.ints(-1, left * left, scale * scale * width))


IDEFICS3 = Architecture("", _text, page=_page, parts=("model.text_model.", "model.vision_model.", "model."))
