"""The recipes' families, compiled in a few groups: on the embedded server every graph is a process."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import prepared
from prepared import HASH_SEED
from shared import made_once

from .factory import FAMILIES
from .made import made

# One family of each recipe and of each architecture. The others differ in options or in layout, and to
# compile them all takes a quarter of an hour on two cores: set SIE_TRITON_ALL_RECIPES=1.
REPRESENTATIVE = (
    "bert",
    "sentence_bert_dense",
    "xlm_roberta",
    "mpnet",
    "modernbert",
    "nomic_bert_original",
    "gte_original",
    "qwen3",
    "mistral_bidirectional",
    "embedding_gemma",
    "splade_bert",
    "splade_distilbert",
    "opensearch_idf",
    "opensearch_gte",
    "sentence_splade",
    "bge_m3",
    "colbert_root_linear",
    "colbert_modernbert_chain",
    "colbert_rotary",
    "cross_encoder_bert_identity",
    "cross_encoder_jina",
    "cross_encoder_modernbert_mean",
    "cross_encoder_deberta",
    "causal_qwen2_untied",
    "causal_qwen3",
    "zerank",
)
COMPILED = [name for name, family in FAMILIES.items() if not family.remote_only and family.has_reference]
SERVED = COMPILED if os.environ.get("SIE_TRITON_ALL_RECIPES") else [name for name in COMPILED if name in REPRESENTATIVE]
_GROUP = 13
_BUILD_SECONDS = 1200


class BuiltFamilies:
    """Repositories of some families each, compiled below `root` when first asked for.

    `arguments` are further ones for `sie-triton build`: another precision or format is another `BuiltFamilies`.
    """

    def __init__(self, root: Path, families: Sequence[str] = SERVED, arguments: Sequence[str] = ()) -> None:
        self.families = tuple(families)
        self._root = root
        self._arguments = tuple(arguments)

    def group(self, family: str) -> int:
        """The number of the repository that holds the family."""
        return self.families.index(family) // _GROUP

    def repository(self, group: int) -> Path:
        """The published repository of a group; never written to."""
        return made_once(self._root / str(group), lambda folder: self._build(group, folder)) / "repository"

    def _build(self, group: int, folder: Path) -> None:
        members = self.families[group * _GROUP : (group + 1) * _GROUP]
        bundles = folder / "bundles"
        shutil.rmtree(bundles, ignore_errors=True)
        bundles.mkdir()
        for name in members:
            shutil.copy(made(name).bundle_path, bundles)
        # In a process of its own, as users do: pytest would record torch's trace log, line by line.
        models = [argument for name in members for argument in ("-m", FAMILIES[name].sie_id)]
        command: list[str | Path] = [
            "build",
            "--bundles",
            bundles,
            *models,
            "-r",
            folder / "repository",
            *self._arguments,
        ]
        done = prepared.run(command, {**os.environ, "PYTHONHASHSEED": HASH_SEED}, _BUILD_SECONDS)
        assert done.returncode == 0, done.stderr
