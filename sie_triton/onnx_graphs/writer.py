"""Writes the planned graphs of one checkpoint, if its architecture and its heads are among those written here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from transformers import AutoConfig

from sie_triton.facts import Pixels, Sighted
from sie_triton.formats import Precision
from sie_triton.onnx_graphs.attention import Inputs
from sie_triton.onnx_graphs.bodies.architecture import Architecture, Config, Frame, PageSight
from sie_triton.onnx_graphs.bodies.table import ARCHITECTURES
from sie_triton.onnx_graphs.builder import GraphBuilder, Value
from sie_triton.onnx_graphs.declined import Declined
from sie_triton.onnx_graphs.finish import raw_outputs, save_onnx
from sie_triton.onnx_graphs.heads import HeadSite, head_outputs
from sie_triton.onnx_graphs.pixels import channels_first
from sie_triton.onnx_graphs.tensors import CheckpointTensors
from sie_triton.planning.modules import Encoder
from sie_triton.planning.plan import Fused, GraphPlan, TritonPlan
from sie_triton.planning.tensors import ATTENTION_MASK, HIDDEN, INPUT_IDS, PIXELS, TOKEN_TYPE_IDS, Tensor

TokenId: TypeAlias = "Callable[[str], int]"


def _config(folder: Path) -> Config:
    """transformers' configuration with its defaults. Raises `Declined` where only the checkpoint's code can read it."""
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises whatever its many loaders raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Declined(f"transformers itself cannot read its configuration ({reason})") from error


class GraphWriter:
    """One checkpoint, opened for writing. Raises `Declined` where its architecture is not written here."""

    def __init__(self, folder: Path, token_id: TokenId, *, trust_remote_code: bool = False) -> None:
        config = _config(folder)
        if trust_remote_code and getattr(config, "auto_map", None):
            raise Declined("it has code of its own, which was allowed to run")
        architecture = ARCHITECTURES.get(config.model_type)
        if architecture is None:
            raise Declined(f"the architecture `{config.model_type}` is not written")
        if getattr(config, "quantization_config", None):
            raise Declined("quantized weights are not read")
        self._architecture: Architecture = architecture
        self._site = HeadSite(folder, architecture, config, token_id)
        self._tensors = CheckpointTensors(folder, *architecture.prefixes)

    def write(self, plan: TritonPlan, graph: GraphPlan, path: Path, precision: Precision) -> float | None:
        """One graph of the plan. Returns what a padded position costs if it was packed.

        Raises `Declined` for what is not written here, before anything is saved, and `ExportError`.
        """
        b = GraphBuilder(self._tensors, precision)
        outputs = self._outputs(b, plan, graph)
        model, kept = b.finish(graph.triton_model, graph.inputs, list(zip(outputs, raw_outputs(graph), strict=True)))
        packing = plan.packs(precision) and graph.has_encoder
        return save_onnx(model, graph, path, kept=kept, packing=packing)

    def _outputs(self, b: GraphBuilder, plan: TritonPlan, graph: GraphPlan) -> list[Value]:
        module = graph.module
        if not isinstance(module, Encoder | Fused):
            return head_outputs(b, module, HIDDEN, ATTENTION_MASK, self._site)
        encoder = module.encoder if isinstance(module, Fused) else module
        if encoder.sighted is not None:
            made = self._mixed(b, encoder.sighted, plan.max_length)
        elif encoder.pixels is None:
            made = self._states(b, encoder, graph.inputs, plan.max_length)
        else:
            made = self._seen(b, encoder.pixels) if encoder.page is None else self._page(b, encoder)
        states = b.from_body(made)
        if isinstance(module, Encoder):
            return [states]
        return [value for head in module.heads for value in head_outputs(b, head, states, ATTENTION_MASK, self._site)]

    def _states(self, b: GraphBuilder, encoder: Encoder, inputs: tuple[Tensor, ...], max_length: int) -> Value:
        types = TOKEN_TYPE_IDS if any(tensor.name == TOKEN_TYPE_IDS for tensor in inputs) else None
        frame = Frame(Inputs(INPUT_IDS, ATTENTION_MASK, types), max_length, encoder.bidirectional)
        return self._architecture.body(b, self._site.config, frame)

    def _seen(self, b: GraphBuilder, pixels: Pixels) -> Value:
        """The states of pictures."""
        towers, config = self._architecture.towers, self._site.config
        if towers is None:
            raise Declined(f"a vision tower of the architecture `{config.model_type}` is not written")
        return towers.vision(b, config, channels_first(b, PIXELS, pixels))

    def _mixed(self, b: GraphBuilder, sighted: Sighted, max_length: int) -> Value:
        """The states of words and pictures in one row."""
        mixed, config = self._architecture.mixed, self._site.config
        if mixed is None:
            raise Declined(f"words and pictures of the architecture `{config.model_type}` are not written")
        return mixed(b, config, Frame(Inputs(INPUT_IDS, ATTENTION_MASK), max_length), sighted)

    def _page(self, b: GraphBuilder, encoder: Encoder) -> Value:
        """The states of a language model that reads pictures."""
        page, config = self._architecture.page, self._site.config
        if page is None:
            raise Declined(f"pages of the architecture `{config.model_type}` are not written")
        assert encoder.pixels is not None
        prompt = encoder.page if isinstance(encoder.page, tuple) else ()
        return page(b, config, PageSight(encoder.pixels, prompt, encoder.shifted_patches))
