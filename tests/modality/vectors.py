"""A second modality, as small as one can be: a document's bytes are a float32 vector, and one linear layer encodes it.

Everything that a modality adds is here: the manifest's entry, the reader, the recipe and its plans, and what the
compiler writes and compares. Nothing of the product is replaced.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from sie_frontend.contract.errors import invalid_input
from sie_frontend.contract.requests import Item
from sie_frontend.modalities import MODALITIES, Modality
from sie_frontend.outputs.dense import DenseHead, Pooled
from sie_frontend.reference import Case
from sie_frontend.rows import Array, Call, Row, stack
from sie_frontend.text.entry import Prompting

from sie_triton.bundle import Bundle, ResolvedProfile
from sie_triton.compiler.options import Announce
from sie_triton.compiler.workbench import WORKBENCHES
from sie_triton.facts import CheckpointFacts
from sie_triton.formats import Precision
from sie_triton.planning.families import CATALOGUE, Recipe
from sie_triton.planning.families.dense import DensePooling, DenseRecipe
from sie_triton.planning.modules import Encoder
from sie_triton.planning.plan import Fused, GraphOptions, GraphPlan, ServedPlan, TritonPlan
from sie_triton.planning.planner import PLANNERS
from sie_triton.planning.precisions import precisions_for
from sie_triton.planning.tensors import Tensor, triton_model_name
from sie_triton.verify.public_model import PublicModel
from sie_triton.verify.testimony import Testimony

NAME = "document"
ADAPTER = "TwoWayAdapter"
LAYER = "vector_layer.safetensors"
INPUT = "vector"


class VectorInput(msgspec.Struct, frozen=True):
    """The manifest's entry: how long a vector must be."""

    width: int


@dataclass(frozen=True, slots=True, eq=False)
class VectorRow:
    """One vector. All have one shape, so that any may share a run."""

    vector: Array
    cost: int = 1
    shape_key: None = None
    cut: bool = False
    blank: bool = False
    kept: None = None

    @property
    def nbytes(self) -> int:
        return self.vector.nbytes

    @property
    def arrays(self) -> Mapping[str, Array]:
        return {INPUT: self.vector}


class VectorReader:
    """Bytes to rows. What is given is text that JSON can hold."""

    recounts = False
    apart = False

    def __init__(self, entry: VectorInput, repository: Path, **_: object) -> None:
        self.width = entry.width

    def given(self, items: Sequence[Item]) -> list[str]:
        return [base64.b64encode(item.document.data if item.document else b"").decode() for item in items]

    def work(self, given: Sequence[str]) -> int:
        return sum(map(len, given))

    def row_counts(self, given: Sequence[str]) -> list[int]:
        return [1] * len(given)

    def rows(self, given: Sequence[str], call: Call, *, is_query: bool, places: Sequence[str] = ()) -> list[VectorRow]:
        rows = []
        for index, text in enumerate(given):
            data = base64.b64decode(text)
            if len(data) != 4 * self.width:
                place = places[index] if places else f"items[{index}]"
                raise invalid_input(f"`{place}` has {len(data)} bytes, a vector of this model has {4 * self.width}")
            rows.append(VectorRow(np.frombuffer(data, dtype="<f4")))
        return rows

    def pairs(self, query: str, given: Sequence[str], call: Call) -> list[Row]:
        raise invalid_input("vectors are not scored in pairs")

    def check_together(self, given: Sequence[Any], call: Call, places: Sequence[str]) -> None:
        """Nothing: all are read at once."""

    def check(self, rows: Sequence[VectorRow], places: Sequence[str]) -> None:
        for place, row in zip(places, rows, strict=True):
            if not np.isfinite(row.vector).all():
                raise invalid_input(f"`{place}` has numbers that are not finite")

    def billed(self, given: Sequence[str], rows: Sequence[Row], call: Call, *, is_query: bool) -> list[int]:
        return [1] * len(rows)

    def probe(self, cost: int) -> VectorRow:
        return VectorRow(np.zeros(self.width, dtype=np.float32))

    def widths(self, *, exact: bool) -> Sequence[int]:
        return (1,)

    def batch(self, rows: Sequence[VectorRow], width: int) -> dict[str, Array]:
        return stack(rows, width, {INPUT: None})


@dataclass(frozen=True, kw_only=True)
class TwoWayRecipe(DenseRecipe):
    """Text through a transformer, and vectors through a layer of their own, into one space."""

    modalities: tuple[str, ...] = ("text", NAME)


def vector_plans(
    bundle: Bundle,
    profiles: Sequence[tuple[ResolvedProfile, Recipe]],
    facts: CheckpointFacts | None,
    options: GraphOptions,
) -> tuple[TritonPlan, ...]:
    """One graph of one layer, for every profile."""
    profile, _ = profiles[0]
    name = triton_model_name(profile.model_id, NAME)
    head = DensePooling(("layer",))
    inputs = (Tensor(INPUT, "FP32", ("batch", bundle.dims["dense"] or 0)),)
    graph = GraphPlan(name, Fused(Encoder(), (head,)), inputs, head.outputs(bundle.dims["dense"] or 0))
    entry = DenseHead("layer", {}, {"layer": Pooled(*head.names("layer"))}, normalize=True)
    return (
        TritonPlan(
            name=name,
            inputs=inputs,
            outputs=graph.outputs,
            graphs=(graph,),
            steps=(),
            max_length=1,
            buckets=(1,),
            max_batch_tokens=profile.max_batch_tokens,
            served=tuple(ServedPlan(p, r, Prompting("template"), {"dense": entry}) for p, r in profiles),
            format=options.format,
            layout="fused",
            precisions=precisions_for(profile, options),
            modality=NAME,
        ),
    )


class VectorWorkbench:
    """The graph is ONNX's own operators around the layer's weights; the witness is torch's own layer."""

    def __init__(self, folder: Path, announce: Announce, trust_remote_code: bool) -> None:
        self.folder = folder

    def write_input(self, plan: TritonPlan, home: Path) -> VectorWorkbench:
        return self

    def reads(self, served: ServedPlan, testimony: Testimony | None = None) -> VectorInput:
        return VectorInput(self._weight().shape[1])

    def cases(self, model: PublicModel) -> tuple[Case, ...]:
        random = np.random.default_rng(5)
        vectors = random.normal(size=(20, self._weight().shape[1])).astype("<f4")
        return tuple(Case(base64.b64encode(vector.tobytes()).decode()) for vector in vectors)

    def testify(self, model: PublicModel, cases: Sequence[Case], rows: Sequence[Row]) -> Testimony:
        import torch

        layer = witness_layer(self.folder)
        raw = [layer(torch.from_numpy(np.array(row.arrays[INPUT]))).detach() for row in rows]
        unit = [torch.nn.functional.normalize(vector, dim=-1) for vector in raw]
        names = [name for comparable in model.comparables for name in comparable.tensors]
        outputs = dict(zip(names, ([v.numpy() for v in unit], [v.numpy() for v in raw]), strict=True))
        return Testimony(f"torch {torch.__version__}", {n: tuple(v) for n, v in outputs.items()}, ("vectors",))

    def warnings(self, testimony: Testimony) -> tuple[str, ...]:
        return ()

    def write_graphs(self, plan: TritonPlan, staging: Path, precision: Precision) -> float | None:
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        [graph] = plan.graphs
        width = graph.inputs[0].dims[0]
        unit, raw = (tensor.name for tensor in graph.outputs)
        floats = TensorProto.FLOAT
        made = helper.make_graph(
            [
                helper.make_node("Gemm", [INPUT, "weight"], [raw], transB=1),
                helper.make_node("LpNormalization", [raw], [unit], axis=-1, p=2),
            ],
            "vectors",
            [helper.make_tensor_value_info(INPUT, floats, ["batch", width])],
            [helper.make_tensor_value_info(name, floats, ["batch", width]) for name in (unit, raw)],
            [numpy_helper.from_array(self._weight(), "weight")],
        )
        model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        onnx.save(model, staging / graph.triton_model / "1" / plan.graph_format.filename(precision))
        return None

    def _weight(self) -> Array:
        from safetensors.numpy import load_file

        found: Array = load_file(self.folder / LAYER)["weight"]
        return found


def witness_layer(folder: Path) -> Any:
    """The layer as torch itself reads it."""
    import torch
    from safetensors.torch import load_file

    weight = load_file(folder / LAYER)["weight"]
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.load_state_dict({"weight": weight})
    return layer


def register() -> None:
    """Add the modality and its adapter to this process."""
    MODALITIES[NAME] = Modality(
        VectorInput, VectorReader, given_by=lambda item: item.document is not None, files=lambda _: ()
    )
    PLANNERS[NAME] = vector_plans
    WORKBENCHES[NAME] = VectorWorkbench
    rows: dict[str, Any] = CATALOGUE  # type: ignore[assignment]
    rows[ADAPTER] = TwoWayRecipe(
        requires_text_message=f"{ADAPTER} requires text or a document", default_pooling="mean", extra_files=(LAYER,)
    )
