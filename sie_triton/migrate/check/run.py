"""A whole check: the sample, the server's vectors, what differs, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sie_triton.migrate.check.causes import Comparison, explain
from sie_triton.migrate.check.measure import (
    GRIDS,
    SAME,
    SAME_LENGTH,
    cosines,
    grid_bits,
    is_half,
    lengths,
)
from sie_triton.migrate.check.report import Cause, IndexReport, Tried, Verdict, Worst
from sie_triton.migrate.check.server import EncodingServer, Vectors
from sie_triton.migrate.stores import Stored, VectorStore, fail

_MOST_WORST = 5
_SHOWN = 200
_FEW = 0.05


def check(store: VectorStore, server: EncodingServer, *, sample: int, seed: int) -> IndexReport:
    """Embed a sample of the store again, and say what differs and why.

    Raises `DiagnosticError`: `SIE908` if the store has nothing to compare, and what store and server raise.
    """
    sampled = store.sample(sample, seed)
    entries = [entry for entry in sampled if _can_be_sent(entry.text)]
    if not entries:
        hint = "name where texts and vectors are, as with `--text-field` and `--vector`"
        raise fail("SIE908", f"{store.name} has no entry with text and vector", hint)
    dims = {len(entry.vector) for entry in entries}
    if len(dims) > 1:
        raise fail("SIE908", f"{store.name} holds vectors of {sorted(dims)} numbers", "check vectors of one size")
    stored = np.stack([entry.vector for entry in entries])
    served = server.encode([entry.text for entry in entries])
    notes, broken = list(store.notes), _broken(stored)
    if unsent := len(sampled) - len(entries):
        notes.append(f"texts with half a surrogate pair, which no server can be sent: {unsent}; they were left out")
    causes = [broken] if broken else []
    whole = np.isfinite(stored).all(axis=1) & (lengths(stored) > 0)
    if stored.shape[1] != served.shape[1]:
        causes.append(_other_dims(stored, served))
        return _report(store, server, entries, stored, served, causes, [], notes)
    case = Comparison(
        server, [entry for entry, ok in zip(entries, whole, strict=True) if ok], stored[whole], served[whole]
    )
    if case.entries:
        explain(case)
        causes += case.causes
        causes += _lengths(store, case, notes)
        notes += _roundings(case.stored)
    return _report(store, server, entries, stored, served, causes, case.tried, notes)


def _can_be_sent(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _broken(stored: Vectors) -> Cause | None:
    wrong = ~np.isfinite(stored).all(axis=1) | (lengths(np.nan_to_num(stored)) == 0)
    if not wrong.any():
        return None
    message = "stored vectors are zero or not finite: they were never embedded, or embedding failed"
    return Cause("broken", message, True, float(wrong.mean()), "embed those texts again")


def _other_dims(stored: Vectors, served: Vectors) -> Cause:
    has, gives = stored.shape[1], served.shape[1]
    least = min(has, gives)
    if (np.median(cosines(stored[:, :least], served[:, :least]))) >= SAME:
        if has < gives:
            message = f"the index holds the first {has} of the {gives} numbers (a Matryoshka cut)"
            cure = (
                f"cut the server's vectors to {has} numbers and normalise them, or set `truncate_dim` in the checkpoint"
            )
        elif not stored[:, gives:].any():
            message = f"the index holds the server's {gives} numbers and {has - gives} zeros behind them"
            cure = f"fill the server's vectors up to {has} numbers with zeros"
        else:
            message = f"the server gives the first {gives} of the {has} numbers that the index holds"
            cure = "serve the checkpoint without `truncate_dim`"
        return Cause("dims", message, True, 1.0, cure, keeps=True)
    message = f"the index holds {has} numbers, the server gives {gives}, and neither begins with the other"
    return Cause("dims", message, True, 1.0, "find the model that the index was made with, and check with `-m`")


def _lengths(store: VectorStore, case: Comparison, notes: list[str]) -> list[Cause]:
    """A change of length counts where the store's metric sees it."""
    apart = _apart(case.stored, case.served)
    # Where directions differ, lengths tell nothing more; but what the store compares by may be lengths alone.
    apart = apart & (case.cosine >= SAME)
    if apart.mean() <= _FEW:
        return []
    had, gives = float(np.median(lengths(case.stored))), float(np.median(lengths(case.served)))
    said = f"stored vectors have length {had:.4g}, the server's {gives:.4g}"
    if store.metric == "cosine":
        notes.append(f"{said}; the cosine does not see it")
        return []
    options = dict(case.experiment.request) if case.experiment else {}
    texts = case.experiment.texts(case.entries) if case.experiment else [entry.text for entry in case.entries]
    for normalize in (False, True):
        other = case.server.encode(texts, **{**options, "normalize": normalize})
        if not _apart(case.stored, other)[apart].any():
            cure = f"send `normalize: {str(normalize).lower()}`"
            told = dict(case.causes[-1].options) if case.causes else {}
            told["normalize"] = normalize
            return [Cause("length", said, True, float(apart.mean()), cure, keeps=True, options=told)]
    cure = "embed those texts again, or compare by cosine"
    if store.metric == "unknown":
        cure += "; if you do that already, say `--metric cosine`"
    return [Cause("length", said, True, float(apart.mean()), cure)]


def _apart(stored: Vectors, served: Vectors) -> npt.NDArray[np.bool_]:
    has, gives = lengths(stored), lengths(served)
    return np.asarray(np.abs(has - gives) > SAME_LENGTH * np.maximum(gives, 1e-12))


def _roundings(stored: Vectors) -> list[str]:
    if (bits := grid_bits(stored)) is not None:
        return [f"the stored numbers {GRIDS[bits]}"]
    return ["the stored numbers have half precision (float16)"] if is_half(stored) else []


def _verdict(causes: Sequence[Cause]) -> Verdict:
    if not causes:
        return "stay"
    lost = max((cause.share for cause in causes if not cause.keeps), default=0.0)
    if not lost:
        return "stay_with_changes"
    return "partly" if lost < 1 else "embed_again"


def _report(
    store: VectorStore,
    server: EncodingServer,
    entries: Sequence[Stored],
    stored: Vectors,
    served: Vectors,
    causes: Sequence[Cause],
    tried: Sequence[Tried],
    notes: Sequence[str],
) -> IndexReport:
    least = min(stored.shape[1], served.shape[1])
    cosine = cosines(stored[:, :least], served[:, :least])
    order = np.argsort(cosine, kind="stable")[:_MOST_WORST]
    has, gives = lengths(np.nan_to_num(stored)), lengths(served)
    return IndexReport(
        verdict=_verdict(causes),
        store=store.name,
        model=server.model,
        sampled=len(entries),
        same=int((cosine >= SAME).sum()),
        dims=stored.shape[1],
        served_dims=served.shape[1],
        cosine={
            "min": float(cosine.min()),
            "p05": float(np.quantile(cosine, 0.05)),
            "median": float(np.median(cosine)),
        },
        length={"stored": float(np.median(has)), "served": float(np.median(gives))},
        metric=store.metric,
        causes=tuple(causes),
        worst=tuple(
            Worst(entries[place].key, float(cosine[place]), entries[place].text[:_SHOWN])
            for place in order
            if cosine[place] < SAME
        ),
        tried=tuple(tried),
        notes=tuple(notes),
    )
