"""How a checkpoint's images are prepared, and the two towers of a model for images and texts, out of its JSON files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where

from .checkpoint import TOKENIZER_SETTINGS_NAME, CheckpointFacts
from .files import read_json, read_object, unreadable
from .known_keys import FILES, check_keys

PREPROCESSOR_NAME = "preprocessor_config.json"
PROCESSOR_NAME = "processor_config.json"

Fit = Literal["crop", "squash", "tiles"]
Resample = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
Triple = tuple[float, float, float]

# Pillow's numbers of its filters.
FILTERS: tuple[Resample, ...] = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
_CLIP_MEAN: Triple = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD: Triple = (0.26862954, 0.26130258, 0.27577711)
_HALVES: Triple = (0.5, 0.5, 0.5)


@dataclass(frozen=True, slots=True)
class Pixels:
    """What is done to a picture before the transformer sees it.

    `size` is the height and the width that it has then. `fit` says how it comes to them: `crop` brings the shortest
    edge to `size` and cuts the middle out, `squash` brings both edges to it, and `tiles` brings the longest edge to
    `longest` and cuts the whole into squares of `size`, with the whole as one more. A level x of 0 to 255 becomes
    `(x * rescale - mean) / std`, for red, green and blue: the product in float64, the rest in float32.
    """

    size: int
    fit: Fit
    resample: Resample
    rescale: float
    mean: Triple
    std: Triple
    longest: int | None = None


@dataclass(frozen=True, slots=True)
class TowerSizes:
    """The sizes of a model for images and texts, or of a page model.

    `width` is that of a vector, `positions` how many tokens the text tower or the language model reads, `image_size`
    and `patch_size` are edges in pixels.
    """

    width: int
    positions: int
    image_size: int
    patch_size: int

    @property
    def patches(self) -> int:
        """How many patches a square is cut into."""
        return (self.image_size // self.patch_size) ** 2


@dataclass(frozen=True, slots=True)
class Spelling:
    """What SigLIP's tokenizers do that stands in no `tokenizer.json`.

    `pads` is the side on which texts are padded to the limit. `canonical`: ASCII's punctuation goes and white space
    becomes single blanks. `lowercase`: in lower case. transformers' class for SigLIP 2 does that alone.
    """

    pads: Literal["left", "right"] = "right"
    canonical: bool = False
    lowercase: bool = False

    @property
    def start(self) -> str:
        """What stands in front of a text, so that its first word is known as such once punctuation is gone.

        Unicode has no character here: none of a user's is taken for it.
        """
        return "\ufdd0" if self.canonical else ""


@dataclass(frozen=True, slots=True)
class _Processor:
    """What transformers' image processor does where the file says nothing."""

    size: Mapping[str, int]
    crop: int | None
    mean: Triple
    std: Triple
    resample: Resample = "bicubic"
    tile: int | None = None


SEEING: tuple[str, ...] = ("clip", "siglip")
"""The architectures of transformers that have a tower of texts and one of images."""

_CLIP = _Processor({"shortest_edge": 224}, 224, _CLIP_MEAN, _CLIP_STD)
_SIGLIP = _Processor({"height": 224, "width": 224}, None, _HALVES, _HALVES)
_IDEFICS3 = _Processor({"longest_edge": 4 * 364}, None, _HALVES, _HALVES, "lanczos", 364)
# Idefics3's processor makes no picture longer than this.
_MAX_LONGEST = 4096
# Classes of tokenizers that pad on the left where the checkpoint says nothing.
_PADS_LEFT = frozenset({"GemmaTokenizer", "Siglip2Tokenizer"})
# By the name of the class, without what tells its implementations apart.
_PROCESSORS: Mapping[str, _Processor] = {
    "CLIPImageProcessor": _CLIP,
    "CLIPFeatureExtractor": _CLIP,
    "SiglipImageProcessor": _SIGLIP,
    "Idefics3ImageProcessor": _IDEFICS3,
}
# The keys of `config.json` that a tower's sizes are in where transformers' own defaults do not hold.
_TEXT_POSITIONS: Mapping[str, int] = {"clip": 77, "siglip": 64}
_PROJECTIONS: Mapping[str, tuple[str, str]] = {
    "clip": ("visual_projection.weight", "text_projection.weight"),
    # A picture's vector is as wide as its states.
    "siglip": ("vision_model.post_layernorm.weight", "text_model.head.weight"),
}
_VISION: Mapping[str, tuple[int, int]] = {"clip": (224, 32), "siglip": (224, 16)}


def read_towers(facts: CheckpointFacts, *model_types: str) -> TowerSizes:
    """The sizes in `config.json`, for an adapter that serves these types. Raises `DiagnosticError`."""
    path, kind = facts.folder / "config.json", facts.model_type
    if kind not in model_types:
        served = " or ".join(f"`{name}`" for name in model_types)
        message = f"the checkpoint is a `{kind}`, this adapter serves {served}"
        raise DiagnosticError(
            [Diagnostic("SIE335", message, Where(path), "name the adapter of its kind in `adapter_path`")]
        )
    text, vision = (_tower(facts.config, part, path) for part in ("text", "vision"))
    sizes = _VISION[kind]
    return TowerSizes(
        width=_projected(facts, path),
        positions=_whole(text, "max_position_embeddings", _TEXT_POSITIONS[kind], path),
        image_size=_whole(vision, "image_size", sizes[0], path),
        patch_size=_whole(vision, "patch_size", sizes[1], path),
    )


def read_seeing_modules(facts: CheckpointFacts) -> list[str] | None:
    """The classes of sentence-transformers' modules in `modules.json`, in order; None where there is none.

    Raises `DiagnosticError` for a damaged file.
    """
    path = facts.folder / "modules.json"
    if not path.is_file():
        return None
    listed = read_json(path)
    if not isinstance(listed, list) or not listed or not all(isinstance(entry, Mapping) for entry in listed):
        raise unreadable(path, "it is no list of modules")
    return [str(entry.get("type", "")).rpartition(".")[2] for entry in listed]


def read_spelling(facts: CheckpointFacts) -> Spelling:
    """What `tokenizer_config.json` says about it. Raises `DiagnosticError` where padding would be masked."""
    path, document = facts.folder / TOKENIZER_SETTINGS_NAME, facts.tokenizer_config
    if list(document.get("model_input_names") or ()) != ["input_ids"]:
        message = (
            f'`{path.name}` does not say `model_input_names: ["input_ids"]`: texts would be padded behind a mask, '
            "which is not compiled"
        )
        hint = "if its authors compute it without a mask, say so in a copy of the checkpoint"
        raise DiagnosticError([Diagnostic("SIE337", message, Where(path), hint)])
    named = str(document.get("tokenizer_class", "")).removesuffix("Fast")
    side = document.get("padding_side", "left" if named in _PADS_LEFT else "right")
    if side not in ("left", "right"):
        raise unreadable(path, f"`padding_side` is {side!r}, neither `left` nor `right`")
    canonical = named == "SiglipTokenizer"
    lowercase = named == "Siglip2Tokenizer" or (canonical and document.get("do_lower_case", True) is not False)
    return Spelling("left" if side == "left" else "right", canonical, lowercase)


def _tower(config: Mapping[str, Any], part: str, path: Path) -> Mapping[str, Any]:
    """One tower's configuration. The oldest files keep it twice, and transformers reads the second one."""
    found: dict[str, Any] = {}
    for key in (f"{part}_config", f"{part}_config_dict"):
        given = config.get(key)
        if given is not None and not isinstance(given, Mapping):
            raise unreadable(path, f"`{key}` is {given!r}, no object")
        found.update(given or {})
    return found


def _projected(facts: CheckpointFacts, path: Path) -> int:
    """The width of the common space: what the weights project to."""
    widths = {shape[0] for name in _PROJECTIONS[facts.model_type] if (shape := facts.weight_shapes.get(name))}
    if len(widths) > 1:
        raise unreadable(path, f"texts and images are projected to different widths, {sorted(widths)}")
    if widths:
        return widths.pop()
    if facts.model_type == "siglip":
        return _whole(_tower(facts.config, "vision", path), "hidden_size", 768, path)
    return _whole(facts.config, "projection_dim", 512, path)


def _whole(document: Mapping[str, Any], key: str, default: int, path: Path) -> int:
    value = document.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise unreadable(path, f"`{key}` is {value!r}, not a positive whole number")
    return value


def read_pixels(facts: CheckpointFacts) -> Pixels:
    """What the checkpoint's files do to a picture. Raises `DiagnosticError` for what is not understood.

    As transformers has it, `image_processor` of `processor_config.json` counts, else `preprocessor_config.json`.
    """
    path, document = said_of_pictures(facts.folder)
    if problems := check_keys(document, FILES[PREPROCESSOR_NAME], path, path.name):
        raise DiagnosticError(problems)
    processor = _processor(document, path)
    if processor.tile is not None:
        size, longest = _tiles(document, processor, path)
        fit: Fit = "tiles"
    else:
        (size, fit), longest = _geometry(document, processor, path), None
    return Pixels(
        size=size,
        fit=fit,
        longest=longest,
        resample=_resample(document, processor, path),
        rescale=_number(document, "rescale_factor", 1 / 255, path),
        mean=_triple(document, "image_mean", processor.mean, path),
        std=_triple(document, "image_std", processor.std, path, positive=True),
    )


def said_of_pictures(folder: Path) -> tuple[Path, Mapping[str, Any]]:
    """The file that says how pictures are prepared, and what it says."""
    newer, older = folder / PROCESSOR_NAME, folder / PREPROCESSOR_NAME
    nested = read_object(newer).get("image_processor") if newer.is_file() else None
    if nested is None and not older.is_file():
        message = (
            f"neither `{PREPROCESSOR_NAME}` nor `image_processor` of `{PROCESSOR_NAME}` says how to prepare images"
        )
        hint = "pick the checkpoint that the adapter was written for"
        raise DiagnosticError([Diagnostic("SIE309", message, Where(folder), hint)])
    if nested is None:
        return older, read_object(older)
    if not isinstance(nested, Mapping):
        raise unreadable(newer, f"`image_processor` is {nested!r}, no object")
    return newer, nested


def _processor(document: Mapping[str, Any], path: Path) -> _Processor:
    """The class that the file names, with its defaults. Refuses steps that are switched off."""
    named = str(document.get("image_processor_type") or document.get("feature_extractor_type") or "CLIPImageProcessor")
    found = _PROCESSORS.get(named.removesuffix("Fast").removesuffix("Pil"))
    if found is None:
        raise _refused(path, f"by `{named}`", f"one of {', '.join(f'`{name}`' for name in _PROCESSORS)} is understood")
    steps = ("do_resize", "do_rescale", "do_normalize", *(["do_image_splitting"] if found.tile else []))
    for step in steps:
        value = document.get(step, True)
        if value is not True:
            raise _refused(path, f"with `{step}: {value}`", f"leave `{step}` out of a copy of the checkpoint")
    if document.get("do_pad") and not found.tile:
        message = f"`{path.name}` sets `do_pad`: a margin around the picture, which is not compiled"
        hint = "use a checkpoint without it; without effect, take it out of a copy"
        raise DiagnosticError([Diagnostic("SIE337", message, Where(path), hint)])
    return found


def _tiles(document: Mapping[str, Any], processor: _Processor, path: Path) -> tuple[int, int]:
    """The edge of a tile, and the longest edge of a picture before it is cut; no margin is ever needed."""
    longest = document.get("size", processor.size)
    tile = document.get("max_image_size", {"longest_edge": processor.tile})
    if _edges(longest) != {"longest_edge"} or _edges(tile) != {"longest_edge"}:
        hint = "`longest_edge` of both is understood"
        raise _refused(path, f"with `size` {longest!r} and `max_image_size` {tile!r}", hint)
    if longest["longest_edge"] > _MAX_LONGEST:
        hint = f"transformers makes no picture longer than {_MAX_LONGEST}"
        raise _refused(path, f"with `size` {longest!r}", hint)
    return int(tile["longest_edge"]), int(longest["longest_edge"])


def _geometry(document: Mapping[str, Any], processor: _Processor, path: Path) -> tuple[int, Fit]:
    """The size that pictures leave with, and how they come to it."""
    size = document.get("size", processor.size)
    crop = _crop(document, processor, path)
    if isinstance(size, int) and not isinstance(size, bool):
        size = {"height": size, "width": size} if processor is _SIGLIP else {"shortest_edge": size}
    edges = _edges(size)
    if edges == {"shortest_edge"} and crop == size["shortest_edge"]:
        return int(size["shortest_edge"]), "crop"
    if edges == {"height", "width"} and size["height"] == size["width"] and crop in (None, size["height"]):
        return int(size["height"]), "squash"
    cut = "nothing cut out" if crop is None else f"a middle of {crop} cut out"
    raise _refused(
        path, f"with `size` {size!r} and {cut}", "a square of the size that they are scaled to is understood"
    )


def _edges(size: object) -> set[str]:
    """The names in a size whose values are edges in pixels; none where it is anything else."""
    if not isinstance(size, Mapping):
        return set()
    whole = all(isinstance(edge, int) and not isinstance(edge, bool) and edge > 0 for edge in size.values())
    return set(size) if whole else set()


def _crop(document: Mapping[str, Any], processor: _Processor, path: Path) -> int | None:
    """The edge of the square that is cut out of the middle, None where nothing is."""
    if document.get("do_center_crop", processor.crop is not None) in (None, False):
        return None
    size = document.get("crop_size", processor.crop)
    if isinstance(size, Mapping) and _edges(size) == {"height", "width"} and size["height"] == size["width"]:
        return int(size["height"])
    if isinstance(size, int) and not isinstance(size, bool) and size > 0:
        return size
    raise _refused(path, f"with `crop_size` {size!r}", "a square is understood")


def _resample(document: Mapping[str, Any], processor: _Processor, path: Path) -> Resample:
    number = document.get("resample", FILTERS.index(processor.resample))
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(FILTERS):
        raise _refused(path, f"with `resample` {number!r}", f"Pillow's filters 0 to {len(FILTERS) - 1} are understood")
    return FILTERS[number]


def _number(document: Mapping[str, Any], key: str, default: float, path: Path) -> float:
    value = document.get(key, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
        raise unreadable(path, f"`{key}` is {value!r}, not a positive number")
    return float(value)


def _triple(document: Mapping[str, Any], key: str, default: Triple, path: Path, *, positive: bool = False) -> Triple:
    value = document.get(key, default)
    numbers = value if isinstance(value, list | tuple) else ()
    if len(numbers) != 3 or not all(_is_finite(number, positive=positive) for number in numbers):
        raise unreadable(path, f"`{key}` is {value!r}, not three {'positive ' if positive else ''}numbers")
    red, green, blue = map(float, numbers)
    return red, green, blue


def _is_finite(value: object, *, positive: bool) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return (0 if positive else -float("inf")) < value < float("inf")


def _refused(path: Path, what: str, hint: str) -> DiagnosticError:
    """Images are prepared in a way that is not compiled."""
    message = f"`{path.name}` prepares images {what}, which is not compiled"
    return DiagnosticError([Diagnostic("SIE339", message, Where(path), hint)])


def read_levels(document: Mapping[str, Any], path: Path) -> Pixels:
    """How levels and Pillow's filter are told in a file of a processor whose sizes are its own: CLIP's defaults hold.

    Raises `DiagnosticError`.
    """
    for step in ("do_resize", "do_rescale", "do_normalize"):
        if document.get(step, True) is not True:
            raise _refused(path, f"with `{step}: {document[step]}`", f"leave `{step}` out of a copy of the checkpoint")
    return Pixels(
        size=0,
        fit="squash",
        resample=_resample(document, _CLIP, path),
        rescale=_number(document, "rescale_factor", 1 / 255, path),
        mean=_triple(document, "image_mean", _CLIP_MEAN, path),
        std=_triple(document, "image_std", _CLIP_STD, path, positive=True),
    )


def refused_processor(path: Path, named: str, known: Iterable[str]) -> DiagnosticError:
    """Images are prepared by a class that is not understood."""
    return _refused(path, f"by `{named}`", f"one of {', '.join(f'`{name}`' for name in known)} is understood")
