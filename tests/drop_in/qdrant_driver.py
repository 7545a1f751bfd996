"""`python -m drop_in.qdrant_driver DENSE SPARSE LATE`: texts into qdrant-client's own memory and out again.

Runs where qdrant-client is installed and Fastembed is not. Prints JSON: `{"documents": {vector: [[id, score], …]}}`,
and with a version that has `add` and `query` their hits as `"added"`.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

TEXTS = (
    "The mitochondrion is the powerhouse of the cell.",
    "salt",
    "yes no",
    "the sea, the wind and the rain.",
)
QUERY = "Which part of the cell gives it energy?"


def _by_documents(client: Any, models: Any, names: dict[str, str]) -> dict[str, list[tuple[int, float]]]:
    sizes = {kind: client.get_embedding_size(names[kind]) for kind in ("dense", "late")}
    late = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    client.create_collection(
        "documents",
        vectors_config={
            "dense": models.VectorParams(size=sizes["dense"], distance=models.Distance.COSINE),
            "late": models.VectorParams(size=sizes["late"], distance=models.Distance.DOT, multivector_config=late),
        },
        sparse_vectors_config={"sparse": models.SparseVectorParams()},
    )
    client.upsert(
        "documents",
        points=[
            models.PointStruct(
                id=place, vector={kind: models.Document(text=text, model=name) for kind, name in names.items()}
            )
            for place, text in enumerate(TEXTS)
        ],
    )
    found = {}
    for kind, name in names.items():
        points = client.query_points("documents", query=models.Document(text=QUERY, model=name), using=kind).points
        found[kind] = [(point.id, point.score) for point in points]
    return found


def _by_add(client: Any, names: dict[str, str]) -> list[tuple[str, float]]:
    client.set_model(names["dense"])
    client.add("added", documents=list(TEXTS), ids=list(range(len(TEXTS))))
    return [(hit.document, hit.score) for hit in client.query("added", query_text=QUERY)]


def main(names: dict[str, str]) -> None:
    """Print what both ways find."""
    assert importlib.util.find_spec("fastembed") is None
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "sdk"))
    import sie_triton_fastembed

    sie_triton_fastembed.install()
    sie_triton_fastembed.install()
    module: Any = importlib.import_module("fastembed.text.text_embedding")
    assert module.TextEmbedding is sie_triton_fastembed.TextEmbedding
    qdrant: Any = importlib.import_module("qdrant_client")
    models = importlib.import_module("qdrant_client.models")
    outcome: dict[str, Any] = {
        "documents": _by_documents(qdrant.QdrantClient(":memory:"), models, names),
    }
    if hasattr(qdrant.QdrantClient, "add"):
        outcome["added"] = _by_add(qdrant.QdrantClient(":memory:"), names)
    json.dump(outcome, sys.stdout)


if __name__ == "__main__":
    main(dict(zip(("dense", "sparse", "late"), sys.argv[1:], strict=True)))
