"""An exception of SIE's server side, for `except` clauses that name it."""

from __future__ import annotations


class GatedModelError(Exception):
    """A checkpoint whose licence must be accepted on the hub first. This SDK never raises it."""

    def __init__(self, model_id: str, original_error: Exception) -> None:
        super().__init__(
            f"the hub gives '{model_id}' only to those who accepted its licence: accept it on the model's page and set "
            f"HF_TOKEN ({original_error})"
        )
        self.model_id = model_id
        self.original_error = original_error
