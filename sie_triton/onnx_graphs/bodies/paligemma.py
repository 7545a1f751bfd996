"""PaliGemma (Beyer et al., 2024) as ColPali has it (Faysse et al., 2024): Gemma reads what SigLIP's tower sees.

Everything looks at everything, queries too. transformers counts positions from one; rotations are relative, so that it
is the same from zero.
"""

from __future__ import annotations

import numpy as np

from sie_triton.onnx_graphs.attention import Inputs
from sie_triton.onnx_graphs.bodies.architecture import Architecture, Config, Frame, PageSight, expect
from sie_triton.onnx_graphs.bodies.clip import encoder, patch_embeddings
from sie_triton.onnx_graphs.bodies.decoder import WORDS, Biases
from sie_triton.onnx_graphs.bodies.gemma import GemmaBody
from sie_triton.onnx_graphs.builder import GraphBuilder, Value
from sie_triton.onnx_graphs.pixels import channels_first
from sie_triton.planning.tensors import PIXELS

# What stands before the tensors; transformers 5 saves the tower without its second name.
_PARTS = ("vlm.language_model.model.", "vlm.vision_tower.vision_model.", "vlm.vision_tower.", "vlm.")


class _Gemma1(GemmaBody):
    """The first Gemma. `given` are states that stand in the place of words."""

    def __init__(self, b: GraphBuilder, config: Config, frame: Frame, given: Value | None = None) -> None:
        bias = config.attention_bias
        super().__init__(b, config, frame, Biases(bias, bias), head_norms=False)
        self._given = given

    def _embedded(self) -> Value:
        return super()._embedded() if self._given is None else self._given

    def _penalty(self, window: int | None = None) -> Value | None:
        """Nothing of a picture is padding."""
        return super()._penalty(window) if self._given is None else None

    def _both_sides(self) -> bool:
        return True


def _language(config: Config) -> Config:
    """Gemma's configuration. Raises `Declined` for another language model, or one that does not look both ways."""
    text = config.vlm_config.text_config
    expect(text, "model_type", "gemma")
    expect(text, "use_bidirectional_attention", True)
    return text


def _text(b: GraphBuilder, config: Config, frame: Frame) -> Value:
    return _Gemma1(b, _language(config), frame).states()


def _page(b: GraphBuilder, config: Config, sight: PageSight) -> Value:
    """The patches of a picture, projected, and the prompt behind them."""
    text, vision = _language(config), config.vlm_config.vision_config
    expect(vision, "model_type", "siglip_vision_model")
    pixels = channels_first(b, PIXELS, sight.pixels)
    patches = patch_embeddings(b, vision, pixels, "embeddings", bias=True)
    count = (vision.image_size // vision.patch_size) ** 2
    positions = b.weight("embeddings.position_embedding.weight", (count, vision.hidden_size))
    seen = encoder(b, vision, b.op("Add", patches, positions), "encoder")
    seen = b.layer_norm(seen, "post_layernorm", vision.layer_norm_eps)
    seen = b.linear(seen, "multi_modal_projector.linear", shape=(text.hidden_size, vision.hidden_size))
    # The prompt is the same for every picture: it is added where there is no patch.
    prompt = b.tensors.read(WORDS)[list(sight.prompt)] * np.float32(text.hidden_size**0.5)
    behind = np.pad(prompt, ((count, 0), (0, 0)))
    padded = b.op("Pad", seen, b.ints(0, 0, 0, 0, len(sight.prompt), 0))
    states = b.op("Add", padded, b.given("prompt", behind, b.precision))
    # Of its inputs, a decoder asks how long a row is.
    return _Gemma1(b, text, Frame(Inputs(states, states), len(behind)), states).states()


COLPALI = Architecture("", _text, page=_page, parts=_PARTS)
