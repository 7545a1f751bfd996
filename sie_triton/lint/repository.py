"""The folders of a model repository, as Triton's loader looks at them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from sie_triton.lint import onnx_graph
from sie_triton.lint.config import ConfigFile, ParseFailure, absent, parse
from sie_triton.lint.onnx_graph import OnnxGraph, OnnxGraphError

CONFIG_NAME = "config.pbtxt"
CUSTOM_CONFIGS = "configs"

# platform -> (backend, file that the backend opens when `default_model_filename` is not written)
PLATFORMS: dict[str, tuple[str, str]] = {
    "onnxruntime_onnx": ("onnxruntime", "model.onnx"),
    "pytorch_libtorch": ("pytorch", "model.pt"),
    "torch_aoti": ("pytorch", "model.pt2"),
    "tensorrt_plan": ("tensorrt", "model.plan"),
    "tensorflow_graphdef": ("tensorflow", "model.graphdef"),
    "tensorflow_savedmodel": ("tensorflow", "model.savedmodel"),
}
# backend -> (platform that goes with it, its file); backends without a platform of their own have ""
BACKENDS: dict[str, tuple[str, str]] = {
    "onnxruntime": ("onnxruntime_onnx", "model.onnx"),
    "pytorch": ("pytorch_libtorch", "model.pt"),
    "tensorrt": ("tensorrt_plan", "model.plan"),
    "openvino": ("", "model.xml"),
    "python": ("", "model.py"),
}
_FILES = {file: backend for backend, (_, file) in BACKENDS.items()} | {
    file: backend for backend, file in PLATFORMS.values()
}


@dataclass(frozen=True)
class ModelFolder:
    """A model's folder. One that is not `on_disk` is a configuration alone, without versions and files."""

    path: Path
    name: str
    configs: tuple[ConfigFile, ...]
    failures: tuple[tuple[Path, ParseFailure], ...] = ()
    on_disk: bool = True

    @property
    def default(self) -> ConfigFile | None:
        """What a server without `--model-config-name` reads; None where `config.pbtxt` is absent or broken."""
        return next((c for c in self.configs if c.path == self.path / CONFIG_NAME), None)

    def config_named(self, file_name: str) -> ConfigFile | None:
        """What `--model-config-name` picks: the file of that name, else `config.pbtxt`."""
        by_name = {config.path.name: config for config in self.configs}
        return by_name.get(file_name) or by_name.get(CONFIG_NAME)

    @cached_property
    def versions(self) -> tuple[int, ...]:
        """Numbered version folders, ascending; a leading zero makes Triton ignore a folder."""
        folders = _folders(self.path) if self.on_disk else []
        return tuple(sorted(int(p.name) for p in folders if is_version(p.name)))

    @cached_property
    def _graphs(self) -> dict[Path, OnnxGraph | OnnxGraphError]:
        return {}

    def graph(self, file: Path) -> OnnxGraph | OnnxGraphError:
        """The ONNX graph at `file`, opened once."""
        if file not in self._graphs:
            try:
                self._graphs[file] = OnnxGraph.open(file)
            except OnnxGraphError as error:
                self._graphs[file] = error
        return self._graphs[file]

    def backend(self, config: ConfigFile) -> str:
        """The backend that will run the model, completed from platform and files as Triton does; "" if unknown."""
        message = config.message
        if message.backend:
            return str(message.backend)
        if config.is_ensemble:
            return ""
        if message.platform:
            return PLATFORMS.get(str(message.platform), ("", ""))[0]
        if message.default_model_filename:
            return _FILES.get(str(message.default_model_filename), "")
        for version in self.versions:
            for file, backend in _FILES.items():
                if (self.path / str(version) / file).exists():
                    return backend
        return ""

    def model_file(self, config: ConfigFile) -> str:
        """Name of the file that the backend opens in each version folder; "" where that is not known."""
        message = config.message
        if message.default_model_filename:
            return str(message.default_model_filename)
        if message.platform in PLATFORMS:
            return PLATFORMS[str(message.platform)][1]
        return BACKENDS.get(self.backend(config), ("", ""))[1]

    def served_versions(self, config: ConfigFile) -> tuple[int, ...]:
        """The versions that the version policy serves, of those that are there."""
        policy = config.message.version_policy
        kind = policy.WhichOneof("policy_choice")
        if kind == "all":
            return self.versions
        if kind == "specific":
            return tuple(v for v in self.versions if v in set(policy.specific.versions))
        count = int(policy.latest.num_versions) if kind == "latest" else 1
        return self.versions[-count:] if count else ()

    def onnx_files(self, config: ConfigFile) -> list[Path]:
        """ONNX files of the served versions that exist; none for other backends or where `onnx` is missing."""
        if self.backend(config) != "onnxruntime" or not onnx_graph.can_open():
            return []
        files = [self.path / str(v) / self.model_file(config) for v in self.served_versions(config)]
        # A large model may be a folder with `model.onnx` and its weights.
        return [file for f in files if (file := f / "model.onnx" if f.is_dir() else f).is_file()]

    def open_graphs(self, config: ConfigFile) -> list[OnnxGraph]:
        """The graphs among `onnx_files` that could be read."""
        return [g for f in self.onnx_files(config) if isinstance(g := self.graph(f), OnnxGraph)]


@dataclass(frozen=True)
class RepositoryFolder:
    """The models of a repository by folder name."""

    path: Path
    models: dict[str, ModelFolder] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> RepositoryFolder:
        """Read every model folder below `path`.

        Raises:
            NotADirectoryError: `path` is no folder.
        """
        if not path.is_dir():
            raise NotADirectoryError(f"`{path}` is no folder, so it is no model repository")
        return cls(path, {p.name: _read_model(p) for p in _folders(path) if not p.name.startswith(".")})


def is_version(name: str) -> bool:
    """Whether Triton takes a folder of this name for a version."""
    return name.isascii() and name.isdigit() and not name.startswith("0")


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir()) if path.is_dir() else []


def _read_model(path: Path) -> ModelFolder:
    files = [path / CONFIG_NAME] if (path / CONFIG_NAME).is_file() else []
    if (path / CUSTOM_CONFIGS).is_dir():
        files += sorted(p for p in (path / CUSTOM_CONFIGS).iterdir() if p.suffix == ".pbtxt" and p.is_file())
    configs: list[ConfigFile] = []
    failures: list[tuple[Path, ParseFailure]] = []
    for file in files:
        try:
            read = parse(file, file.read_bytes())
        except OSError as error:
            read = ParseFailure(f"the file cannot be read: {error.strerror}", None)
        if isinstance(read, ConfigFile):
            configs.append(read)
        else:
            failures.append((file, read))
    if not files:
        configs.append(absent(path / CONFIG_NAME))
    return ModelFolder(path, path.name, tuple(configs), tuple(failures))
