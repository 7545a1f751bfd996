"""Asks the witness of a plan: limits, tokens, outputs; a contradiction becomes a diagnostic."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from sie_frontend.reference import Case
from sie_frontend.rows import Array
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where
from sie_triton.verify.reference_texts import ADDED_TOKENS, ADDED_TOKENS_A_TEXT, QUERIES
from sie_triton.verify.testimony import Testimony

from .base import Text, Witness, asking
from .dense import PooledWitness, SentenceWitness
from .image_text import ImageTextWitness
from .late import BgeM3Witness, LateWitness
from .pages import PageTextWitness
from .scores import AnswerWitness, CausalWitness, CrossEncoderWitness
from .sparse import SparseWitness
from .subject import Subject

# A token that was never trained may spoil the texts that hold it: as many as those of a checkpoint's added tokens.
MAX_NOT_FINITE = ADDED_TOKENS // ADDED_TOKENS_A_TEXT
# Special tokens that stand around a text.
MAX_LOST = 2
# What SentencePiece itself does to a text; transformers 5 drops some of it when it rebuilds a tokenizer.
SENTENCEPIECE_NORMALIZERS = frozenset(
    {"Precompiled", "Replace", "Strip", "Prepend", "Nmt", "NFC", "NFKC", "NFD", "NFKD"}
)
# Whose classes a witness calls, where they are not those of sentence-transformers.
_LIBRARIES = {"image_text_model": "transformers", "open_clip": "open_clip"}
# Positions that models count from `padding_idx + 1` are lost to text.
MAX_POSITION_OFFSET = 2


def testify(subject: Subject) -> Testimony:
    """The outputs of an implementation that reads the checkpoint itself, for every case.

    Raises `DiagnosticError` if there is none, or if it reads another limit or other tokens than we do.
    """
    library = _LIBRARIES.get(subject.served.recipe.witness, "sentence-transformers")
    with asking(subject.folder, "load the checkpoint", library):
        witness = _witness(subject)
    departures = list(witness.departures)
    vocabulary = int(witness.model.get_input_embeddings().weight.shape[0])
    skipped: frozenset[int] = frozenset()
    if isinstance(witness, Witness):
        with asking(subject.folder, "tokenise", library):
            departures += _agree_on_limit(witness, subject)
            told, skipped = _agree_on_tokens(witness, subject)
            departures += told
        if isinstance(witness, SparseWitness) and subject.weighed:
            with asking(subject.folder, "weigh queries"):
                _agree_on_queries(witness, subject, subject.weighed)
    # Nobody can compute a token that the model has no embedding for; it is refused when it is sent.
    skipped |= {place for place, row in enumerate(subject.rows) if row.ids.max(initial=0) >= vocabulary}
    outputs: dict[str, list[Array]] = {name: [] for name in subject.names}
    not_finite: list[int] = []
    with asking(subject.folder, "run the checkpoint", library):
        for place, (case, row) in enumerate(zip(subject.cases, subject.rows, strict=True)):
            if place in skipped:
                continue
            found = witness.outputs(case, row)
            if not all(np.isfinite(array).all() for array in found.values()):
                not_finite.append(place)
                continue
            for name, array in found.items():
                outputs[name].append(array)
    if len(not_finite) > MAX_NOT_FINITE:
        raise DiagnosticError([_not_finite(subject, witness.implementation, len(not_finite))])
    return Testimony(
        implementation=witness.implementation,
        outputs={name: tuple(arrays) for name, arrays in outputs.items()},
        compared=witness.compared,
        not_compared=witness.not_compared,
        departures=tuple(departures),
        vocabulary=vocabulary,
        skipped=skipped | set(not_finite),
    )


def _witness(subject: Subject) -> Witness | CausalWitness:
    """The implementation that the recipe is compared with, its checkpoint loaded."""
    made: Witness | CausalWitness
    match subject.served.recipe.witness:
        case "pooled_transformer":
            made = PooledWitness(subject)
        case "sentence_transformer":
            made = SentenceWitness(subject)
        case "sparse_encoder":
            made = SparseWitness(subject)
        case "bge_m3":
            made = BgeM3Witness(subject)
        case "late_interaction":
            made = LateWitness(subject)
        case "cross_encoder":
            made = CrossEncoderWitness(subject)
        case "causal_model":
            told = subject.served.prompting.causal
            made = AnswerWitness(subject) if told and told.name == "template" else CausalWitness(subject)
        case "image_text_model":
            made = ImageTextWitness(subject)
        case "page_model":
            made = PageTextWitness(subject)
        case "open_clip":
            from .open_clip import OpenClipWitness  # installed by those who build such checkpoints alone

            made = OpenClipWitness(subject)
        case "mixed_model":
            raise AssertionError("texts and pictures in one row have a testimony of their own")
    return made


def _not_finite(subject: Subject, implementation: str, count: int) -> Diagnostic:
    return Diagnostic(
        "SIE507",
        f"on {count} of {len(subject.cases)} texts the checkpoint itself gives numbers that are not finite, says "
        f"{implementation}",
        Where(subject.folder),
        "its weights are damaged, or were never trained; fetch the checkpoint again",
    )


def _agree_on_limit(witness: Witness, subject: Subject) -> list[str]:
    """Both must cut texts at the same length, unless the model has no positions for what the witness would read."""
    ours, theirs = subject.plan.max_length, witness.limit
    witness.narrow(ours)
    if theirs is None or theirs == ours:
        return []
    positions = witness.positions
    if theirs > ours and positions is not None and ours >= positions - MAX_POSITION_OFFSET:
        return [f"texts are cut at {ours} tokens, as many as the model has positions for; its files say {theirs}"]
    raise DiagnosticError(
        [
            Diagnostic(
                "SIE504",
                f"`{subject.plan.name}` would cut texts at {ours} tokens, {witness.implementation} at {theirs}",
                Where(subject.folder),
                "say which in the bundle's `max_sequence_length`, and report the checkpoint",
            )
        ]
    )


def _agree_on_tokens(witness: Witness, subject: Subject) -> tuple[list[str], frozenset[int]]:
    """Both must make the same ids of every text.

    Returns the departures, and the cases that were skipped because no token is left of them.

    Where the checkpoint's own `tokenizer.json` makes ours and transformers made something else of it, the file decides:
    SIE reads it as it is. Then the witness goes on with the file.
    """
    empty, different = [], []
    for place, (case, row) in enumerate(zip(subject.cases, subject.rows, strict=True)):
        theirs = witness.token_ids(case)
        ours = row.ids.tolist() if witness.makes_rows else subject.bare_ids(str(witness.text(case)))
        if not theirs:
            empty.append(place)
        elif theirs != ours:
            different.append((case, ours, theirs))
    if not different:
        return [], frozenset(empty)
    path = subject.folder / "tokenizer.json"
    reads = _file_reader(subject) if path.is_file() else None
    for case, ours, theirs in different:
        if reads is None or reads(witness.text(case)) != ours or not _file_decides(path, ours, theirs):
            raise DiagnosticError([_tokenizes_differently(subject, witness, case, ours, theirs)])
    witness.read_with(
        PreTrainedTokenizerFast(
            tokenizer_file=str(path), truncation_side=subject.truncation_side, pad_token=_any_token(path)
        )
    )
    example = witness.text(different[0][0])
    return [
        f"`tokenizer.json` decides: transformers {version('transformers')} rebuilds the tokenizer and reads "
        f"{len(different)} of {len(subject.cases)} texts differently, {_short(example)} for one"
    ], frozenset(empty)


def _agree_on_queries(witness: SparseWitness, subject: Subject, weighed: Callable[[str], tuple[Array, Array]]) -> None:
    """Both must give every query the same ids and weights, where no graph does."""
    queries = [*QUERIES, *(case.document for case in subject.cases if case.document is not None)]
    for query in queries:
        ours, theirs = weighed(query), witness.weighs(query)
        if np.array_equal(ours[0], theirs[0]) and np.allclose(ours[1], theirs[1], rtol=1e-6, atol=0):
            continue
        differing = sorted({*map(int, ours[0])} ^ {*map(int, theirs[0])})
        what = f"the tokens {differing[:3]} have a weight for one of them only" if differing else "the weights differ"
        raise DiagnosticError(
            [
                Diagnostic(
                    "SIE509",
                    f"`{subject.plan.name}` and {witness.implementation} weigh the query {_short(query)} differently: "
                    f"{what}",
                    Where(subject.folder),
                    "the tokenizer of queries is another than the transformer's; report the checkpoint",
                )
            ]
        )


def _file_decides(path: Path, ours: Sequence[int], theirs: Sequence[int]) -> bool:
    """Whether a difference is one that transformers 5 is known to introduce when it rebuilds a tokenizer.

    It loses normalisers of SentencePiece models, and special tokens around a text. Anything else is a checkpoint whose
    files contradict each other, and nobody can say which of them is meant.
    """
    document = json.loads(path.read_text(encoding="utf-8"))
    model = document["model"]
    if (model.get("type") == "Unigram" or model.get("byte_fallback")) and _kinds(document) <= SENTENCEPIECE_NORMALIZERS:
        return True
    special = {token["id"] for token in document.get("added_tokens", ()) if token.get("special")}
    bare = [[i for i in ids if i not in special] for ids in (ours, theirs)]
    # Where a special token is lost, a text that is cut keeps one of its own tokens more.
    least, most = sorted(map(len, bare))
    same = bare[0][:least] == bare[1][:least] or bare[0][-least:] == bare[1][-least:]
    return same and most - least <= (MAX_LOST if len(ours) == len(theirs) else 0)


def _kinds(document: Mapping[str, Any]) -> set[str]:
    """The kinds of normaliser that a tokenizer's file has."""
    normalizer = document.get("normalizer") or {}
    return {part["type"] for part in normalizer.get("normalizers", [normalizer]) if part}


def _file_reader(subject: Subject) -> Callable[[Text], list[int]]:
    """The checkpoint's own tokenizer file, read by the tokenizers library alone."""
    tokenizer = Tokenizer.from_file(str(subject.folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(subject.plan.max_length, direction=subject.truncation_side)
    if spelling := subject.plan.spelling:
        tokenizer.enable_padding(direction=spelling.pads, pad_id=subject.pad_id, length=subject.plan.max_length)

    def read(text: Text) -> list[int]:
        encoded = tokenizer.encode(text) if isinstance(text, str) else tokenizer.encode(*text)
        return list(encoded.ids)

    return read


def _any_token(path: Path) -> str:
    """Some token to pad with: rows are read one by one, so that none is ever padded."""
    token: str | None = Tokenizer.from_file(str(path)).id_to_token(0)
    return token or "<pad>"


def _tokenizes_differently(
    subject: Subject, witness: Witness, case: Case, ours: Sequence[int], theirs: Sequence[int]
) -> Diagnostic:
    place = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    return Diagnostic(
        "SIE502",
        f"`{subject.plan.name}` and {witness.implementation} tokenise {_short(witness.text(case))} differently: from "
        f"token {place} on, {list(ours[place : place + 3])} of {len(ours)} against "
        f"{list(theirs[place : place + 3])} of {len(theirs)}",
        Where(subject.folder),
        "the tokenizer's files contradict each other; save the tokenizer again with `save_pretrained`",
    )


def _short(text: object) -> str:
    shown = repr(text)
    return shown if len(shown) <= 60 else shown[:57] + "…"
