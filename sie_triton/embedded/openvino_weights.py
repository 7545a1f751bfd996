"""OpenVINO's copy of a graph's weights: mapped from a file, so that it takes memory only where it is read.

A compiled model keeps the weights that it was made of, beside those that it laid out for its kernels. Of an embedding
table each run reads a few rows, of the rest nothing is read again.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from sie_triton.embedded.mapped_files import give_back_memory, own_folder
from sie_triton.embedded.once import FOLDER_VARIABLE

# Less is not worth a file; more takes long to write, and as much of the disk.
_MAPPED_BYTES: Final = range(8 << 20, 1 << 30)
_GRAPH, _WEIGHTS = "model.xml", "model.bin"
_PLACE: Final = re.compile(r'\boffset="(\d+)" size="(\d+)"')
_DONTNEED: Final = 4  # <bits/mman-linux.h>


class MappedWeights:
    """Where the weights of a compiled model are mapped, if they are."""

    def __init__(self, file: Path | None = None) -> None:
        # Its folder has a name that no other ever has, and the system still tells it when the file is gone.
        self._names = () if file is None else (f" {file}", f" {file} (deleted)")

    def let_go(self) -> None:
        """Take what was read of them out of this process's memory; it is read again where it must.

        Only while the compiled model lives, which keeps them mapped.
        """
        if not self._names:
            return
        for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.endswith(self._names):
                begin, end = (int(place, 16) for place in line.split(maxsplit=1)[0].split("-"))
                ctypes.CDLL(None).madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _DONTNEED)


@contextlib.contextmanager
def opened(openvino: Any, core: Any, path: Path) -> Iterator[tuple[Any, MappedWeights]]:
    """The model at `path`, to be compiled meanwhile, its weights mapped from a file that is gone afterwards.

    Small ones, and those for which there is no room, are held in memory; so are those of a process that has no server's
    folder, since nobody would clean up after one that is killed. Raises `RuntimeError` as OpenVINO does.
    """
    model = core.read_model(str(path))
    with contextlib.ExitStack() as stack:
        folder = None
        if FOLDER_VARIABLE in os.environ and path.is_file() and path.stat().st_size in _MAPPED_BYTES:
            with contextlib.suppress(OSError, RuntimeError):
                folder = stack.enter_context(own_folder())
                _turn_factors(openvino, model)
                openvino.save_model(model, str(folder / _GRAPH), compress_to_fp16=False)
        if folder is None or not _is_whole(folder):
            yield model, MappedWeights()
            return
        del model
        give_back_memory()
        weights = MappedWeights(folder / _WEIGHTS)
        yield core.read_model(str(folder / _GRAPH)), weights
        weights.let_go()


def _turn_factors(openvino: Any, model: Any) -> None:
    """Lay out the factors of products as OpenVINO's CPU wants them: it would keep turned copies, in memory."""
    operators = openvino.opset13
    for op in model.get_ordered_ops():
        if op.get_type_name() != "MatMul":
            continue
        factor, turned = op.input_value(1).get_node(), op.get_attributes()
        alone = factor.get_type_name() == "Constant" and len(factor.output(0).get_target_inputs()) == 1
        if not alone or turned["transpose_b"] or len(factor.get_output_shape(0)) != 2:
            continue
        constant = operators.constant(np.ascontiguousarray(factor.data.T))
        product = operators.matmul(op.input_value(0), constant, turned["transpose_a"], True)
        for new, old in ((constant, factor), (product, op)):
            new.set_friendly_name(old.get_friendly_name())
        product.output(0).get_tensor().set_names(op.output(0).get_names())
        op.output(0).replace(product.output(0))


def _is_whole(folder: Path) -> bool:
    """Whether all weights were written: on a full disk OpenVINO need not say so, and what is missing would be fatal."""
    try:
        places = _PLACE.findall((folder / _GRAPH).read_text(encoding="utf-8"))
        written = (folder / _WEIGHTS).stat().st_size
    except OSError:
        return False
    return 0 < max((int(offset) + int(size) for offset, size in places), default=0) <= written
