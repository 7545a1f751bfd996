"""The table of keys against the packages that write them: what they can save, the table knows."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest

from sie_triton.facts.known_keys import FILES, MODULES, NOTHING, SETTINGS, check_keys
from sie_triton.facts.pipeline import ACTIVATIONS, POOLINGS

# Base classes, and what stands inside a module instead of in a list of modules.
INNER = {"Module", "InputModule", "BaseTokenPooling"}


def written_modules() -> Iterator[type[Any]]:
    """Every module class of sentence-transformers."""
    from sentence_transformers.base.modules.module import Module

    for kind in ("base", "sentence_transformer", "sparse_encoder", "cross_encoder", "multi_vector_encoder"):
        package = importlib.import_module(f"sentence_transformers.{kind}.modules")
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            for _, found in inspect.getmembers(importlib.import_module(info.name), inspect.isclass):
                if issubclass(found, Module) and found.__module__.startswith("sentence_transformers."):
                    yield found


@pytest.mark.export
def test_every_module_of_sentence_transformers_is_in_the_table() -> None:
    assert {found.__name__ for found in written_modules()} - INNER - set(MODULES) == set()


@pytest.mark.export
def test_every_key_that_a_compiled_module_saves_is_in_the_table() -> None:
    for found in written_modules():
        known = FILES.get(f"{found.__name__}/config.json")
        if found.__name__ in ("Transformer", "MLMTransformer"):
            known = FILES["sentence_bert_config.json"]
        if known is not None:
            saved = {*getattr(found, "config_keys", ()), *getattr(found, "config_key_renames", {})}
            assert saved - set(known) == set(), found.__name__


@pytest.mark.export
def test_every_setting_that_a_model_saves_is_in_the_table() -> None:
    import sentence_transformers as st

    for kind in (st.SentenceTransformer, st.SparseEncoder, st.CrossEncoder, st.MultiVectorEncoder):
        source = "".join(
            inspect.getsource(base.__dict__["_get_model_config"])
            for base in kind.__mro__
            if "_get_model_config" in base.__dict__
        )
        keys = {key for key in SETTINGS if f'"{key}"' in source}
        written = {part.split('"')[0] for part in source.split('config["')[1:]}
        assert written <= keys


@pytest.mark.export
def test_activations_and_poolings_are_the_packages_own() -> None:
    import torch
    from sentence_transformers.sentence_transformer.modules import Pooling

    assert set(POOLINGS) == set(Pooling.POOLING_MODES)
    numbers = torch.linspace(-4, 4, 9)
    for name in ACTIVATIONS:
        activation = getattr(torch.nn, name)()
        together = activation(numbers)
        alone = torch.stack([activation(number) for number in numbers])
        torch.testing.assert_close(alone, together, msg=name)


@pytest.mark.parametrize("value", NOTHING)
def test_a_refused_key_may_say_nothing(value: object, tmp_path: Any) -> None:
    document = {"processing_kwargs": value}
    assert check_keys(document, FILES["sentence_bert_config.json"], tmp_path, "sentence_bert_config.json") == []


def test_every_row_has_a_reason() -> None:
    for keys in (*FILES.values(), MODULES):
        assert all(len(key.why) > 10 for key in keys.values())
