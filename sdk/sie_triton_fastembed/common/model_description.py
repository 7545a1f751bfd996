"""Descriptions of models with Fastembed's fields, as `list_supported_models` returns them and `add_custom_model` takes
them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any


@dataclass(frozen=True)
class ModelSource:
    """Where Fastembed would download a model. `hf` is also tried as a name when a custom model is looked up.

    Raises `ValueError` if neither is given.
    """

    hf: str | None = None
    url: str | None = None
    _deprecated_tar_struct: bool = False

    @property
    def deprecated_tar_struct(self) -> bool:
        """Fastembed's mark of an old archive; without meaning here."""
        return self._deprecated_tar_struct

    def __post_init__(self) -> None:
        if self.hf is None and self.url is None:
            raise ValueError("ModelSource needs `hf` or `url`, and both are None")


@dataclass(frozen=True)
class BaseModelDescription:
    """What is known of any model. `size_in_GB` is what would be downloaded: 0 for a model that a server holds."""

    model: str
    sources: ModelSource
    model_file: str
    description: str
    license: str
    size_in_GB: float
    additional_files: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class DenseModelDescription(BaseModelDescription):
    """A model of vectors, or of one vector a token; `dim` is their length."""

    dim: int | None = None
    tasks: dict[str, Any] | None = field(default_factory=dict)


@dataclass(frozen=True)
class SparseModelDescription(BaseModelDescription):
    """A model of weights by token. `requires_idf` is None: no model here leaves document frequencies to the index."""

    requires_idf: bool | None = None
    vocab_size: int | None = None


class PoolingType(str, Enum):
    """How the vectors of a text's tokens become one."""

    CLS = "CLS"
    MEAN = "MEAN"
    LAST_TOKEN = "LAST_TOKEN"
    DISABLED = "DISABLED"
