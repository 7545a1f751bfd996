"""TorchScript models before the linter, the embedded backend on the real server, and torch itself."""

from __future__ import annotations

import io
from pathlib import Path

import httpx
import pytest
import torch
from torch import Tensor, nn

from sie_triton.backends.pytorch.archive import TorchArchive, TorchArchiveError
from sie_triton.backends.pytorch.signature import Argument
from sie_triton.embedded.server import ServerSpec
from sie_triton.lint import lint_repository

from .builders import RepositoryBuilder, identity_config, replaced, script_file
from .judge import Judge, StrictJudge, verdicts

pytestmark = pytest.mark.e2e


class Scale(nn.Module):
    """Two tensors in, two out, and weights large enough to damage."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(4096))

    def forward(self, values: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
        return values * factor + self.weights.sum(), values


class Named(nn.Module):
    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return inputs["x"]


class Defaults(nn.Module):
    def forward(self, values: Tensor, other: Tensor | None = None, times: int = 3) -> Tensor:
        return values * times if other is None else other


def saved(module: nn.Module, *example: Tensor) -> bytes:
    """The module as TorchScript: traced on an example, else scripted."""
    buffer = io.BytesIO()
    script = torch.jit.trace(module, example) if example else torch.jit.script(module)  # type: ignore[no-untyped-call]
    torch.jit.save(script, buffer)
    return buffer.getvalue()


def flipped(raw: bytes) -> bytes:
    """`raw` with one bit of the weights changed."""
    middle = raw.index(bytes(4096)) + 2048
    return raw[:middle] + b"\x01" + raw[middle + 1 :]


def weights_only() -> bytes:
    buffer = io.BytesIO()
    torch.save(Scale().state_dict(), buffer)
    return buffer.getvalue()


def read(raw: bytes, tmp_path: Path) -> TorchArchive:
    (tmp_path / "model.pt").write_bytes(raw)
    return TorchArchive.read(tmp_path / "model.pt")


TWO = (Argument("values", "TensorType"), Argument("factor", "TensorType"))


def test_signatures_are_torchs_own(tmp_path: Path) -> None:
    assert read(saved(Scale()), tmp_path) == TorchArchive(TWO, 2)
    assert read(saved(Scale(), torch.zeros(2), torch.ones(2)), tmp_path) == TorchArchive(TWO, 2)
    assert read(saved(Named()), tmp_path) == TorchArchive((Argument("inputs", "DictType"),), 1)
    for module in (Scale(), Named(), Defaults()):
        raw = saved(module)
        schema = torch.jit.load(io.BytesIO(raw)).forward.schema  # type: ignore[no-untyped-call]
        theirs = [(argument.name, argument.type.kind()) for argument in schema.arguments[1:]]
        assert [(a.name, a.kind) for a in read(raw, tmp_path).arguments or ()] == theirs


@pytest.mark.parametrize("raw", [b"", b"version https://git-lfs", saved(Scale())[:-40], weights_only()])
def test_what_torch_does_not_load_is_no_archive(raw: bytes, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        torch.jit.load(io.BytesIO(raw))  # type: ignore[no-untyped-call]
    with pytest.raises(TorchArchiveError):
        read(raw, tmp_path)


def test_torch_computes_with_flipped_bits_and_we_do_not(tmp_path: Path) -> None:
    raw = flipped(saved(Scale()))
    torch.jit.load(io.BytesIO(raw))  # type: ignore[no-untyped-call]
    with pytest.raises(TorchArchiveError, match="checksum"):
        read(raw, tmp_path)


INTER_OP = 'parameters { key: "INTER_OP_THREAD_COUNT" value { string_value: "1" } }'


def config(*inputs: str, data_type: str = "TYPE_FP32", parameters: str = "") -> str:
    """A TorchScript model without a name; one output."""
    text = identity_config(backend='backend: "pytorch"', data_type=data_type, parameters=parameters)
    names = inputs or ("x",)
    more = "".join(f'input {{ name: "{name}" data_type: {data_type} dims: 4 }}\n' for name in names[1:])
    renamed = replaced(replaced(text, '"x"', f'"{names[0]}"'), '"y"', '"OUTPUT__0"')
    return replaced(renamed, 'name: "copy"', "") + more


MODELS: dict[str, tuple[str, bytes, bool]] = {
    "right": (config("values", "factor"), saved(Scale()), True),
    "dictionary": (config("x"), saved(Named()), True),
    "indexed": (config("A__1", "B__0"), saved(Scale()), True),
    "too_few": (config("values"), saved(Scale()), False),
    "same_place": (config("A__0", "B__0"), saved(Scale()), False),
    "listed_twice": (config("x", "x"), script_file(), False),
    "no_tensor": (config("values", "other", "times"), saved(Defaults()), False),
    "type": (config("x", data_type="TYPE_UINT32"), script_file(), False),
    "bfloat16": (config("x", data_type="TYPE_BF16"), script_file(), False),
    "empty": (config("x"), b"", False),
    "pointer": (config("x"), b"version https://git-lfs.github.com/spec/v1\n", False),
    "cut": (config("values", "factor"), saved(Scale())[:-100], False),
    "flipped": (config("values", "factor"), flipped(saved(Scale())), False),
    "weights": (config("values", "factor"), weights_only(), False),
}


SERVED = ("right", "too_few", "type", "flipped", "weights")


@pytest.fixture
def builder(tmp_path: Path) -> RepositoryBuilder:
    (tmp_path / "models").mkdir()
    return RepositoryBuilder(tmp_path / "models")


def errors(builder: RepositoryBuilder) -> set[str]:
    """The models that the linter refuses."""
    found = lint_repository(builder.path)
    return {f.path.relative_to(builder.path).parts[0] for f in found if f.severity == "error"}


def test_the_linter_knows_files_and_signatures(builder: RepositoryBuilder) -> None:
    for name, (text, raw, _) in MODELS.items():
        builder.add(name, text, files={"1/model.pt": raw})
    assert errors(builder) == {name for name, (_, _, loads) in MODELS.items() if not loads}


def test_the_backend_refuses_the_same(builder: RepositoryBuilder, tmp_path: Path) -> None:
    """Of each kind one: every stub imports torch, which takes long."""
    for name in SERVED:
        text, raw, _ = MODELS[name]
        builder.add(name, text, files={"1/model.pt": raw})
    judged = verdicts(builder.path, tmp_path / "triton.log", StrictJudge)
    assert {name for name in SERVED if judged[name]} == errors(builder)
    log = (tmp_path / "triton.log").read_text()
    assert "the checksum of" in log
    assert "Traceback" not in log


def test_threads_between_operators_are_set_once(builder: RepositoryBuilder, tmp_path: Path) -> None:
    """In NVIDIA's server the second one would end the process; here it is refused, and the first goes on."""
    for name in ("first", "second"):
        builder.add(name, config(parameters=INTER_OP), files={"1/model.pt": script_file()})
    builder.add("unset", config(), files={"1/model.pt": script_file()})
    builder.add("not_above_0", config(parameters=INTER_OP.replace('"1"', '"0"')), files={"1/model.pt": script_file()})
    assert errors(builder) == {"first", "second"}
    assert not [f for f in lint_repository(builder.path, triton="25.11") if f.rule_id in ("L730", "L731")]

    server = StrictJudge(ServerSpec(builder.path, tmp_path / "triton.log"))
    server.start()
    try:
        server.wait_ready(300)
        states = {name: _ready(server, name) for name in ("first", "second", "unset", "not_above_0")}
        assert sorted(states.values()) == [False, True, True, True]
        assert states["unset"] and states["not_above_0"]
        holder = "first" if states["first"] else "second"
        assert f"which `{holder}` has set already" in (tmp_path / "triton.log").read_text()
        # Loaded again, it would be the second time in NVIDIA's process.
        httpx.post(f"{server.url}/v2/repository/models/{holder}/unload", timeout=60)
        again = httpx.post(f"{server.url}/v2/repository/models/{holder}/load", timeout=60)
        assert again.status_code == 400
        assert "an earlier load of it has set already" in (tmp_path / "triton.log").read_text()
    finally:
        server.stop(15)


def _ready(server: Judge, name: str) -> bool:
    return httpx.get(f"{server.url}/v2/models/{name}/ready", timeout=30).status_code == 200
