"""Texts and pictures in one row, in the compiler: tokenizer, entry, graph, and the witness on Pillow."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sie_frontend.mixed.entry import MixedInput, Patching
from sie_frontend.reference import Case
from sie_frontend.rows import Row
from sie_frontend.text.entry import Tokenization

from sie_triton.compiler.images import uncompared_views
from sie_triton.compiler.options import Announce
from sie_triton.compiler.packages import NOTHING_TO_COMPARE, missing_package
from sie_triton.facts import CheckpointFacts, read_facts, read_sighted_sizes
from sie_triton.formats import Precision
from sie_triton.planning.families import MixedRecipe
from sie_triton.planning.plan import ServedPlan, TritonPlan
from sie_triton.planning.tensors import ATTENTION_MASK, INPUT_IDS
from sie_triton.verify.mixed_cases import mixed_cases, mixed_pairs
from sie_triton.verify.public_model import PublicModel
from sie_triton.verify.testimony import Testimony

if TYPE_CHECKING:
    from sie_triton.onnx_graphs.writer import GraphWriter
    from sie_triton.tokenizer import CheckpointTokenizer

TOKENIZER_NAME = "tokenizer.json"


class MixedWorkbench:
    """A checkpoint of a language model that sees. Its graph is always written: torch is needed for the witness only."""

    def __init__(self, folder: Path, announce: Announce, *, trust_remote_code: bool) -> None:
        os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
        try:
            from sie_triton.tokenizer import CheckpointTokenizer
        except ModuleNotFoundError as error:
            raise missing_package(error, "`build` needs transformers, safetensors and onnx") from None
        self._folder = folder
        self._announce = announce
        self._trust = trust_remote_code
        self._tokenizer = CheckpointTokenizer(folder, trust_remote_code=trust_remote_code)
        self._facts = read_facts(folder)
        self._writer: GraphWriter | None = None

    def write_input(self, plan: TritonPlan, home: Path) -> WrittenMixed:
        """The tokenizer."""
        self._tokenizer.write(home / TOKENIZER_NAME)
        return WrittenMixed(plan, self._tokenizer, self._facts)

    def write_graphs(self, plan: TritonPlan, staging: Path, precision: Precision) -> None:
        """The one graph of the plan in a precision. Raises `DiagnosticError` for what is not written."""
        from sie_triton.compiler.text_graphs import graph_path, not_written
        from sie_triton.onnx_graphs.declined import Declined
        from sie_triton.onnx_graphs.writer import GraphWriter

        (graph,) = plan.graphs
        self._announce(f"{graph.triton_model}: writing the graph in {precision}")
        try:
            token_id = self._tokenizer.token_id
            self._writer = self._writer or GraphWriter(self._folder, token_id, trust_remote_code=self._trust)
            self._writer.write(plan, graph, graph_path(plan, graph, staging, precision), precision)
        except Declined as declined:
            raise not_written(graph.triton_model, str(declined)) from None


class WrittenMixed:
    """The input of one plan."""

    def __init__(self, plan: TritonPlan, tokenizer: CheckpointTokenizer, facts: CheckpointFacts) -> None:
        self._plan = plan
        self._tokenizer = tokenizer
        self._facts = facts

    def reads(self, served: ServedPlan, testimony: Testimony | None = None) -> MixedInput:
        """The entry; the witness knows how many tokens have an embedding."""
        recipe, sighted = self._recipe(served), self._plan.encoder.sighted
        assert sighted is not None, "a build has the checkpoint's facts"
        sizes = read_sighted_sizes(self._facts, recipe.model_type)
        tokenizer = self._tokenizer
        tokens = (tokenizer.token(sizes.picture_id), tokenizer.token(sizes.video_id))
        forbidden = [token for token in tokens if token]
        if recipe.style == "rerank":
            forbidden += ["<|placeholder|>", *filter(None, map(tokenizer.token, tokenizer.all_special_ids))]
        return MixedInput(
            tokenization=Tokenization(
                path=f"{self._plan.name}/1/{TOKENIZER_NAME}",
                max_length=self._plan.max_length,
                pad_id=tokenizer.pad_id,
                inputs=(INPUT_IDS, ATTENTION_MASK),
                buckets=self._plan.buckets,
                special_ids=tokenizer.special_ids,
                all_special_ids=tokenizer.all_special_ids,
                truncation_side=self._plan.truncation_side,
                vocabulary=testimony.vocabulary if testimony else None,
            ),
            patching=Patching(
                patch_size=sighted.patch_size,
                merge_size=sighted.merge_size,
                min_pixels=sighted.min_pixels,
                max_pixels=sighted.max_pixels,
                resample=sighted.pixels.resample,
                table_side=sizes.table_side,
                window=sizes.window,
                grouped=True,
            ),
            conversation=recipe.conversation(self._facts),
            style=recipe.style,
            instruction=recipe.default_instruction(served.profile),
            system=recipe.system,
            picture_id=sizes.picture_id,
            forbidden=tuple(dict.fromkeys(forbidden)),
            requires=recipe.requires_text_message,
        )

    def cases(self, model: PublicModel) -> tuple[Case, ...]:
        """Texts, pictures, and both; or pairs of them."""
        made = mixed_pairs if self._recipe(self._plan.served[0]).style == "rerank" else mixed_cases
        return made(model)

    def testify(self, model: PublicModel, cases: Sequence[Case], rows: Sequence[Row]) -> Testimony:
        """What transformers makes of the cases. Raises `DiagnosticError` if it reads one otherwise than we do."""
        try:
            from sie_triton.witness.mixed import MixedSubject, testify_mixed
        except ModuleNotFoundError as error:
            raise missing_package(error, NOTHING_TO_COMPARE) from None
        served = self._plan.served[0]
        recipe = self._recipe(served)
        sighted = self._plan.encoder.sighted
        assert sighted is not None
        return testify_mixed(
            MixedSubject(
                folder=self._facts.folder,
                name=self._plan.name,
                outputs=tuple(tensor.name for tensor in self._plan.outputs),
                style=recipe.style,
                shown=recipe.shown,
                behind=recipe.behind,
                projection=recipe.projection,
                system=recipe.system,
                instruction=recipe.default_instruction(served.profile),
                pooling=next((head.poolings[0] for head in self._plan.heads if hasattr(head, "poolings")), ""),
                min_pixels=recipe.min_pixels,
                max_pixels=recipe.max_pixels,
                limit=self._plan.max_length,
            ),
            cases,
            rows,
        )

    def warnings(self, testimony: Testimony) -> tuple[str, ...]:
        """What the bundle does to pictures, of which no other implementation was asked."""
        return uncompared_views(self._plan)

    def _recipe(self, served: ServedPlan) -> MixedRecipe:
        assert isinstance(served.recipe, MixedRecipe)
        return served.recipe
