"""What every witness of sentence-transformers shares: opening a checkpoint, tokens, limits, errors as diagnostics."""

from __future__ import annotations

import contextlib
import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import torch
from sie_frontend.reference import Case
from sie_frontend.text.tokenization import TextRow

from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where

from .subject import Outputs

Text: TypeAlias = "str | tuple[str, str]"

_OUTPUT = {"feature-extraction": "last_hidden_state", "fill-mask": "logits"}


class Witness(ABC):
    """One implementation with the checkpoint loaded.

    `body` is its transformer module, which tokenises. `compared` names what it says by itself, `not_compared` what it
    is told, `departures` where SIE's contract decides against the checkpoint. `makes_rows`: whether a case's row is the
    ids of its text; late interaction inserts markers, as SIE's contract has them.
    """

    body: Any
    implementation: str
    compared: tuple[str, ...]
    not_compared: tuple[str, ...] = ()
    departures: tuple[str, ...] = ()
    makes_rows = True

    @property
    def model(self) -> Any:
        """The model of transformers inside."""
        return self.body.model

    @property
    def limit(self) -> int | None:
        """The longest text that it reads by itself, in tokens. None where SIE's adapter always sets the limit."""
        return None

    @property
    def positions(self) -> int | None:
        """How many positions the model was made with."""
        found: int | None = getattr(self.body.config, "max_position_embeddings", None)
        return found

    def narrow(self, limit: int) -> None:
        """Read no more than `limit` tokens."""
        self.body.max_seq_length = limit

    def read_with(self, tokenizer: Any) -> None:
        """Tokenise with the checkpoint's own file instead of what transformers made of it."""
        tokenizer.model_max_length = self.body.max_seq_length
        self.body.processor = tokenizer

    def token_ids(self, case: Case) -> list[int]:
        """The ids that it makes of a case's text."""
        ids: list[int] = self.body.preprocess([self.text(case)])["input_ids"][0].tolist()
        return ids

    @abstractmethod
    def text(self, case: Case) -> Text:
        """What it tokenises for a case: a text with its prompt, or a pair."""

    @abstractmethod
    def outputs(self, case: Case, row: TextRow) -> Outputs:
        """What comes out for one case, whose row we made."""


def implementation(name: str) -> str:
    """A class of sentence-transformers with the versions that decide what it computes."""
    return (
        f"sentence-transformers {version('sentence-transformers')} {name}, "
        f"transformers {version('transformers')}, torch {torch.__version__.split('+')[0]}, float32"
    )


def loading(trust_remote_code: bool) -> dict[str, Any]:
    """Arguments with which sentence-transformers opens every model: on the CPU, in float32, without a network."""
    return {
        "device": "cpu",
        "local_files_only": True,
        "trust_remote_code": trust_remote_code,
        "model_kwargs": {"dtype": torch.float32},
    }


def transformer(
    folder: Path, trust_remote_code: bool, task: str = "feature-extraction", *, bidirectional: bool = False
) -> Any:
    """sentence-transformers' own transformer module on the checkpoint, whatever its `modules.json` says.

    `bidirectional` lets a decoder attend to both sides, by transformers' own setting for it.
    """
    from sentence_transformers.base.modules import Transformer

    hub = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    # SDPA goes by the module's own causality where no mask is needed, whatever the configuration says.
    attention = {"attn_implementation": "eager"} if bidirectional else {}
    made = Transformer(
        str(folder),
        transformer_task=task,
        model_kwargs={**hub, "dtype": torch.float32, **attention},
        processor_kwargs=dict(hub),
        config_kwargs=dict(hub),
        modality_config={"text": {"method": "forward", "method_output_name": _OUTPUT[task]}},
        module_output_name="token_embeddings",
    ).eval()
    if bidirectional:
        made.model.config.is_causal = False
    return made


@contextlib.contextmanager
def asking(folder: Path, what: str, who: str = "sentence-transformers") -> Iterator[None]:
    """Turns whatever a library (`who`) raises into a diagnostic, and suppresses its logs and warnings."""
    loggers = [logging.getLogger(name) for name in ("sentence_transformers", "transformers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            yield
    except DiagnosticError:
        raise
    except Exception as error:  # libraries raise whatever they like for a checkpoint that is not theirs
        cause = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DiagnosticError(
            [
                Diagnostic(
                    "SIE408",
                    f"{who} cannot {what}: {type(error).__name__}: {cause}",
                    Where(folder),
                    "without an implementation to compare with, nothing is published; check the checkpoint's files",
                )
            ]
        ) from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
