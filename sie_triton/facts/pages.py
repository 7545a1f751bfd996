"""Page models: a language model that reads pictures, with a projection behind it, out of its JSON files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where

from .checkpoint import CheckpointFacts
from .files import read_object, unreadable
from .images import PROCESSOR_NAME, TowerSizes, said_of_pictures
from .known_keys import FILES, check_keys

# What Idefics3's processor writes around tiles and for them, and how many positions a tile has where no file says it.
_AROUND, _WHOLE, _TILE = "<fake_token_around_image>", "<global-img>", "<image>"
_UNSAID_TILE = 169
# Where `config.json` says nothing, transformers' classes do: positions, a square's edge and a patch's.
_UNSAID: Mapping[str, tuple[int, int, int]] = {"colpali": (8192, 224, 14), "idefics3": (2048, 224, 32)}


@dataclass(frozen=True, slots=True)
class Framing:
    """What always stands around the tokens of a text, and is never cut: texts that become tokens by themselves."""

    before: str = ""
    after: str = ""


@dataclass(frozen=True, slots=True)
class Tiling:
    """How tiles stand among tokens. A layout has a grid, `ROWSxCOLUMNS`, and its ids; -1 is a whole tile, which takes
    `positions` times `image_id`.
    """

    image_id: int
    positions: int
    layouts: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def costs(self) -> tuple[int, ...]:
        """How many positions a picture may take, ascending."""
        return tuple(sorted({sum(self.positions if i < 0 else 1 for i in ids) for _, ids in self.layouts}))


@dataclass(frozen=True, slots=True)
class PageTexts:
    """What ColPali's processor writes: in front of every query, and behind every picture."""

    query_prefix: str = "Question: "
    visual_prompt: str = "Describe the image."


def read_page_sizes(facts: CheckpointFacts, model_type: str, projection: str, *parts: str) -> TowerSizes:
    """The sizes in `config.json`, for an adapter that serves one type; `parts` lead to the two configurations.

    `projection` is the tensor whose rows are a vector's numbers. Raises `DiagnosticError`.
    """
    path, kind = facts.folder / "config.json", facts.model_type
    if kind != model_type:
        message = f"the checkpoint is a `{kind}`, this adapter serves `{model_type}`"
        raise DiagnosticError(
            [Diagnostic("SIE335", message, Where(path), "name the adapter of its kind in `adapter_path`")]
        )
    config: Mapping[str, Any] = facts.config
    for part in parts:
        config = _object(config, part, path)
    text, vision = (_object(config, f"{part}_config", path) for part in ("text", "vision"))
    shape = facts.weight_shapes.get(projection)
    if shape is None:
        message = f"the checkpoint has no tensor `{projection}`, which makes vectors of states"
        raise DiagnosticError([Diagnostic("SIE404", message, Where(facts.folder), "use the checkpoint that has it")])
    positions, image_size, patch_size = _UNSAID[model_type]
    return TowerSizes(
        width=shape[0],
        positions=_whole(text, "max_position_embeddings", positions, path),
        image_size=_whole(vision, "image_size", image_size, path),
        patch_size=_whole(vision, "patch_size", patch_size, path),
    )


def read_page_texts(facts: CheckpointFacts) -> PageTexts:
    """What `processor_config.json` says, else what the class says. Raises `DiagnosticError` for an unknown key."""
    path = facts.folder / PROCESSOR_NAME
    document = read_object(path)
    if problems := check_keys(document, FILES[PROCESSOR_NAME], path, PROCESSOR_NAME):
        raise DiagnosticError(problems)
    texts = PageTexts()
    return PageTexts(
        query_prefix=_text(document, "query_prefix", texts.query_prefix, path),
        visual_prompt=_text(document, "visual_prompt_prefix", texts.visual_prompt, path),
    )


def check_positions(facts: CheckpointFacts, positions: int) -> None:
    """Raises `DiagnosticError` where the processor writes another number of positions for a picture."""
    path, document = said_of_pictures(facts.folder)
    said = document.get("image_seq_length", positions)
    if said == positions:
        return
    message = f"`{path.name}` gives a picture {said!r} positions, `config.json` makes {positions} patches of one"
    raise DiagnosticError([Diagnostic("SIE340", message, Where(path), "fetch the checkpoint again")])


def read_tiling(facts: CheckpointFacts, sizes: TowerSizes, grids: Sequence[str], prompt: tuple[str, str]) -> Tiling:
    """The tokens of a page for every grid; what stands before and behind the picture is the `prompt`.

    Raises `DiagnosticError` where the processor writes another number of positions for a tile than the tower gives.
    """
    scale = _whole(facts.config, "scale_factor", 2, facts.folder / "config.json")
    positions = sizes.patches // scale**2
    path = facts.folder / PROCESSOR_NAME
    document = read_object(path)
    if problems := check_keys(document, FILES[PROCESSOR_NAME], path, PROCESSOR_NAME):
        raise DiagnosticError(problems)
    said = document.get("image_seq_len", _UNSAID_TILE)
    if said != positions:
        message = f"`{path.name}` gives a tile {said!r} positions, `config.json` makes {positions} of one"
        raise DiagnosticError([Diagnostic("SIE340", message, Where(path), "fetch the checkpoint again")])
    (image_id,) = token_ids(facts, _TILE)
    if image_id != facts.config.get("image_token_id"):
        message = f"`{_TILE}` is token {image_id}, `config.json` says {facts.config.get('image_token_id')!r}"
        where = Where(facts.folder / "config.json")
        raise DiagnosticError([Diagnostic("SIE340", message, where, "fetch the checkpoint again")])
    before, behind = prompt
    layouts = []
    for grid in grids:
        rows, columns = map(int, grid.split("x"))
        ids = token_ids(facts, f"{before}{_tiles_as_text(rows, columns)}{behind}")
        layouts.append((grid, tuple(-1 if number == image_id else number for number in ids)))
    return Tiling(image_id, positions, tuple(layouts))


def _tiles_as_text(rows: int, columns: int) -> str:
    """What Idefics3's processor writes for a picture: a tile stands for all of its positions."""
    whole = f"{_AROUND}{_WHOLE}{_TILE}{_AROUND}"
    if not rows:
        return whole
    lines = (
        "".join(f"{_AROUND}<row_{row}_col_{column}>{_TILE}" for column in range(1, columns + 1))
        for row in range(1, rows + 1)
    )
    return "".join(f"{line}\n" for line in lines) + f"\n{whole}"


def check_bare(facts: CheckpointFacts) -> None:
    """Raises `DiagnosticError` where `tokenizer.json` puts tokens of its own around a text."""
    if found := token_ids(facts, "", special=True):
        message = f"it puts the tokens {list(found)} around every text, which is not compiled for pages"
        raise unreadable(facts.folder / "tokenizer.json", message)


def token_ids(facts: CheckpointFacts, text: str, *, special: bool = False) -> tuple[int, ...]:
    """The tokens of a text as `tokenizer.json` has them, with nothing around them unless `special` tokens are wanted.

    Raises `DiagnosticError`.
    """
    path = facts.folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise unreadable(path, f"it cannot be read: {error}") from error
    return tuple(tokenizer.encode(text, add_special_tokens=special).ids)


def special_token(facts: CheckpointFacts, role: str) -> str:
    """The spelling of a special token that texts are framed with. Raises `DiagnosticError` where there is none."""
    found = facts.tokenizer_config.get(f"{role}_token")
    if isinstance(found, Mapping):
        found = found.get("content")
    if not isinstance(found, str) or not found:
        raise unreadable(facts.folder / "tokenizer_config.json", f"it names no `{role}_token`, which texts need")
    return found


def _object(document: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any]:
    found = document.get(key)
    if not isinstance(found, Mapping):
        raise unreadable(path, f"`{key}` is {found!r}, no object")
    return found


def _whole(document: Mapping[str, Any], key: str, default: int, path: Path) -> int:
    value = document.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise unreadable(path, f"`{key}` is {value!r}, not a positive whole number")
    return value


def _text(document: Mapping[str, Any], key: str, default: str, path: Path) -> str:
    value = document.get(key, default)
    if not isinstance(value, str):
        raise unreadable(path, f"`{key}` is {value!r}, no text")
    return value
