"""The types in Fastembed's signatures."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray


class Device(str, Enum):
    """Where Fastembed would compute. Here the server decides."""

    CPU = "cpu"
    CUDA = "cuda"
    AUTO = "auto"


PathInput: TypeAlias = str | Path
ImageInput: TypeAlias = PathInput | Any
"""A path, or an image of Pillow."""
OnnxProvider: TypeAlias = Union[str, "tuple[str, dict[Any, Any]]"]
NumpyArray: TypeAlias = NDArray[np.float32]
"""What every vector here is made of."""
