"""Text in the compiler: the tokenizer's file, the manifest's entry, the witness of sentence-transformers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from sie_frontend.outputs.sparse import weigh_query
from sie_frontend.outputs.table import score_kind
from sie_frontend.reference import Case
from sie_frontend.rows import Array, Row
from sie_frontend.text.entry import TextInput, Tokenization
from sie_frontend.text.prompting import prepare_texts
from sie_frontend.text.reader import TextReader
from sie_frontend.text.tokenization import TextRow

from sie_triton.checkpoint.open_clip import published_folder
from sie_triton.compiler.options import Announce
from sie_triton.compiler.packages import NOTHING_TO_COMPARE, check_witness, missing_package
from sie_triton.formats import Precision
from sie_triton.planning.families import QUERY_WEIGHTS_NAME
from sie_triton.planning.plan import ServedPlan, TritonPlan
from sie_triton.verify.cases import text_cases
from sie_triton.verify.public_model import PublicModel
from sie_triton.verify.testimony import Testimony

if TYPE_CHECKING:
    from sie_triton.tokenizer import CheckpointTokenizer

TOKENIZER_NAME = "tokenizer.json"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What only the loaded tokenizer knows, and the number of rows of the embedding that its ids are looked up in."""

    pad_id: int
    special_ids: dict[str, int]
    all_special_ids: tuple[int, ...]
    embedding_rows: int | None = None


def text_entry(plan: TritonPlan, served: ServedPlan, vocabulary: Vocabulary) -> TextInput:
    """The manifest's entry of a text input."""
    recipe = served.recipe
    return TextInput(
        tokenization=Tokenization(
            path=f"{plan.name}/1/{TOKENIZER_NAME}",
            max_length=plan.max_length,
            pad_id=vocabulary.pad_id,
            inputs=tuple(tensor.name for tensor in plan.inputs),
            buckets=plan.buckets,
            special_ids=vocabulary.special_ids,
            all_special_ids=vocabulary.all_special_ids,
            truncation_side=plan.truncation_side,
            vocabulary=vocabulary.embedding_rows,
            pads=plan.spelling.pads if plan.spelling else None,
        ),
        prompting=served.prompting,
        requires_text=recipe.requires_text_message,
        request_limit=recipe.request_limit,
        usage=recipe.usage_counts,
        queries=recipe.queries,
    )


class TextWorkbench:
    """A checkpoint of a language model. transformers is imported here and not before, torch where it is needed."""

    def __init__(self, folder: Path, announce: Announce, *, trust_remote_code: bool) -> None:
        # Without torch it would say that it has no models: none of them is needed here.
        os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
        try:
            from sie_triton.compiler.text_graphs import TextGraphs
            from sie_triton.tokenizer import CheckpointTokenizer
        except ModuleNotFoundError as error:
            raise missing_package(error, "`build` needs transformers, safetensors and onnx") from None
        self._tokenizer = CheckpointTokenizer(folder, trust_remote_code=trust_remote_code)
        self._graphs = TextGraphs(self._tokenizer, announce, trust_remote_code=trust_remote_code)
        self._trust = trust_remote_code

    def write_input(self, plan: TritonPlan, home: Path) -> WrittenText:
        """The tokenizer, and the table of query weights where the plan has one."""
        largest_id = self._tokenizer.write(
            home / TOKENIZER_NAME, lowercase=plan.lowercase, spelling=plan.spelling, framing=plan.framing
        )
        if plan.query_weights:
            self._tokenizer.write_query_weights(home / QUERY_WEIGHTS_NAME, plan.query_weights)
        return WrittenText(plan, self._tokenizer, largest_id, self._trust, home)

    def write_graphs(self, plan: TritonPlan, staging: Path, precision: Precision) -> float | None:
        """Every graph of the plan in a precision."""
        return self._graphs.write(plan, staging, precision)


class WrittenText:
    """The text input of one plan, written to `home`. `largest_id` is the largest that the written tokenizer makes."""

    def __init__(
        self, plan: TritonPlan, tokenizer: CheckpointTokenizer, largest_id: int, trust_remote_code: bool, home: Path
    ) -> None:
        self._plan = plan
        self._tokenizer = tokenizer
        self._largest_id = largest_id
        self._trust = trust_remote_code
        self._home = home

    def reads(self, served: ServedPlan, testimony: Testimony | None = None) -> TextInput:
        """The entry; the witness knows how many tokens have an embedding."""
        tokenizer = self._tokenizer
        rows = testimony.vocabulary if testimony else None
        vocabulary = Vocabulary(tokenizer.pad_id, tokenizer.special_ids, tokenizer.all_special_ids, rows)
        return text_entry(self._plan, served, vocabulary)

    def cases(self, model: PublicModel) -> tuple[Case, ...]:
        """Texts of every length that matters and of all kinds, or pairs of them."""
        scores = self._plan.served[0].heads.get("score")
        pairs = scores is not None and (kind := score_kind(scores)) is not None and kind.pairs
        return text_cases(model, _text_reader(model), self._tokenizer.added_tokens, pairs=pairs)

    def testify(self, model: PublicModel, cases: Sequence[Case], rows: Sequence[Row]) -> Testimony:
        """What the witness says of every case. Raises `DiagnosticError` if it reads the texts otherwise than we do."""
        check_witness(self._plan.served[0].recipe.witness)
        try:
            from sie_triton.witness import Subject, testify
        except ModuleNotFoundError as error:
            raise missing_package(error, NOTHING_TO_COMPARE) from None

        reader = _text_reader(model)

        def prepared(case: Case) -> str:
            query = case.document is None
            text = (case.query if query else case.document) or ""
            prompting = reader.entry.prompting
            return prepare_texts([text], prompting, options=model.options, instruction=None, is_query=query)[0]

        def bare_ids(text: str) -> list[int]:
            return list(map(int, reader.tokenizer.encode([text])[0]))

        def weighed(query: str) -> tuple[Array, Array]:
            [row] = model.rows([Case(None, query)])
            vector = weigh_query(row, np.load(self._home / QUERY_WEIGHTS_NAME, allow_pickle=False))
            return vector.indices, vector.values

        return testify(
            Subject(
                folder=published_folder(self._tokenizer.folder),
                plan=self._plan,
                served=self._plan.served[0],
                cases=cases,
                rows=[row for row in rows if isinstance(row, TextRow)],
                prepared=prepared,
                bare_ids=bare_ids,
                token_id=self._tokenizer.token_id,
                weighed=weighed if reader.entry.prompting.bare_queries else None,
                truncation_side=self._plan.truncation_side,
                pad_id=reader.spec.pad_id,
                trust_remote_code=self._trust,
            )
        )

    def warnings(self, testimony: Testimony) -> tuple[str, ...]:
        """Tokens that the tokenizer can make and the model has no embedding for."""
        rows = testimony.vocabulary
        if rows is None or self._largest_id < rows:
            return ()
        return (
            f"the tokenizer makes ids up to {self._largest_id}, the embedding has {rows} rows: a text with a token "
            "beyond them is refused when it is sent",
        )


def _text_reader(model: PublicModel) -> TextReader:
    assert isinstance(model.reader, TextReader)
    return model.reader
