"""One checkpoint, opened for export: graphs and tokenizer of the plans made for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where
from sie_triton.export.encoder import load_model
from sie_triton.export.masks import masks_with_room
from sie_triton.export.modules import build_module
from sie_triton.export.query_weights import first_weights, weights_by_id
from sie_triton.export.to_onnx import export_onnx
from sie_triton.export.to_torchscript import export_torchscript
from sie_triton.export.tokenizer import load_tokenizer, pad_id, tokenizer_json
from sie_triton.facts.checkpoint import TOKENIZER_SETTINGS_NAME
from sie_triton.facts.files import read_object
from sie_triton.formats import Format, Precision
from sie_triton.onnx_graphs.declined import Declined
from sie_triton.onnx_graphs.finish import ExportError
from sie_triton.onnx_graphs.writer import GraphWriter
from sie_triton.planning.plan import GraphPlan, TritonPlan

Announce = Callable[[str], None]
WRITERS: dict[Format, Callable[..., float | None]] = {"onnx": export_onnx, "torchscript": export_torchscript}
SPECIAL_ROLES = ("cls", "sep", "pad", "mask", "unk", "bos", "eos")


class Exporter:
    """Writes what a `TritonPlan` says. Raises `DiagnosticError` for what the checkpoint or the exporter cannot do."""

    def __init__(self, folder: Path, announce: Announce, *, trust_remote_code: bool = False) -> None:
        transformers.utils.logging.disable_progress_bar()
        transformers.utils.logging.set_verbosity_error()
        self.folder = folder
        self._announce = announce
        self._trust = trust_remote_code
        self._writer: GraphWriter | None = None
        self._tokenizer: PreTrainedTokenizerFast = load_tokenizer(folder, trust_remote_code=trust_remote_code)

    @property
    def pad_id(self) -> int:
        """The id that fills a row up to its bucket."""
        return pad_id(self._tokenizer)

    @property
    def special_ids(self) -> dict[str, int]:
        """Ids of the special tokens by role, as far as the tokenizer has them."""
        found = {role: getattr(self._tokenizer, f"{role}_token_id", None) for role in SPECIAL_ROLES}
        return {role: int(value) for role, value in found.items() if value is not None}

    @property
    def all_special_ids(self) -> tuple[int, ...]:
        """Every special id."""
        return tuple(sorted(set(self._tokenizer.all_special_ids)))

    @property
    def added_tokens(self) -> list[str]:
        """The tokens that transformers finds added to the vocabulary, special ones among them, by their ids."""
        found: dict[str, int] = self._tokenizer.get_added_vocab()
        return sorted(found, key=lambda token: found[token])

    def token_id(self, token: str) -> int:
        """The one id of a token, as vocabulary entry or as text that is a single token."""
        known = self._tokenizer.get_vocab().get(token)
        ids = [known] if known is not None else self._tokenizer.encode(token, add_special_tokens=False)
        if len(ids) != 1:
            raise DiagnosticError(
                [
                    Diagnostic(
                        "SIE405",
                        f"`{token}` is {len(ids)} tokens for this tokenizer; a score needs it to be one",
                        Where(self.folder),
                        "name tokens of the checkpoint's vocabulary in `yes_token` and `no_token`",
                    )
                ]
            )
        return int(ids[0])

    def write_tokenizer(self, path: Path, *, lowercase: bool = False) -> int:
        """The tokenizer as one file; returns its largest id. `lowercase` as `tokenizer_json` has it."""
        settings = read_object(self.folder / TOKENIZER_SETTINGS_NAME)
        document = tokenizer_json(self.folder, self._tokenizer, settings, lowercase=lowercase)
        path.write_bytes(document)
        vocabulary: dict[str, int] = Tokenizer.from_str(document.decode()).get_vocab(with_added_tokens=True)
        return max(vocabulary.values())

    def write_query_weights(self, path: Path, files: Sequence[str]) -> None:
        """A table of token weights as one float32 array over the vocabulary; tokens it does not name weigh nothing.

        `files` are those of OpenSearch, by token, or one file of tensors, by token id. Raises `DiagnosticError`.
        """
        if files[0].endswith(".safetensors"):
            np.save(path, weights_by_id(self.folder / files[0]), allow_pickle=False)
            return
        named = first_weights([self.folder / file for file in files])
        vocabulary = self._tokenizer.get_vocab()
        table = np.zeros(max(vocabulary.values()) + 1, dtype=np.float32)
        for token, weight in named.items():
            if token in vocabulary:
                table[vocabulary[token]] = weight
        if not (table > 0).any():
            raise DiagnosticError(
                [Diagnostic("SIE406", f"no token of {list(files)} is in the vocabulary", Where(self.folder))]
            )
        np.save(path, table, allow_pickle=False)

    def write_graphs(self, plan: TritonPlan, staging: Path, precision: Precision) -> float | None:
        """Every graph of the plan in one precision: written from the checkpoint's tensors, or else traced by torch.

        Returns what a padded position costs if the graph with the encoder was packed.
        """
        padding_cost: float | None = None
        left: list[GraphPlan] = []
        for graph in plan.graphs:
            if plan.traced or not plan.graph_format.written:
                left.append(graph)
                continue
            try:
                padding_cost = self._write(plan, graph, staging, precision) or padding_cost
            except Declined as reason:
                self._announce(f"{graph.triton_model}: torch traces the graph: {reason}")
                left.append(graph)
        return (self._trace(plan, left, staging, precision) if left else None) or padding_cost

    def _write(self, plan: TritonPlan, graph: GraphPlan, staging: Path, precision: Precision) -> float | None:
        """One graph without torch. Raises `Declined` where that cannot be done."""
        self._writer = self._writer or GraphWriter(self.folder, self.token_id)
        self._announce(f"{graph.triton_model}: writing the graph in {precision}")
        return self._writer.write(plan, graph, _graph_path(plan, graph, staging, precision), precision)

    def _trace(
        self, plan: TritonPlan, graphs: Sequence[GraphPlan], staging: Path, precision: Precision
    ) -> float | None:
        """Graphs by torch, in their order: the encoder goes first, heads take the model apart."""
        write = WRITERS[plan.format]
        padding_cost: float | None = None
        with masks_with_room(precision):
            model: Any = load_model(
                self.folder,
                plan.encoder.model_class,
                attention="eager",
                trust_remote_code=self._trust,
                precision=precision,
            )
            for graph in graphs:
                self._announce(f"{graph.triton_model}: exporting the graph in {precision}")
                try:
                    module = build_module(graph.module, self.folder, model, self.token_id, precision)
                    # Behind the encoder there is little to pack, and padding may be blanked already.
                    packing = {"packing": True} if plan.packs(precision) and graph.has_encoder else {}
                    path = _graph_path(plan, graph, staging, precision)
                    cost = write(module, graph, path, max_sequence=plan.max_length, **packing)
                    padding_cost = padding_cost or cost
                except ExportError as error:
                    hint = "try another version of torch, or another `--format`, or report the checkpoint"
                    raise DiagnosticError([Diagnostic("SIE402", str(error), Where(self.folder), hint)]) from error
        return padding_cost


def _graph_path(plan: TritonPlan, graph: GraphPlan, staging: Path, precision: Precision) -> Path:
    return staging / graph.triton_model / "1" / plan.graph_format.filename(precision)
