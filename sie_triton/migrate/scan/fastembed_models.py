"""What Fastembed does with each of its models, beside what a checkpoint says: `fastembed_models.txt`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TABLE = Path(__file__).parent / "fastembed_models.txt"
# Names of Fastembed whose checkpoint has another id at the hub.
_CHECKPOINTS: Mapping[str, str] = {
    "xenova/ms-marco-minilm-l-6-v2": "cross-encoder/ms-marco-MiniLM-L-6-v2",
    "xenova/ms-marco-minilm-l-12-v2": "cross-encoder/ms-marco-MiniLM-L-12-v2",
    "prithvida/splade_pp_en_v1": "prithivida/Splade_PP_en_v1",
    "baai/bge-reranker-v2-m3-int8": "BAAI/bge-reranker-v2-m3",
}


@dataclass(frozen=True, slots=True)
class FastembedModel:
    """One row: `file` is the ONNX file that Fastembed runs, `tokens` where its description says that texts are cut.

    `pooling`: cls, mean, last_token, or own (the file's own); "" for what is not dense. `unit`: whether every vector
    has unit length; None where Fastembed leaves that to the file.
    """

    task: str
    name: str
    file: str
    dims: int | None
    pooling: str
    unit: bool | None
    tokens: int | None

    @property
    def quantized(self) -> bool:
        """Whether its weights are int8."""
        return "quantized" in self.file or "int8" in self.file

    @property
    def optimized(self) -> bool:
        """Whether its file was rewritten by an optimizer, mostly into float16."""
        return "optimized" in self.file

    @property
    def checkpoint(self) -> str:
        """The id at the hub of the checkpoint that it was made from."""
        plain = self.name.removesuffix("-Q") if self.quantized else self.name
        return _CHECKPOINTS.get(plain.casefold(), plain)


@cache
def fastembed_models() -> Mapping[tuple[str, str], FastembedModel]:
    """Every row by its task and its name in small letters, as Fastembed itself compares them."""
    found = {}
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            cells = [cell.strip() for cell in line.split("|")]
            task, name, file, dims, pooling, unit, tokens = (*cells, *[""] * (7 - len(cells)))
            found[task, name.casefold()] = FastembedModel(
                task=task,
                name=name,
                file=file,
                dims=int(dims) if dims else None,
                pooling=pooling,
                unit=unit == "yes" if unit else None,
                tokens=int(tokens) if tokens else None,
            )
    return found


def fastembed_model(task: str, name: str) -> FastembedModel | None:
    """The row of a name; a task of `any` takes the first that there is."""
    wanted = name.casefold()
    if task != "any":
        return fastembed_models().get((task, wanted))
    return next((row for (_, known), row in fastembed_models().items() if known == wanted), None)
