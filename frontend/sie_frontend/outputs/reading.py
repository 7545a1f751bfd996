"""A call's answer out of its rows' tensors: read, derived, narrowed. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from sie_frontend.outputs import muvera, smve
from sie_frontend.outputs.heads import Heads
from sie_frontend.outputs.kind import EncodedKind, Tensors
from sie_frontend.outputs.options import ResolvedCall
from sie_frontend.outputs.response import ItemOutputs
from sie_frontend.outputs.sparse import SparseVector
from sie_frontend.outputs.table import FORMS, EncodedType
from sie_frontend.rows import Row


class OutputReader:
    """Reads the outputs of one model's encode calls."""

    def __init__(self, heads: Heads) -> None:
        self.heads = heads
        self._muvera = muvera.MuveraConfig.from_mapping(heads.loadtime.get("muvera_config"))
        self._smve = smve.SmveConfig.from_mapping(heads.loadtime.get("smve_config"))

    def tensors(self, call: ResolvedCall) -> tuple[str, ...]:
        """The Triton outputs that a call needs. Raises `WireError` (400) for an output that was not built."""
        heads = [self.heads.encoded(output) for output in call.adapter_outputs]
        return tuple(dict.fromkeys(n for head in heads for n in head.tensors(call, is_query=call.is_query)))

    def read(
        self, tensors: Sequence[Tensors], rows: Sequence[Row], counts: Sequence[int], call: ResolvedCall
    ) -> list[ItemOutputs]:
        """The wanted outputs of each item, in the output dtype of the call. `counts` says how many rows each has."""
        found: dict[EncodedType, Sequence[Any]] = {}
        for output in call.adapter_outputs:
            head = self.heads.encoded(output)
            values = [
                head.read(tensor, row, call, self.heads, is_query=call.is_query)
                for tensor, row in zip(tensors, rows, strict=True)
            ]
            found[output] = values if len(values) == len(counts) else _by_item(head, values, counts)
        # MUVERA and SMVE make one vector out of a multivector, dense the one and sparse the other.
        if call.muvera:
            fixed = partial(muvera.encode_tokens, config=self._muvera, is_query=call.is_query)
            found["dense"] = [fixed(vectors) for vectors in found["multivector"]]
        if call.smve:
            spread = partial(smve.encode_tokens, config=self._smve, is_query=call.is_query)
            found["sparse"] = [SparseVector(*spread(vectors)) for vectors in found["multivector"]]
        narrowed = {output: FORMS[output].narrowed(found[output], call.output_dtype) for output in call.output_types}
        return [ItemOutputs(None, _at(narrowed, index)) for index in range(len(counts))]


def _by_item(head: EncodedKind, values: Sequence[Any], counts: Sequence[int]) -> list[Any]:
    items, start = [], 0
    for count in counts:
        items.append(values[start] if count == 1 else head.joined(values[start : start + count]))
        start += count
    return items


def _at(values: Mapping[EncodedType, Sequence[Any]], index: int) -> dict[EncodedType, Any]:
    return {output: of_rows[index] for output, of_rows in values.items()}
