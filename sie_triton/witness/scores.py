"""Scores: sentence-transformers' cross-encoder, and transformers' causal models for rerankers that are such."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from sie_frontend.reference import Case
from sie_frontend.text.tokenization import TextRow
from torch import Tensor

from sie_triton.planning.families import CrossEncoderRecipe, LastTokenLogits

from .base import Text, Witness, implementation, loading
from .subject import Outputs, Subject


class CrossEncoderWitness(Witness):
    """`CrossEncoder.predict` with the function that the checkpoint names, or with the adapter's sigmoid."""

    compared = ("pairs to tokens", "classification head", "function behind the logit", "scores")

    def __init__(self, subject: Subject) -> None:
        from sentence_transformers import CrossEncoder

        self._model = CrossEncoder(str(subject.folder), **loading(subject.trust_remote_code))
        self.implementation = implementation("CrossEncoder")
        self.body = self._model[0]
        self._name = subject.names[0]
        self._activation: Any = None
        recipe = subject.served.recipe
        if isinstance(recipe, CrossEncoderRecipe) and recipe.always_sigmoid:
            self._activation = torch.nn.Sigmoid()
            own = type(self._model.activation_fn).__name__
            if own != "Sigmoid":
                adapter = subject.served.profile.adapter_class
                self.departures = (f"the checkpoint names {own} behind the logit, {adapter} applies a sigmoid always",)

    def text(self, case: Case) -> Text:
        """The pair."""
        return case.query or "", case.document or ""

    def outputs(self, case: Case, row: TextRow) -> Outputs:
        """The score, `[1]`."""
        found = self._model.predict([self.text(case)], batch_size=1, activation_fn=self._activation)
        return {self._name: np.asarray(found, dtype=np.float32).reshape(1)}


class AnswerWitness(CrossEncoderWitness):
    """`CrossEncoder.predict` with the checkpoint's `LogitScore` behind its own chat template."""

    compared = ("pairs to prompts to tokens", "logits", "function behind the logit", "scores")

    def token_ids(self, case: Case) -> list[int]:
        """The ids of the prompt around a pair, as `predict` makes them: with the checkpoint's own instruction."""
        prompt = self._model.prompts.get(self._model.default_prompt_name)
        ids: list[int] = self.body.preprocess([self.text(case)], prompt=prompt)["input_ids"][0].tolist()
        return ids


class CausalWitness:
    """transformers' causal model on SIE's prompt: the logits of the answer tokens at the last position.

    It is given our rows: the prompt around a pair and its pieces are SIE's contract.
    """

    compared = ("logits", "scores")
    not_compared = ("the prompt around a pair and how it is tokenised in pieces: SIE's contract decides it",)
    departures: tuple[str, ...] = ()

    def __init__(self, subject: Subject) -> None:
        from transformers import AutoModelForCausalLM

        self._head = next(head for head in subject.plan.heads if isinstance(head, LastTokenLogits))
        self.model = AutoModelForCausalLM.from_pretrained(
            subject.folder,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=subject.trust_remote_code,
        ).eval()
        self.implementation = (
            f"transformers {version('transformers')} {type(self.model).__name__}, "
            f"torch {torch.__version__.split('+')[0]}, float32"
        )
        self._name = subject.names[0]
        self._answers = [subject.token_id(token) for token in (self._head.yes, self._head.no) if token]

    def outputs(self, case: Case, row: TextRow) -> Outputs:
        """The score, `[1]`."""
        logits: Tensor = self.model(input_ids=torch.from_numpy(row.ids)[None]).logits[0, -1, self._answers].double()
        if self._head.mode == "logit":
            score = logits[0]
        elif self._head.mode == "probability":
            score = torch.softmax(logits, 0)[0]
        else:
            score = logits[0] - logits[1]
        return {self._name: score.float().reshape(1).numpy()}
