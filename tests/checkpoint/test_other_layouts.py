"""Folders that are whole in a way of their own: supported, or refused with the reason that is true.

The right answers are those of transformers and sentence-transformers: what they load is supported or named.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checkpoint_files import TRANSFORMER, bert, in_folder, odd_shards, safetensors, sharded, weights, without, write

from sie_triton.checkpoint import Checkpoint, resolve_checkpoint, wanted_files, weight_paths
from sie_triton.checkpoint.tensors import read_header
from sie_triton.checkpoint.view import rename_tensors
from sie_triton.diagnostics import Diagnostic, DiagnosticError


def resolve(folder: Path, *extra_files: str) -> Checkpoint:
    return resolve_checkpoint(
        None, None, weights=folder, bundle_weights_path=None, allow_hub=False, extra_files=extra_files
    )


def refusal(folder: Path) -> Diagnostic:
    with pytest.raises(DiagnosticError) as error:
        resolve(folder)
    (only,) = error.value.diagnostics
    assert only.hint
    return only


@pytest.mark.parametrize(
    ("folder", "kind"),
    [("0_Transformer", TRANSFORMER), ("0_BERT", "sentence_transformers.models.BERT"), ("text/", TRANSFORMER)],
)
def test_a_transformer_in_a_folder_of_its_own_is_shown_at_the_root(tmp_path: Path, folder: str, kind: str) -> None:
    home = folder.rstrip("/")
    files = {name.replace("//", "/"): content for name, content in in_folder(folder, kind).items()}
    write(files, tmp_path)
    before = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))

    found = resolve(tmp_path)

    assert {f"{home}/config.json", f"{home}/model.safetensors", f"{home}/tokenizer.json"} <= set(found.files)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "sentence_bert_config.json"):
        assert (found.folder / name).read_bytes() == files[f"{home}/{name}"]
    assert (found.folder / "1_Pooling" / "config.json").read_bytes() == files["1_Pooling/config.json"]
    modules = json.loads((found.folder / "modules.json").read_text())
    assert [module["path"] for module in modules] == ["", "1_Pooling", "2_Normalize"]
    assert before == sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))


def test_what_a_view_shows_is_what_lies_in_the_folder_now(tmp_path: Path) -> None:
    write(in_folder(), tmp_path)
    first = resolve(tmp_path)
    assert json.loads((first.folder / "config.json").read_text())["model_type"] == "bert"
    config = tmp_path / "0_Transformer" / "config.json"
    config.write_text(json.dumps({"model_type": "distilbert", "architectures": ["DistilBertModel"]}))
    assert json.loads((resolve(tmp_path).folder / "config.json").read_text())["model_type"] == "distilbert"


def test_modules_json_decides_between_two_transformers(tmp_path: Path) -> None:
    """sentence-transformers follows `modules.json`; the files at the root are left over from something else."""
    stale = {"config.json": b'{"model_type": "stale"}', "model.safetensors": weights(seed=9)}
    found = resolve(write(in_folder() | stale, tmp_path))
    assert json.loads((found.folder / "config.json").read_text())["model_type"] == "bert"
    assert "model.safetensors" not in found.files
    assert weight_paths(found.folder) == (found.folder / "model.safetensors",)


def test_what_is_missing_in_the_folder_is_named_with_it(tmp_path: Path) -> None:
    assert (
        "`0_Transformer/`" in refusal(write(without(in_folder(), "0_Transformer/model.safetensors"), tmp_path)).message
    )


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("folder", ["", "0_Transformer/"])
def test_an_adapter_that_is_not_understood_is_refused_by_its_file(tmp_path: Path, alone: bool, folder: str) -> None:
    """transformers and sentence-transformers load it on top of the base model; a build without it is another model."""
    files = in_folder() if folder else bert()
    files |= {f"{folder}adapter_config.json": b'{"peft_type": "LORA"}', f"{folder}adapter_model.safetensors": weights()}
    if alone:
        files = without(files, f"{folder}model.safetensors", f"{folder}config.json", "pytorch_model.bin")
    found = refusal(write(files, tmp_path))
    assert found.code == "SIE322" and found.message == "the adapter is not merged: `r` is None, not a positive number"
    assert found.where is not None and found.where.path == tmp_path / folder / "adapter_config.json"
    assert found.hint is not None and "merge_and_unload" in found.hint
    (tmp_path / folder / "adapter_model.safetensors").unlink()
    found = refusal(tmp_path)
    assert found.code == "SIE322" and f"`{folder}adapter_config.json`" in found.message
    assert found.hint is not None and "merge_and_unload" in found.hint


@pytest.mark.parametrize(
    ("files", "code", "said"),
    [
        (
            {"document_0_MLMTransformer/config.json": b"{}", "router_config.json": b"{}"},
            "SIE323",
            "`Router`",
        ),
        (
            {"modules.json": b'[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Router"}]'},
            "SIE323",
            "`Router`",
        ),
        (
            {"modules.json": b'[{"path": "0_S", "type": "sentence_transformers.models.StaticEmbedding"}]'},
            "SIE323",
            "`StaticEmbedding`",
        ),
        (
            {"modules.json": b'[{"path": "0_WordEmbeddings", "type": "sentence_transformers.models.WordEmbeddings"}]'},
            "SIE323",
            "`WordEmbeddings`",
        ),
    ],
)
def test_another_first_module_is_named(tmp_path: Path, files: dict[str, bytes], code: str, said: str) -> None:
    found = refusal(write(files, tmp_path))
    assert found.code == code and said in found.message


def test_a_router_whose_transformer_is_at_the_root_is_for_the_recipe_to_judge(tmp_path: Path) -> None:
    """OpenSearch publishes its sparse encoders so: one encoder, and a table for queries."""
    files = bert() | {"router_config.json": b"{}", "idf.json": b"{}"}
    assert {"router_config.json", "idf.json"} <= set(resolve(write(files, tmp_path)).files)


@pytest.mark.parametrize("kind", ["t5", "mt5", "umt5", "longt5"])
def test_t5_encoders_are_refused_for_what_they_are(tmp_path: Path, kind: str) -> None:
    found = refusal(write(bert() | {"config.json": json.dumps({"model_type": kind}).encode()}, tmp_path))
    assert found.code == "SIE324" and "T5" in found.message


def test_shards_have_the_names_that_the_index_gives_them(tmp_path: Path) -> None:
    found = resolve(write(odd_shards() | {"stale.safetensors": weights(seed=3)}, tmp_path))
    assert {"part_1.safetensors", "part_2.safetensors"} <= set(found.files)
    assert "stale.safetensors" not in found.files
    assert [path.name for path in weight_paths(tmp_path)] == ["part_1.safetensors", "part_2.safetensors"]


@pytest.mark.parametrize("files", [odd_shards(), without(sharded(), "pytorch_model.bin")])
def test_a_missing_shard_is_named(tmp_path: Path, files: dict[str, bytes]) -> None:
    gone = next(name for name in files if name.endswith("2.safetensors") or "00002-of" in name)
    found = refusal(write(without(files, gone), tmp_path))
    assert found.code == "SIE307" and gone in found.message


@pytest.mark.parametrize("weight_map", [["part_1.safetensors"], {"w": 1}, "none"])
def test_an_index_that_is_none_is_damaged(tmp_path: Path, weight_map: object) -> None:
    index = {"model.safetensors.index.json": json.dumps({"weight_map": weight_map}).encode()}
    with pytest.raises(DiagnosticError) as error:
        resolve(write(odd_shards() | index, tmp_path))
    assert "SIE308" in [diagnostic.code for diagnostic in error.value.diagnostics]


def test_the_single_file_wins_over_shards_as_in_transformers(tmp_path: Path) -> None:
    files = sharded() | {"model.safetensors": weights(seed=7)}
    assert [path.name for path in weight_paths(write(files, tmp_path))] == ["model.safetensors"]


@pytest.mark.parametrize("modules", [b"{}", b'["a"]', b'[{"type": "a.Transformer"}]', b"[]", b'"x"'])
def test_odd_modules_are_left_to_the_reader_of_the_pipeline(tmp_path: Path, modules: bytes) -> None:
    assert resolve(write(bert() | {"modules.json": modules}, tmp_path)).folder == tmp_path


def test_the_length_limit_of_old_repositories_is_fetched_too() -> None:
    """sentence-transformers reads these names besides `sentence_bert_config.json`."""
    names = ["sentence_roberta_config.json", "sentence_xlm-roberta_config.json", "sentence_other_config.json"]
    assert wanted_files(names) == tuple(names[:2])


def test_renamed_tensors_are_what_the_library_reads(tmp_path: Path) -> None:
    """Parts of a first axis lie one behind the other; bfloat16, empty and scalar tensors keep their bytes."""
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("safetensors.torch")
    generator = torch.Generator().manual_seed(3)
    stored = {
        "a.Wqkv.weight": torch.randn(6, 4, generator=generator),
        "a.Wqkv.bias": torch.randn(6, generator=generator).to(torch.bfloat16),
        "keep": torch.arange(5),
        "scalar": torch.tensor(2.5),
    }
    library.save_file(stored, tmp_path / "old.safetensors", metadata={"format": "pt"})

    def rename(name: str) -> tuple[str, ...]:
        return tuple(name.replace("Wqkv", part) for part in "qkv") if "Wqkv" in name else (f"new.{name}",)

    rename_tensors(tmp_path / "new.safetensors", tmp_path / "old.safetensors", rename)

    found = library.load_file(tmp_path / "new.safetensors")
    assert found.keys() == {"new.keep", "new.scalar", *(f"a.{p}.{k}" for p in "qkv" for k in ("weight", "bias"))}
    for number, part in enumerate("qkv"):
        for kind in ("weight", "bias"):
            assert torch.equal(found[f"a.{part}.{kind}"], stored[f"a.Wqkv.{kind}"].chunk(3)[number])
    assert torch.equal(found["new.keep"], stored["keep"]) and torch.equal(found["new.scalar"], stored["scalar"])
    assert read_header(tmp_path / "new.safetensors").metadata == {"format": "pt"}


def test_a_tensor_that_has_no_equal_parts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old.safetensors").write_bytes(safetensors({"Wqkv": np.zeros((4, 2), dtype=np.float32)}))
    with pytest.raises(DiagnosticError, match="4 rows"):
        rename_tensors(tmp_path / "new.safetensors", tmp_path / "old.safetensors", lambda _: ("q", "k", "v"))


def test_no_room_for_a_view_is_a_diagnostic(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk: the kernel fails the write in both cases."""
    jina = {
        "model_type": "xlm-roberta",
        **{"vocab_size": 9, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1},
        **{"intermediate_size": 4, "max_position_embeddings": 9, "type_vocab_size": 1},
    }
    tensors = {"roberta.encoder.layers.0.mixer.Wqkv.weight": np.zeros((3000, 100), dtype=np.float32)}
    files = {"config.json": json.dumps(jina).encode(), "model.safetensors": safetensors(tensors)}
    write(bert() | files, tmp_path)
    script = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from sie_triton.checkpoint import resolve_checkpoint\n"
        "from sie_triton.diagnostics import DiagnosticError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "found = resolve_checkpoint(None, None, weights=Path(sys.argv[1]), bundle_weights_path=None, allow_hub=False)\n"
        "try: print(found.folder)\n"
        "except DiagnosticError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert "SIE325" in done.stdout and "TMPDIR" in done.stdout
