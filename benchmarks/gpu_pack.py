"""What `benchmarks.gpu` needs on a machine with PyTorch, CUDA and sentence-transformers, and without a network.

    python -m benchmarks.gpu_pack -o .cache/gpu.tar.xz --python 3.12

One archive: by pip the packages that such a machine lacks, of tritonserver's what one Python needs, the texts, and
MiniLM in float16, with the embeddings of those tokens alone that the texts have. Of the other tokens the embeddings are
zero, on both sides of every comparison. Ends with 1 if the archive is larger than 64 MiB.
"""

from __future__ import annotations

import argparse
import importlib
import json
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 64 * 2**20
TRITON = "nvidia-pytriton==0.7.0"
PACKAGES = (
    *("httptools", "httpx", "jinja2", "markupsafe", "msgpack", "msgspec", "orjson", "prometheus-client"),
    *("python-multipart", "protobuf", "starlette", "tritonclient", "typer", "uvicorn", "h11", "anyio", "httpcore"),
    *("annotated-doc", "certifi", "click", "idna", "markdown-it-py", "mdurl", "pygments", "rich", "shellingham"),
)
"""What a checkout runs on and PyTorch's own users seldom have. uvloop is not among them: it is large, and no need."""
_SERVER = "pytriton/tritonserver/"
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "config.json")
_MODULES = ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json")


def unpack(pack: Path, folder: Path) -> Path:
    """Put the packages of a pack, and this checkout, on the path of this process and of those that it starts.

    Returns the folder with all that was in the pack. Raises `CalledProcessError` where pip fails.
    """
    with lzma.open(pack) as packed, tarfile.open(fileobj=packed) as archive:
        archive.extractall(folder, filter="data")
    site = folder / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(site)]
    subprocess.run([*pip, *map(str, sorted((folder / "wheels").glob("*.whl")))], check=True)
    paths = [str(path) for path in (ROOT, ROOT / "frontend", ROOT / "sdk", site.resolve())]
    sys.path[:0] = paths
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])
    importlib.invalidate_caches()
    return folder


def _download(folder: Path, python: str, *names: str) -> None:
    """Wheels for Linux on x86-64, without what they need. Raises `CalledProcessError`."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "-d",
        str(folder),
    ]
    command += ["--python-version", python, "--implementation", "cp"]
    for minor in (39, 35, 34, 31, 28, 27, 17):
        command += ["--platform", f"manylinux_2_{minor}_x86_64"]
    subprocess.run([*command, "--platform", "manylinux2014_x86_64", *names], check=True)


def _pack_triton(folder: Path, python: str) -> None:
    """Of the wheel: the server, its libraries, the Python backend, and the stub of one Python."""
    with tempfile.TemporaryDirectory() as temporary:
        _download(Path(temporary), python, TRITON)
        (wheel,) = Path(temporary).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            names = (name for name in archive.namelist() if name.startswith(("nvidia_pytriton", _SERVER)))
            stubs = f"{_SERVER}python_backend_stubs/"
            kept = [name for name in names if not name.startswith(stubs) or name.startswith(f"{stubs}{python}/")]
            archive.extractall(folder / "site", kept)
    # `zipfile` restores no permissions.
    server = folder / "site" / _SERVER
    for path in [server / "bin" / "tritonserver", *server.rglob("triton_python_backend_stub")]:
        path.chmod(0o755)


def _pack_minilm(folder: Path) -> None:
    """The checkpoint in float16, and only the embeddings that the texts of `benchmarks.gpu` need."""
    import torch
    from safetensors.torch import load_file, save_file
    from tokenizers import Tokenizer

    from benchmarks.gpu_inputs import MINILM, MOST_TEXTS, corpus_for, minilm

    source, target = minilm(), folder / MINILM
    target.mkdir(parents=True, exist_ok=True)
    for name in (*_TOKENIZER, *_MODULES):
        if (source / name).exists():
            (target / name).parent.mkdir(exist_ok=True)
            shutil.copy(source / name, target / name)
    texts, lengths = corpus_for(source, MOST_TEXTS)
    (folder / "texts.json").write_text(json.dumps([texts, lengths]), encoding="utf-8")
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.no_padding()
    used = sorted({number for found in tokenizer.encode_batch(texts) for number in found.ids} | set(range(1000)))
    tensors = load_file(source / "model.safetensors")
    (name,) = (name for name in tensors if name.endswith("word_embeddings.weight"))
    table = torch.zeros_like(tensors[name])
    table[used] = tensors[name][used]
    halves = {key: (table if key == name else tensor) for key, tensor in tensors.items()}
    halves = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in halves.items()}
    save_file(halves, target / "model.safetensors", metadata={"format": "pt"})


def main() -> None:
    """Pack, and say how large it is."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpu_pack", description="what benchmarks.gpu needs elsewhere")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the archive, *.tar.xz")
    parser.add_argument("--python", default="3.12", help="the minor version there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _download(folder / "wheels", given.python, *PACKAGES)
        _pack_triton(folder, given.python)
        _pack_minilm(folder)
        given.output.parent.mkdir(parents=True, exist_ok=True)
        with lzma.open(given.output, "wb", preset=9) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
            for place in sorted(folder.iterdir()):
                archive.add(place, place.name)
    total = given.output.stat().st_size
    print(f"{total / 2**20:.1f} MiB in {given.output}")
    sys.exit(total > LIMIT)


if __name__ == "__main__":
    main()
