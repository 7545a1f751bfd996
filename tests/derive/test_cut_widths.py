"""Widths that vectors may be cut to: which files say so, what the bundle says, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from compiler.folders import BERT, minilm_facts, write_folder
from sie_frontend.outputs.dense import DenseHead

from derive.test_derived_families import facts_of
from sie_triton.bundle import Bundle, expand, parse_bundle
from sie_triton.derive import Origin, derive_bundle
from sie_triton.diagnostics import DiagnosticError
from sie_triton.facts import CheckpointFacts
from sie_triton.planning.catalogue import verdict
from sie_triton.planning.families import Recipe
from sie_triton.planning.planner import make_plans

# As sentence-transformers 6.2 writes the section of a training's loss.
CARD = """---
tags:
- sentence-transformers
- loss:MatryoshkaLoss
---

# SentenceTransformer

```json
{"not": "it"}
```

* Loss: [<code>MatryoshkaLoss</code>](https://sbert.net/docs/losses.html#matryoshkaloss) with these parameters:
  ```json
  {
      "loss": "MultipleNegativesRankingLoss",
      "matryoshka_dims": [
          384,
          128,
          256
      ],
      "matryoshka_weights": [
          1,
          1,
          1
      ],
      "n_dims_per_step": -1
  }
  ```
"""


def cuts(bundle: Bundle, facts: CheckpointFacts | None) -> tuple[int, ...]:
    [profile] = expand(bundle)
    recipe = verdict(profile, bundle)
    assert isinstance(recipe, Recipe)
    [plan] = make_plans(bundle, [(profile, recipe)], facts)
    assert not plan.warnings
    head = plan.served[0].heads["dense"]
    assert isinstance(head, DenseHead)
    return head.cuts


def test_the_model_card_of_a_training_says_it(tmp_path: Path) -> None:
    folder = minilm_facts(tmp_path)
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    facts = facts_of(folder)
    ours = derive_bundle("a/b", facts, Origin(folder=folder))
    assert "matryoshka_dims: [256, 128]  # matryoshka_dims of README.md" in ours.text
    assert cuts(ours.bundle, facts) == (256, 128)
    # The bundle says it by itself: whoever builds from it needs no card.
    (folder / "README.md").unlink()
    assert cuts(ours.bundle, facts_of(folder)) == (256, 128)


def test_the_configuration_says_it_before_the_card(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {"config.json": {**BERT, "matryoshka_dimensions": [64, 128, 64, 384]}})
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    ours = derive_bundle("a/b", facts_of(folder), Origin(folder=folder))
    assert "matryoshka_dims: [128, 64]  # matryoshka_dimensions of config.json" in ours.text


@pytest.mark.parametrize(
    "card", ["", "```json\n[1]\n```", '```json\n{"matryoshka_dims": "all"}\n```', "```json\n{\n```"]
)
def test_a_card_that_says_nothing_is_no_mistake(card: str, tmp_path: Path) -> None:
    folder = minilm_facts(tmp_path)
    (folder / "README.md").write_text(card, encoding="utf-8")
    ours = derive_bundle("a/b", facts_of(folder), Origin(folder=folder))
    assert "matryoshka" not in ours.text
    assert cuts(ours.bundle, facts_of(folder)) == ()


@pytest.mark.parametrize(
    ("written", "found"),
    [("[256, 64]", (256, 64)), ("[384]", ()), ("[]", ()), ("[512]", None), ("many", None), ("[-1]", None)],
)
@pytest.mark.parametrize("at_hand", [True, False])
def test_a_bundle_may_say_it_or_take_it_back(
    written: str, found: tuple[int, ...] | None, at_hand: bool, tmp_path: Path
) -> None:
    folder = minilm_facts(tmp_path)
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    facts = facts_of(folder)
    text = derive_bundle("a/b", facts, Origin(folder=folder)).text
    bundle, mistakes = parse_bundle(text.replace("matryoshka_dims: [256, 128]", f"matryoshka_dims: {written}"), folder)
    assert bundle is not None, mistakes
    if found is not None:
        assert cuts(bundle, facts if at_hand else None) == found
        return
    with pytest.raises(DiagnosticError, match="SIE218"):
        cuts(bundle, facts if at_hand else None)
