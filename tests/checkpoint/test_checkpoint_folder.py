"""Folders of the user's own, and what can be read of a checkpoint without a network."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from checkpoint_files import WANTED, bert, safetensors, sharded, weights, without, write

from sie_triton.checkpoint import Checkpoint, load_tensors, resolve_checkpoint, rich_progress, wanted_files
from sie_triton.diagnostics import DiagnosticError


def resolve(
    weights: Path | None, bundle: Path | None = None, extra_files: tuple[str, ...] = (), trust: bool = False
) -> Checkpoint:
    return resolve_checkpoint(
        None,
        None,
        weights=weights,
        bundle_weights_path=bundle,
        allow_hub=False,
        extra_files=extra_files,
        trust_remote_code=trust,
    )


def codes(error: pytest.ExceptionInfo[DiagnosticError]) -> list[str]:
    return [diagnostic.code for diagnostic in error.value.diagnostics]


def test_a_whole_folder(tmp_path: Path) -> None:
    found = resolve(write(bert(), tmp_path))

    assert (found.folder, found.source, found.hf_id, found.revision) == (tmp_path, "folder", None, None)
    assert found.files == WANTED
    assert found.read_config()["model_type"] == "bert"
    assert found.identity.startswith("sha256:") and len(found.identity) == 71


def test_the_flag_goes_before_the_bundle(tmp_path: Path) -> None:
    flag, bundle = write(bert(), tmp_path / "flag"), write(bert(), tmp_path / "bundle")
    assert resolve(flag, bundle).folder == flag
    assert resolve(None, bundle).folder == bundle


def test_a_bad_flag_is_an_error_even_where_the_bundle_is_right(tmp_path: Path) -> None:
    bundle = write(bert(), tmp_path / "bundle")
    with pytest.raises(DiagnosticError) as missing:
        resolve(tmp_path / "typo", bundle)
    with pytest.raises(DiagnosticError) as no_folder:
        resolve(bundle / "config.json", bundle)
    assert codes(missing) == codes(no_folder) == ["SIE302"]
    assert "does not exist" in str(missing.value) and str(tmp_path / "typo") in str(missing.value)
    assert "not a folder" in str(no_folder.value)


def test_nothing_names_weights() -> None:
    with pytest.raises(DiagnosticError) as error:
        resolve(None)
    assert codes(error) == ["SIE301"]


def test_everything_that_is_missing_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(DiagnosticError) as error:
        resolve(tmp_path, extra_files=("sparse_linear.pt",))
    assert codes(error) == ["SIE303", "SIE304", "SIE306", "SIE309"]
    assert all(name in str(error.value) for name in ("config.json", "safetensors", "tokenizer.json", "sparse_linear"))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (without(bert(), "model.safetensors"), ["SIE305"]),
        (without(bert(), "1_Pooling/config.json"), ["SIE307"]),
        (without(bert(), "tokenizer.json"), []),
        (without(bert(), "tokenizer.json", "vocab.txt") | {"sentencepiece.bpe.model": b"sp"}, []),
        (without(bert(), "tokenizer.json", "vocab.txt") | {"vocab.json": b"{}"}, ["SIE306"]),
        (bert() | {"2_Dense/config.json": b"{}", "2_Dense/pytorch_model.bin": b"pickle"}, ["SIE305"]),
        (bert() | {"modules.json": b'[{"path": "2_Dense", "type": "a.Dense"}]'}, ["SIE307", "SIE307"]),
        (bert() | {"config.json": b"{"}, ["SIE308"]),
        (bert() | {"config.json": b"[]"}, ["SIE308"]),
        (bert() | {"model.safetensors": bert()["model.safetensors"][:-1]}, ["SIE308"]),
        (bert() | {"model.safetensors": b""}, ["SIE308"]),
        (bert() | {"model.safetensors": b"version https://git-lfs.github.com/spec/v1\n"}, ["SIE308"]),
        (sharded(), []),
        (without(sharded(), "model-00001-of-00002.safetensors"), ["SIE307"]),
        (without(sharded(), "model.safetensors.index.json", "pytorch_model.bin"), ["SIE304"]),
    ],
)
def test_what_makes_a_folder_whole(tmp_path: Path, files: dict[str, bytes], expected: list[str]) -> None:
    write(files, tmp_path)
    if not expected:
        assert resolve(tmp_path).source == "folder"
        return
    with pytest.raises(DiagnosticError) as error:
        resolve(tmp_path)
    assert codes(error) == expected
    assert all(diagnostic.hint for diagnostic in error.value.diagnostics)


def test_the_identity_is_that_of_the_bytes_that_matter(tmp_path: Path) -> None:
    original = resolve(write(bert(), tmp_path / "a")).identity
    assert resolve(write(bert() | {"README.md": b"other words"}, tmp_path / "b")).identity == original
    assert resolve(write(bert() | {"vocab.txt": b"[UNK]\n[PAD]\n"}, tmp_path / "c")).identity != original
    assert resolve(write(bert() | {"added_tokens.json": b"{}"}, tmp_path / "d")).identity != original


def test_remote_code_has_to_be_there_when_it_is_trusted(tmp_path: Path) -> None:
    auto_map = {"AutoConfig": "configuration_own.OwnConfig", "AutoModel": "somebody/code--modeling_far.Far"}
    write(bert() | {"config.json": json.dumps({"auto_map": auto_map}).encode()}, tmp_path)

    assert "modeling_own.py" not in resolve(tmp_path).files
    with pytest.raises(DiagnosticError) as error:
        resolve(tmp_path, trust=True)
    assert codes(error) == ["SIE307"] and "configuration_own.py" in str(error.value)
    write({"configuration_own.py": b""}, tmp_path)
    assert {"configuration_own.py", "modeling_own.py"} <= set(resolve(tmp_path, trust=True).files)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"architectures": ["BertModel"]}, False),
        ({"architectures": ["BertModel"], "auto_map": {"AutoModel": "modeling_own.OwnModel"}}, False),
        ({"architectures": ["NobodysModel"], "auto_map": {"AutoModelForMaskedLM": "modeling_own.Own"}}, True),
        ({"auto_map": {"AutoModel": "modeling_own.OwnModel"}}, True),
        ({"architectures": ["NobodysModel"], "auto_map": {"AutoConfig": "own.Config"}}, False),
    ],
)
def test_needs_remote_code(tmp_path: Path, config: dict[str, object], expected: bool) -> None:
    pytest.importorskip("transformers")
    write(bert() | {"config.json": json.dumps(config).encode()}, tmp_path)
    assert resolve(tmp_path).needs_remote_code is expected


def test_of_a_crowded_repository_only_what_matters() -> None:
    junk = [
        "model.fp16.safetensors",
        "adapter_model.safetensors",
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "checkpoint-500/model.safetensors",
        "checkpoint-500/config.json",
        "onnx/config.json",
        "openvino/tokenizer.json",
        "flax_model.msgpack",
        "tf_model.h5",
        "rust_model.ot",
        "2_Dense/pytorch_model.bin",
        "0_Transformer/onnx/model.onnx",
        "training_args.bin",
        "modeling_own.py",
        "1_Pooling/deep/config.json",
    ]
    wanted = ["2_Dense/config.json", "2_Dense/model.safetensors", "config.json", "idf.json", "model.safetensors"]
    wanted += ["query_0_SparseStaticEmbedding/model.safetensors", "query_token_weights.txt", "spiece.model"]
    wanted += ["processor_config.json"]
    assert wanted_files(junk + wanted) == tuple(sorted(wanted))


def test_load_tensors_agrees_with_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    safetensors_torch = pytest.importorskip("safetensors.torch")
    generator = torch.Generator().manual_seed(7)
    state = {
        "weight": torch.randn(3, 5, generator=generator),
        "bias": torch.randn(3, generator=generator).to(torch.bfloat16),
        "half": torch.randn(2, generator=generator).to(torch.float16),
        "ids": torch.arange(4),
        "flags": torch.tensor([True, False]),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 4),
    }
    safetensors_torch.save_file(state, tmp_path / "head.safetensors")
    torch.save(state, tmp_path / "head.pt")
    for name in ("head.safetensors", "head.pt"):
        tensors = load_tensors(tmp_path / name)
        assert tensors.keys() == state.keys()
        for key, tensor in state.items():
            expected = tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()
            assert tensors[key].dtype == expected.dtype, (name, key)
            np.testing.assert_array_equal(tensors[key], expected)


class _Attack:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.path),))


def test_no_code_in_a_pt_file_runs(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    trace = tmp_path / "executed"
    torch.save({"weight": _Attack(trace)}, tmp_path / "zipped.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"weight": _Attack(trace)}, protocol=2))
    for name in ("zipped.pt", "plain.pt"):
        with pytest.raises(DiagnosticError) as error:
            load_tensors(tmp_path / name)
        assert codes(error) == ["SIE308"]
    assert not trace.exists()


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("head.bin", b"", "SIE305"),
        ("head.safetensors", b"nothing", "SIE308"),
        ("head.safetensors", weights()[:-4], "SIE308"),
        ("absent.safetensors", None, "SIE308"),
    ],
)
def test_files_that_hold_no_tensors(tmp_path: Path, name: str, content: bytes | None, code: str) -> None:
    pytest.importorskip("safetensors")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DiagnosticError) as error:
        load_tensors(tmp_path / name)
    assert codes(error) == [code] and name in str(error.value)


def test_a_pt_file_without_names(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    with pytest.raises(DiagnosticError) as error:
        load_tensors(tmp_path / "list.pt")
    assert codes(error) == ["SIE308"]


def test_our_bytes_are_the_formats(tmp_path: Path) -> None:
    """The files that the tests of this family write are what the safetensors library reads."""
    numpy_reader = pytest.importorskip("safetensors.numpy")
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(numpy_reader.load(safetensors({"a": array}))["a"], array)


def test_bars_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with rich_progress() as show:
        show("model.safetensors", 0, None)
        show("model.safetensors", 2_000_000, 4_000_000)
    said = capsys.readouterr()
    assert said.out == ""
    assert "model.safetensors" in said.err and "2.0/4.0 MB" in said.err
