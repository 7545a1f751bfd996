"""A packed graph as OpenVINO wants it: of few shapes, and for one row the padded one again.

Packing (`onnx_graphs/packing.py`) lets products see the real tokens of several rows. OpenVINO prepares them for each
number of tokens, in time and in memory (1 MB for each such number of MiniLM), so that runs are filled up to few numbers
by rows that nobody asked for.

One row has nothing to pack, but pays for the way to and fro, and since its shapes depend on data, OpenVINO infers them
node by node in each run. Without these nodes the graph is the padded one again, over the same weights. A width that the
last run had costs least, so that rows are filled up to a few widths: padding is what the graph does not read, in a
batch as here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import numpy as np

Array: TypeAlias = Any

# From what packing counts the tokens of, to the places that it takes them from and shows them at.
_ON_THE_WAY: Final = frozenset({"Convert", "Reshape", "Squeeze", "Subtract", "Transpose"})
_LONGEST_WAY: Final = 8


def unpack(model: Any) -> bool:
    """Make a packed OpenVINO model one of a padded row; False, and the model as it was, where it is not packed."""
    counted = _counted(model)
    if counted is None:
        return False
    for op in model.get_ordered_ops():
        if op.get_type_name() == "Gather" and _comes_from(op.input_value(1), counted):
            op.output(0).replace(op.input_value(0))
    with contextlib.suppress(RuntimeError):  # of a graph that asks for more rows; known shapes only save time
        model.reshape({port.get_any_name(): [1, -1] for port in model.inputs})
    return True


def mask_of(model: Any) -> str | None:
    """The input that tells a packed graph which places have tokens; None of a graph that is not packed."""
    counted = _counted(model)
    if counted is None:
        return None
    node = next(op for op in model.get_ops() if op.get_friendly_name() == counted)
    for _ in range(_LONGEST_WAY):
        if node.get_type_name() == "Parameter":
            return str(node.output(0).get_any_name())
        before = [value.get_node() for value in node.input_values()]
        node = next((one for one in before if one.get_type_name() != "Constant"), node)
    return None


def _counted(model: Any) -> str | None:
    """The value of which packing takes both the places and the running number of its tokens, by name, if there is it.

    Positions may be a running number of the mask too; of nothing else both are taken.
    """
    if any(len(port.get_partial_shape()) != 2 for port in model.inputs):
        return None
    places, numbers = (
        {_source(op) for op in model.get_ops() if op.get_type_name() == kind} for kind in ("NonZero", "CumSum")
    )
    both = places & numbers
    return both.pop() if len(both) == 1 and len(places) == 1 else None


def _source(op: Any) -> str:
    return str(op.input_value(0).get_node().get_friendly_name())


def _comes_from(value: Any, counted: str) -> bool:
    for _ in range(_LONGEST_WAY):
        node = value.get_node()
        kind = node.get_type_name()
        if kind in ("NonZero", "CumSum"):
            return _source(node) == counted
        if kind not in _ON_THE_WAY:
            return False
        value = node.input_value(0)
    return False


def filled(feed: Mapping[str, Array], width: int) -> dict[str, Array]:
    """Arrays `[1, n]` filled up with zeros to `[1, width]`, which in the mask says that there is nothing."""
    wide = {name: np.zeros((1, width), array.dtype) for name, array in feed.items()}
    for name, array in feed.items():
        wide[name][:, : array.shape[1]] = array
    return wide


def few(count: int, finest: int, share: int) -> int:
    """`count` rounded up to one of few numbers: multiples of `finest`, and of a `share` of what has as many digits."""
    step = max(finest, (1 << count.bit_length() - 1) // share) if count else 1
    return -(-count // step) * step


def with_more_tokens(feed: Mapping[str, Array], mask: str, finest: int, share: int) -> dict[str, Array]:
    """Arrays `[rows, n]` with rows after them, so that one of `few` numbers of tokens is packed.

    For the rows that were there it is as if they shared their run with others.
    """
    rows, width = feed[mask].shape
    if not rows * width:
        return dict(feed)
    # The first place counts as a token, whatever the mask says of it.
    tokens = 1 + int(np.count_nonzero(feed[mask].reshape(-1)[1:]))
    missing = few(tokens, finest, share) - tokens
    if not missing:
        return dict(feed)
    longer = {name: np.zeros((rows - (-missing // width), width), array.dtype) for name, array in feed.items()}
    for name, array in feed.items():
        longer[name][:rows] = array
    longer[mask][rows:].reshape(-1)[:missing] = 1
    return longer
