"""Writes texts and vectors into a real store with its own client, and reads them with ours.

`python stores_driver.py STORE FOLDER` for qdrant, pgvector, chroma and lancedb; it runs in an environment of its own
that has the store's packages, and the repository on `PYTHONPATH`. Prints what went wrong, and ends with 1 then.
`record` writes what the quick tests replay of Qdrant's API.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from sie_triton.diagnostics import DiagnosticError
from sie_triton.migrate.stores import Stored, VectorStore

COUNT, DIMS = 300, 8
TEXTS = [f"Text number {place}" for place in range(COUNT)]
TITLES = [f"Title {place}" for place in range(COUNT)]
VECTORS = np.random.default_rng(0).normal(size=(COUNT, DIMS)).astype(np.float32)
OTHERS = np.random.default_rng(1).normal(size=(COUNT, DIMS)).astype(np.float32)


def same(stored: Stored, vectors: Any = VECTORS, *, unit: bool = False) -> None:
    """The entry is the one that was written."""
    row = TEXTS.index(stored.text)
    expected = vectors[row] / (np.linalg.norm(vectors[row]) if unit else 1)
    np.testing.assert_allclose(stored.vector, expected, rtol=1e-5, atol=1e-6)


def judge(store: VectorStore, *, unit: bool = False, vectors: Any = VECTORS) -> None:
    """Right entries, as many as asked, the same ones again, others for another seed."""
    first, again, other = store.sample(40, 0), store.sample(40, 0), store.sample(40, 1)
    assert len({entry.text for entry in first}) == 40
    assert [entry.key for entry in first] == [entry.key for entry in again]
    assert {entry.key for entry in first} != {entry.key for entry in other}
    assert len(store.sample(10_000, 0)) == COUNT
    for entry in [*first, *other]:
        same(entry, vectors, unit=unit)


def refused(code: str, *words: str, make: Any) -> None:
    """It raises a diagnostic of this code that has these words."""
    try:
        made = make()
    except DiagnosticError as error:
        (found,) = error.diagnostics
        assert found.code == code, found
        assert all(word in f"{found.message} {found.hint}" for word in words), found
        return
    raise AssertionError(f"{code} was not raised: {made}")


def unchanged(before: dict[str, str], after: dict[str, str]) -> None:
    """Nothing in a folder is other than it was."""
    changed = {path for path in {*before, *after} if before.get(path) != after.get(path)}
    assert not changed, changed


def digests(folder: Path) -> dict[str, str]:
    """Every file of a folder with the digest of its bytes."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


def qdrant(folder: Path) -> None:
    from qdrant_client import QdrantClient, models
    from qdrant_shim import serve

    from sie_triton.migrate.stores import qdrant as reader
    from sie_triton.migrate.stores.qdrant import QdrantStore

    reader._IDS = 70  # several pages
    client = QdrantClient(":memory:")
    server, url, _ = serve(client)

    def space(distance: Any, size: int = DIMS) -> Any:
        return models.VectorParams(size=size, distance=distance)

    def fill(name: str, config: Any, vector: Any, ids: Any = None, field: str = "document") -> None:
        client.create_collection(name, vectors_config=config)
        points = [
            models.PointStruct(
                id=ids[row] if ids else row + 1,
                vector=vector(row),
                payload={field: TEXTS[row], "metadata": {"title": TITLES[row]}, "number": row},
            )
            for row in range(COUNT)
        ]
        client.upsert(name, points)

    def opened(name: str, model: str = "acme/minilm", dims: int = DIMS, **chosen: Any) -> QdrantStore:
        return QdrantStore(url, name, model=model, dims=dims, **{"vector": None, "text_field": None, **chosen})

    fill("cosine", space(models.Distance.COSINE), lambda row: VECTORS[row].tolist())
    fill("dot", space(models.Distance.DOT), lambda row: (2 * VECTORS[row]).tolist())
    uuids = [str(uuid.UUID(int=hash(row) * 7919 % 2**128)) for row in range(COUNT)]
    named = {"fast-minilm": space(models.Distance.COSINE), "title": space(models.Distance.DOT)}
    fill("named", named, lambda r: {"fast-minilm": VECTORS[r].tolist(), "title": OTHERS[r].tolist()}, uuids)
    full = {"acme-minilm": space(models.Distance.DOT), "title": space(models.Distance.DOT)}
    fill("full", full, lambda r: {"acme-minilm": VECTORS[r].tolist(), "title": OTHERS[r].tolist()})
    fill("only", {"of-my-own": space(models.Distance.DOT)}, lambda r: {"of-my-own": VECTORS[r].tolist()})
    two = {"a": space(models.Distance.DOT), "b": space(models.Distance.DOT, 4)}
    fill("two", two, lambda r: {"a": VECTORS[r].tolist(), "b": OTHERS[r, :4].tolist()}, field="body_of_it")

    cosine, dot = opened("cosine"), opened("dot")
    assert (cosine.metric, cosine.normalizes, dot.metric, dot.normalizes) == ("cosine", True, "dot", False)
    judge(cosine, unit=True)
    judge(dot, vectors=2 * VECTORS)
    assert cosine.sample(3, 0)[0].fields["metadata.title"] in TITLES
    judge(opened("named"), unit=True)
    assert all(np.allclose(e.others["title"], OTHERS[TEXTS.index(e.text)]) for e in opened("named").sample(5, 0))
    judge(opened("named", vector="title"), vectors=OTHERS)
    judge(opened("full"))
    refused("SIE905", "`acme-minilm`, `title`", make=lambda: opened("full", model="some/other"))
    judge(opened("only"))
    judge(opened("two", text_field="body_of_it"))
    refused("SIE904", "`body_of_it`", "--text-field", make=lambda: opened("two").sample(5, 0))
    refused("SIE904", "`a`, `b`", make=lambda: opened("two", vector="c"))
    refused("SIE905", "`a`, `b`", make=lambda: opened("two", dims=99))
    refused("SIE904", "`cosine`", "`named`", make=lambda: opened("nothing"))
    server.shutdown()


def record(folder: Path) -> None:
    """The exchanges that `test_stores.py` replays, in FOLDER/qdrant_exchanges.json."""
    from qdrant_client import QdrantClient, models
    from qdrant_shim import serve

    from sie_triton.migrate.stores.qdrant import QdrantStore

    client = QdrantClient(":memory:")
    server, url, log = serve(client)
    cosine, dot = (models.VectorParams(size=4, distance=metric) for metric in ("Cosine", "Dot"))
    vectors = {"cosine": [[1.0] * 4, [2.0] * 4], "dot": [[1.0] * 4, [2.0] * 4]}
    for name, space in (("cosine", cosine), ("dot", dot)):
        client.create_collection(name, vectors_config=space)
        points = [
            models.PointStruct(id=row + 1, vector=vector, payload={"document": f"text {row}", "source": "a"})
            for row, vector in enumerate(vectors[name])
        ]
        client.upsert(name, points)
    client.create_collection("named", vectors_config={"fast-minilm": cosine, "title": dot})
    both = {"fast-minilm": [3.0, 0, 0, 4.0], "title": [0, 1.0, 0, 0]}
    client.upsert("named", [models.PointStruct(id=str(uuid.UUID(int=1)), vector=both, payload={"document": "text 0"})])
    client.create_collection("empty", vectors_config={"a": cosine, "b": cosine})
    for name in ("cosine", "dot", "named", "empty", "nothing"):
        try:
            QdrantStore(url, name, vector=None, text_field=None, model="acme/minilm", dims=4).sample(10, 0)
        except DiagnosticError:
            continue
    server.shutdown()
    text = "[\n" + ",\n".join(json.dumps(exchange, sort_keys=True) for exchange in log) + "\n]\n"
    (folder / "qdrant_exchanges.json").write_text(text, encoding="utf-8")


def pgvector(folder: Path) -> None:
    import pgserver
    import psycopg

    from sie_triton.migrate.stores.pgvector import PgvectorStore

    database = pgserver.get_server(folder / "database")
    dsn = database.get_uri()
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE EXTENSION vector")
        connection.execute("CREATE SCHEMA shop")
        connection.execute("CREATE TABLE shop.docs (id int PRIMARY KEY, content text, title text, embedding vector(8))")
        # pgvector has halfvec from 0.7 on.
        half = connection.execute("SELECT to_regtype('halfvec')").fetchone() != (None,)
        connection.execute(f"CREATE TABLE plain (body text, a vector(8), b {'halfvec' if half else 'vector'}(8))")
        connection.execute("CREATE TABLE arrays (text text, vector real[])")
        for row in range(COUNT):
            written = str(VECTORS[row].tolist())
            values = (row, TEXTS[row], TITLES[row], written)
            connection.execute("INSERT INTO shop.docs VALUES (%s, %s, %s, %s)", values)
            connection.execute("INSERT INTO plain VALUES (%s, %s, %s)", (TEXTS[row], written, written))
            connection.execute("INSERT INTO arrays VALUES (%s, %s)", (TEXTS[row], VECTORS[row].tolist()))
        connection.execute("INSERT INTO shop.docs VALUES (-1, NULL, NULL, NULL)")
        connection.execute("CREATE INDEX ON shop.docs USING hnsw (embedding vector_ip_ops)")
    chosen: dict[str, Any] = {"vector": None, "text_field": None}
    store = PgvectorStore(dsn, "shop.docs", vector=None, text_field="content")
    assert store.metric == "dot"
    judge(store)
    assert store.sample(1, 0)[0].fields["title"] in TITLES
    judge(PgvectorStore(dsn, "plain", vector="a", text_field=None))
    other = PgvectorStore(dsn, "plain", vector="b", text_field=None)
    assert bool(other.notes) is half
    assert other.metric == "unknown"
    judge(other, vectors=VECTORS.astype(np.float16).astype(np.float32) if half else VECTORS)
    judge(PgvectorStore(dsn, "arrays", **chosen))
    refused("SIE904", "no table", make=lambda: PgvectorStore(dsn, "shop.none", **chosen))
    refused("SIE905", "`a`, `b`", "--vector-column", make=lambda: PgvectorStore(dsn, "plain", **chosen))
    refused("SIE904", "`embedding`", make=lambda: PgvectorStore(dsn, "shop.docs", vector="x", text_field=None))
    refused("SIE903", "PostgreSQL", make=lambda: PgvectorStore("postgresql://localhost:1/x", "t", **chosen))
    try:
        store._connection.execute("DELETE FROM shop.docs")
    except psycopg.errors.ReadOnlySqlTransaction:
        pass
    else:
        raise AssertionError("the connection can write")
    database.cleanup()


def chroma(folder: Path) -> None:
    import chromadb

    place = folder / "chroma"
    client = chromadb.PersistentClient(str(place), chromadb.Settings(anonymized_telemetry=False))
    for name, metadata in (("cosine", {"hnsw:space": "cosine"}), ("plain", None)):
        collection = client.create_collection(name, metadata=metadata, embedding_function=None)
        collection.add(
            ids=[f"id{row}" for row in range(COUNT)],
            documents=TEXTS,
            embeddings=[vector.tolist() for vector in VECTORS],
            metadatas=[{"title": title} for title in TITLES],
        )
    # A client writes whenever it likes; another process is done with it.
    chromadb.api.client.SharedSystemClient.clear_system_cache()
    subprocess.run([sys.executable, __file__, "chroma-again", folder], check=True)


def chroma_again(folder: Path) -> None:
    from sie_triton.migrate.stores import chroma as reader
    from sie_triton.migrate.stores.chroma import ChromaStore

    reader._IDS = 70  # several pages
    place = folder / "chroma"
    before = digests(place)
    cosine, plain = ChromaStore(str(place), "cosine"), ChromaStore(str(place), "plain")
    assert (cosine.metric, plain.metric) == ("cosine", "euclid")
    judge(cosine)
    judge(plain)
    assert cosine.sample(1, 0)[0].fields["title"] in TITLES
    refused("SIE904", "`cosine`", make=lambda: ChromaStore(str(place), "nothing"))
    refused("SIE903", "chroma.sqlite3", make=lambda: ChromaStore(str(folder / "nowhere"), "a"))
    assert not (folder / "nowhere").exists()
    unchanged(before, digests(place))


def lancedb(folder: Path) -> None:
    import lancedb as package
    import pyarrow as pa

    from sie_triton.migrate.stores.lance import LanceStore

    place = folder / "lance"
    database = package.connect(str(place))
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(VECTORS.ravel()), DIMS)
    table = database.create_table("docs", pa.table({"text": TEXTS, "title": TITLES, "vector": vectors}))
    database.create_table("two", pa.table({"text": TEXTS, "a": vectors, "b": vectors}))
    table.create_index("vector", config=package.index.IvfFlat(distance_type="dot", num_partitions=2))
    before = digests(place)
    chosen: dict[str, Any] = {"vector": None, "text_field": None}
    store = LanceStore(str(place), "docs", **chosen)
    assert store.metric == "dot", store.metric
    judge(store)
    assert store.sample(1, 0)[0].fields["title"] in TITLES
    judge(LanceStore(str(place), "two", vector="b", text_field=None))
    refused("SIE905", "`a`, `b`", make=lambda: LanceStore(str(place), "two", **chosen))
    refused("SIE903", "nothing", make=lambda: LanceStore(str(place), "nothing", **chosen))
    refused("SIE903", "no folder", make=lambda: LanceStore(str(folder / "nowhere"), "docs", **chosen))
    unchanged(before, digests(place))


if __name__ == "__main__":
    globals()[sys.argv[1].replace("-", "_")](Path(sys.argv[2]))
