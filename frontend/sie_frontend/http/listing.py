"""`GET /v1/models`: what each routable id takes and gives, and whether it can be asked now.

The list is SIE's under `models`, and OpenAI's under `object` and `data`, so that either's clients find theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sie_frontend.manifest import Built, Model
from sie_frontend.serving.engine import Engine

# What coarse precisions do to the answers of an index, and to the order of pairs' scores.
_NEAREST = ("texts", "corpus", "comparison", "alike", "mixed", "min_cosine")
_RERANKED = ("queries", "candidates", "kept", "tau", "max_abs")


def list_models(engine: Engine, runtime_instance: str, built: int, ids: Sequence[str]) -> dict[str, Any]:
    """Some of the routable ids, variants included. `built` is when the repository was, in seconds since 1970."""
    models = [(model_id, engine.manifest.models[model_id]) for model_id in ids]
    return {
        "models": [model_info(engine, runtime_instance, model_id, model) for model_id, model in models],
        "object": "list",
        "data": [
            {"id": model_id, "object": "model", "created": built, "owned_by": _owner(model_id)}
            for model_id, _ in models
        ],
    }


def _owner(model_id: str) -> str:
    owner, slash, _ = model_id.partition("/")
    return owner if slash else ""


def one_model(engine: Engine, runtime_instance: str, model_id: str, model: Model) -> dict[str, Any]:
    """One entry with what SIE does not say: what the model's vectors were compared with when it was built."""
    info = model_info(engine, runtime_instance, model_id, model)
    found = {name: engine.manifest.built.get(entry.triton_model) for name, entry in model.inputs.items()}
    certificates = {name: None if built is None else certificate_info(built) for name, built in found.items()}
    # One certificate as long as there is one input; then one by each input's name.
    [first, *others] = certificates.values()
    return {**info, "certificate": certificates if others else first}


def certificate_info(built: Built) -> dict[str, Any]:
    """A build's certificate in short, with the worst distances of each precision by output."""
    certificate = built.certificate
    return {
        "implementation": certificate.implementation,
        "texts_sha256": certificate.texts,
        "cases": certificate.cases,
        "compared": certificate.compared,
        "not_compared": certificate.not_compared,
        "departures": certificate.departures,
        "warnings": certificate.warnings,
        "distances": {
            precision: {
                output: {"min_cosine": distance.min_cosine, "max_abs": distance.max_abs}
                for output, distance in outputs.items()
            }
            for precision, outputs in built.parity.items()
        },
        **({"nearest": _answers_info(built.nearest, _NEAREST)} if built.nearest else {}),
        **({"reranked": _answers_info(built.reranked, _RERANKED)} if built.reranked else {}),
        "precisions": built.precisions,
    }


def _answers_info(
    measured: Mapping[str, Mapping[str, object]], fields: Sequence[str]
) -> dict[str, dict[str, dict[str, Any]]]:
    """The named figures, by precision and output."""
    return {
        precision: {output: {field: getattr(found, field) for field in fields} for output, found in outputs.items()}
        for precision, outputs in measured.items()
    }


def model_info(engine: Engine, runtime_instance: str, model_id: str, model: Model) -> dict[str, Any]:
    """One entry, its keys in the contract's order. Reading it never loads anything."""
    status = engine.state(model_id, model)
    failure = status.failure
    return {
        "name": model_id,
        "inputs": model.declared_inputs,
        "outputs": model.outputs,
        "dims": {output: dim for output, dim in model.dims.items() if dim is not None},
        "loaded": status.loaded,
        "state": status.state,
        "last_error": None
        if failure is None
        else {
            "code": "MODEL_LOAD_FAILED",
            "message": failure.message,
            "attempts": max(1, failure.attempts),
            "permanent": failure.permanent,
        },
        "max_sequence_length": model.max_sequence_length,
        "profiles": {
            name: {
                "is_default": name == "default",
                "identity": None,
                "remote_contract_sha256": None,
                "remote_execution_sha256": None,
                "runtime_instance_id": runtime_instance,
            }
            for name in model.profiles
        },
        "revision": model.revision,
        "capabilities": None,
        "routing": {"policy": None, "upstream_kind": None},
    }
