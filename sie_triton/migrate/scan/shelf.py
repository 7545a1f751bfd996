"""Which of the bundles serves a model under the name that another library has for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sie_triton.bundle import Bundle, LeftOut, ResolvedProfile, did_you_mean, expand, left_out
from sie_triton.migrate.scan.fastembed_models import FastembedModel
from sie_triton.planning.catalogue import verdict
from sie_triton.planning.families import Recipe


@dataclass(frozen=True)
class Served:
    """A model that can be served: its bundle, the profile that its clients address, and how it is compiled."""

    bundle: Bundle
    profile: ResolvedProfile
    recipe: Recipe

    @property
    def limit(self) -> int | None:
        """Where texts are cut, in tokens with the special ones; None where only the checkpoint says."""
        return self.profile.token_limit

    @property
    def pooling(self) -> str | None:
        """The pooling of the dense vectors; None where the checkpoint's own modules decide."""
        if not self.recipe.reads_pooling:
            return self.recipe.default_pooling
        return self.recipe.pooling_for(self.profile.runtime.get("pooling"))

    @property
    def unit(self) -> bool:
        """Whether dense vectors have length 1 unless a request says otherwise."""
        asked = self.profile.runtime.get("normalize", self.profile.loadtime.get("normalize"))
        return self.recipe.default_normalize if asked is None else asked is not False

    def template(self, kind: str) -> str:
        """What stands around a text of the kind `doc` or `query`; `{text}` where nothing does."""
        defaults = {"doc": self.recipe.default_doc_template, "query": self.recipe.default_query_template}
        return str(self.profile.runtime.get(f"{kind}_template") or defaults[kind] or "{text}")


@dataclass(frozen=True, slots=True)
class NotServed:
    """Why a model is not served: `status` is missing or refused, `reason` a clause, `hint` what mends it."""

    status: str
    reason: str
    hint: str = ""


class Shelf:
    """The bundles of a folder by every name that a model may have."""

    def __init__(self, bundles: Mapping[str, Bundle]) -> None:
        self._by_name: dict[str, Bundle] = {}
        for bundle in bundles.values():
            self._by_name.setdefault(bundle.sie_id.casefold(), bundle)
        for bundle in bundles.values():
            if bundle.hf_id:
                self._by_name.setdefault(bundle.hf_id.casefold(), bundle)
        self._ids = list(bundles)

    def find(self, model: str, task: str, row: FastembedModel | None) -> Served | NotServed:
        """The bundle of a model for a task, `dense` and so on or `any`; or why there is none."""
        refusal = _never(model, task, row)
        if refusal is not None:
            return refusal
        names = [
            model,
            *([row.checkpoint] if row else []),
            *([checkpoint] if (checkpoint := _EXPORTED.get(model.casefold())) else []),
            *([] if "/" in model else [f"sentence-transformers/{model}"]),
        ]
        bundle = next((found for name in names if (found := self._by_name.get(name.casefold()))), None)
        if row is not None and row.quantized:
            near = f"`{bundle.sie_id}` is served in float: embed again with it" if bundle else ""
            return NotServed("refused", f"its weights are int8 (`{row.file}`), whose vectors are others", near)
        if bundle is None:
            why = next((why for name in names if (why := left_out(name))), None)
            return self._missing(model) if why is None else _refused(model, why)
        return _judged(bundle, task)

    def _missing(self, name: str) -> NotServed:
        near = did_you_mean(name, self._ids)
        known = name if "/" in name else "OWNER/NAME"  # the hub's ids have both
        way = f"`sie-triton build -m {known}` derives one from its checkpoint"
        return NotServed("missing", "no bundle is for it", f"{way}; {near}" if near else way)


def _refused(name: str, why: LeftOut) -> NotServed:
    way = f"`sie-triton build -m {name} {why.flag}` tries it all the same" if why.flag else "keep it where it is"
    return NotServed("refused", why.why, way)


def _judged(bundle: Bundle, task: str) -> Served | NotServed:
    if task == "image" and "image" not in bundle.inputs:
        return NotServed("refused", f"the bundle of `{bundle.sie_id}` reads no images", "keep it in process")
    if task == "image":
        task = "dense"
    if task not in ("any", *bundle.outputs):
        given = " and ".join(bundle.outputs) or "nothing"
        return NotServed(
            "missing", f"the bundle of `{bundle.sie_id}` gives {given}, not {task}", "docs/add-a-bundle.md"
        )
    refusals = []
    for profile in expand(bundle):
        judged = verdict(profile, bundle)
        if isinstance(judged, Recipe):
            return Served(bundle, profile, judged)
        refusals.append(judged.reason)
    return NotServed("refused", refusals[0])


# Models of kinds that only Fastembed computes.
_KINDS: Mapping[str, str] = {
    "qdrant/bm25": "BM25 is no neural model",
    "qdrant/bm42-all-minilm-l6-v2-attentions": "BM42 weighs words by attentions, which no graph here gives",
    "qdrant/minicoil-v1": "miniCOIL has a table of words beside its encoder",
}


# Fastembed's own exports of towers, by the checkpoint that has both.
_EXPORTED: Mapping[str, str] = {
    "qdrant/clip-vit-b-32-text": "openai/clip-vit-base-patch32",
    "qdrant/clip-vit-b-32-vision": "openai/clip-vit-base-patch32",
}


def _never(model: str, task: str, row: FastembedModel | None) -> NotServed | None:
    keep = "keep it in process"
    seeing = task == "image" or (row is not None and row.task == "image")
    if seeing and row is not None and model.casefold() not in _EXPORTED:
        return NotServed("refused", "of models for images, CLIP and SigLIP are served", keep)
    if (kind := _KINDS.get(model.casefold())) is not None:
        return NotServed("refused", kind, keep)
    if row is not None and row.file == "model.safetensors":
        return NotServed("refused", "it is a table of token vectors without a transformer", keep)
    if model.startswith((".", "/", "~")) or "\\" in model:
        return NotServed(
            "missing",
            "it is a folder of your own",
            f"`sie-triton build -m {model}` derives a bundle from its checkpoint",
        )
    return None
