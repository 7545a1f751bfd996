"""What is to be done between two manifests: every way in which ids and Triton models can differ."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from compiler.tiny import MODEL_ID
from sie_frontend.live.changes import ChangeKind, composed, difference, gone
from sie_frontend.manifest import Manifest, Model, TritonModel, read_manifest
from sie_frontend.serving.catalogue import unchanged

from live.conftest import Versions

RAW = f"{MODEL_ID}:raw"


@pytest.fixture(scope="session")
def model(versions: Versions) -> Model:
    """A real entry, of which each test makes others."""
    return read_manifest(versions.built).models[MODEL_ID]


def manifest(model: Model, **ids: tuple[str, ...]) -> Manifest:
    """Ids by name with the Triton models of their inputs; `x/` before a name is what it is composed of."""
    models, triton_models = {}, {}
    for model_id, names in ids.items():
        entries = {}
        for number, name in enumerate(names):
            inner, _, public = name.rpartition("/")
            entries[("text", "image")[number]] = msgspec.structs.replace(model.inputs["text"], triton_model=public)
            triton_models[public] = TritonModel((), (), {"1/model.onnx": public}, (inner,) if inner else ())
            if inner:
                triton_models[inner] = TritonModel((), (), {"1/model.onnx": inner})
        models[model_id] = msgspec.structs.replace(model, inputs=entries)
    return Manifest(4, models, triton_models, {})


def told(old: Manifest, new: Manifest) -> list[tuple[dict[str, str], tuple[str, ...]]]:
    return [({i: kind.value for i, kind in step.kinds.items()}, step.load) for step in difference(old, new)]


def test_nothing_is_to_be_done_where_nothing_differs(model: Model) -> None:
    one = manifest(model, a=("e/t",), b=("u", "v"))
    assert difference(one, one) == [] and gone(one, one) == () and unchanged(one, one) == {"a", "b"}


def test_every_pair_of_small_manifests(model: Model) -> None:
    """Each id is absent or has one of three Triton models, of which two ids may share one: 256 pairs."""
    choices = (None, "s", "t", "e/u")
    small = [
        manifest(model, **{i: (name,) for i, name in zip("ab", names, strict=True) if name})
        for names in itertools.product(choices, repeat=2)
    ]
    for old, new in itertools.product(small, repeat=2):
        steps = difference(old, new)
        kinds = {i: kind for step in steps for i, kind in step.kinds.items()}
        for model_id in "ab":
            was, now = old.models.get(model_id), new.models.get(model_id)
            expected = {
                (True, False): ChangeKind.REMOVED,
                (False, True): ChangeKind.ADDED,
                (True, True): ChangeKind.REPLACED if was != now else None,
            }.get((was is not None, now is not None))
            assert kinds.get(model_id) is expected
        served = {part for m in old.models.values() for part in old.parts(m)}
        needed = {part for m in new.models.values() for part in new.parts(m)}
        loads = [part for step in steps for part in step.load]
        assert sorted(loads) == sorted(needed - served), "each is loaded once, and nothing else"
        assert set(gone(old, new)) == served - needed
        if {"e", "u"} <= set(loads):
            assert loads.index("e") < loads.index("u"), "what it is composed of comes first"
        # One step after the other leads from the one to the other, and what goes is let go of last.
        present = old
        for step in steps:
            present = composed(present, new, {*old.models, *new.models} - step.ids - _done(present, new))
        assert set(present.models) == set(new.models)
        assert composed(old, new, {*old.models, *new.models}).models == old.models


def _done(present: Manifest, new: Manifest) -> set[str]:
    return {i for i in {*present.models, *new.models} if present.models.get(i) == new.models.get(i)}


def test_ids_that_share_a_triton_model_change_together(model: Model) -> None:
    old, new = manifest(model, a=("s",), b=("s",), c=("z",)), manifest(model, a=("t",), b=("t",), c=("z",))
    assert told(old, new) == [({"a": "replaced", "b": "replaced"}, ("t",))]
    assert gone(old, new) == ("s",)


def test_of_two_inputs_only_the_new_one_is_loaded(model: Model) -> None:
    old, new = manifest(model, a=("s", "p")), manifest(model, a=("s", "q"))
    assert told(old, new) == [({"a": "replaced"}, ("q",))]
    assert gone(old, new) == ("p",)


def test_an_id_that_moves_to_a_served_triton_model_loads_nothing(model: Model) -> None:
    """Which happens before the id goes that has it now."""
    old, new = manifest(model, a=("s",)), manifest(model, b=("s",))
    assert told(old, new) == [({"b": "added"}, ()), ({"a": "removed"}, ())]
    assert gone(old, new) == ()


def test_files_that_change_under_a_name_are_told(model: Model) -> None:
    old = new = manifest(model, a=("s",), b=("t",))
    files = msgspec.structs.replace(old.triton_models["s"], files={"1/model.onnx": "another"})
    new = msgspec.structs.replace(new, triton_models={**new.triton_models, "s": files})
    [step] = difference(old, new)
    assert (step.in_place, dict(step.kinds)) == (("s",), {"a": ChangeKind.CHANGED})
    assert unchanged(old, new) == {"b"}


def test_another_preparation_alone_loads_nothing(model: Model) -> None:
    old = manifest(model, a=("s",), b=("s",), c=("t",))
    other = msgspec.structs.replace(old.models["a"], max_sequence_length=7)
    new = msgspec.structs.replace(old, models={**old.models, "a": other})
    assert told(old, new) == [({"a": "changed"}, ())]
    # The queue of a Triton model is of the ids that share it.
    assert unchanged(old, new) == {"c"}


def test_a_refused_id_stays_what_it_was(model: Model) -> None:
    old, new = manifest(model, a=("e/s",), b=("t",)), manifest(model, a=("e2/s2",), b=("t2",), c=("u",))
    kept = composed(old, new, {"a", "c"})
    assert {i: m.triton_models for i, m in kept.models.items()} == {"a": ("s",), "b": ("t2",)}
    assert kept.parts(kept.models["a"]) == ("e", "s")
