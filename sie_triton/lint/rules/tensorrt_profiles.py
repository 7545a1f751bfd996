"""Rules on the shape profiles of the TensorRT accelerator."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from sie_triton.lint.accelerators import AcceleratorEntry, gpu_accelerators
from sie_triton.lint.rule import LintSubject, Problem, rule
from sie_triton.lint.wording import quoted

PROFILES = ("trt_profile_min_shapes", "trt_profile_opt_shapes", "trt_profile_max_shapes")
_Shape = tuple[int, ...]
_ShapeProfile = Mapping[str, _Shape]


def _parse_profile(text: str) -> _ShapeProfile | None:
    """`a:1x16,b:1x16` as shapes by tensor; None where it is not of that form or names a tensor twice."""
    shapes: dict[str, _Shape] = {}
    for part in text.split(","):
        name, mark, dims = part.strip().rpartition(":")
        if not mark or not name or not re.fullmatch(r"[0-9]{1,9}(x[0-9]{1,9})*", dims) or name in shapes:
            return None
        shapes[name] = tuple(int(d) for d in dims.split("x"))
    return shapes


def _profiles(accelerator: AcceleratorEntry) -> tuple[_ShapeProfile, _ShapeProfile, _ShapeProfile] | None:
    """Minimum, optimum and maximum where all three are written and readable."""
    low, best, high = (_parse_profile(accelerator.parameters.get(key) or "") for key in PROFILES)
    return None if low is None or best is None or high is None else (low, best, high)


@rule(
    "L708",
    "warning",
    title="TensorRT does not know the range of shapes",
    explanation="Without minimum, optimum and maximum shapes the engine is built again whenever a new shape arrives.",
    hint="write `trt_profile_min_shapes`, `trt_profile_opt_shapes` and `trt_profile_max_shapes` for all inputs",
    scope="repository",
)
def _profiles_written(s: LintSubject) -> Iterator[Problem]:
    dynamic = s.config.max_batch_size > 1 or any(-1 in t.dims for t in s.config.inputs)
    for accelerator in gpu_accelerators(s, "tensorrt"):
        missing = [key for key in PROFILES if not accelerator.parameters.get(key)]
        if dynamic and missing:
            text = f"the TensorRT accelerator has dynamic shapes and no {quoted(missing)}"
            yield Problem(text, accelerator.line(s))


@rule(
    "L717",
    "error",
    title="TensorRT shape profiles that do not belong together",
    explanation=(
        "Minimum, optimum and maximum name the same tensors, as `NAME:1x16,NAME:1x16` with the batch first, and grow "
        "in this order; else ONNX Runtime does not make the session."
    ),
    hint="write the same tensors with growing shapes in all three",
    scope="repository",
)
def _profiles_consistent(s: LintSubject) -> Iterator[Problem]:
    for accelerator in gpu_accelerators(s, "tensorrt"):
        for key in PROFILES:
            text = accelerator.parameters.get(key)
            if text and _parse_profile(text) is None:
                yield Problem(f"`{key}` is `{text}`, not `NAME:1x16,NAME:1x16`", accelerator.line(s, key))
        profiles = _profiles(accelerator)
        if profiles is None:
            continue
        low, best, high = profiles
        line = accelerator.line(s, PROFILES[2])
        if not set(low) == set(best) == set(high):
            yield Problem("the three shape profiles do not name the same tensors", line)
            continue
        for name in low:
            a, b, c = low[name], best[name], high[name]
            if not len(a) == len(b) == len(c):
                yield Problem(f"the shape profiles of `{name}` differ in rank", line)
            elif not all(x <= y <= z for x, y, z in zip(a, b, c, strict=True)):
                yield Problem(f"the shape profiles of `{name}` are not in the order min, opt, max", line)


@rule(
    "L718",
    "warning",
    title="TensorRT shape profiles that do not cover the inputs",
    explanation=(
        "Profiles are for every dynamic input, from one row to `max_batch_size`. Where an input has none the session "
        "is refused; a request outside of them rebuilds the engine while it waits. A name that is no input is right "
        "only where TensorRT takes a part of the graph."
    ),
    hint="name every dynamic input; let the minimum be one row, the maximum `max_batch_size` rows of the longest input",
    scope="repository",
)
def _profiles_cover(s: LintSubject) -> Iterator[Problem]:
    for accelerator in gpu_accelerators(s, "tensorrt"):
        profiles = _profiles(accelerator)
        if profiles is None or not set(profiles[0]) == set(profiles[1]) == set(profiles[2]):
            continue  # said by L717
        low, _, high = profiles
        inputs = {t.name: t for t in s.config.inputs}
        for name in sorted(set(high) - set(inputs)):
            yield Problem(f"the shape profiles name `{name}`, which is no input", accelerator.line(s, PROFILES[2]))
        for name, tensor in inputs.items():
            batch = (-1,) if s.config.max_batch_size > 0 and not tensor.ragged else ()
            shape = (*batch, *tensor.graph_dims)
            if name not in high:
                if -1 in shape:
                    line = accelerator.line(s, PROFILES[2])
                    yield Problem(f"the dynamic input `{name}` has no shape profile", line)
                continue
            yield from _covers(s, accelerator, name, shape, low[name], high[name])


def _covers(
    s: LintSubject, accelerator: AcceleratorEntry, name: str, shape: _Shape, low: _Shape, high: _Shape
) -> Iterator[Problem]:
    """Problems of one input; `shape` includes the batch, -1 is any size."""
    line = accelerator.line(s, PROFILES[2])
    if len(shape) != len(high) or len(shape) != len(low):
        yield Problem(f"`{name}` has {len(shape)} dimensions with the batch, its profile {len(high)}", line)
        return
    if any(d not in (-1, a) or d not in (-1, b) for d, a, b in zip(shape, low, high, strict=True)):
        yield Problem(f"`{name}` has the shape {list(shape)}, which its profile does not cover", line)
    if s.config.max_batch_size > 0 and shape[:1] == (-1,):
        if low[0] > 1:
            yield Problem(f"the profile of `{name}` begins at {low[0]} rows", accelerator.line(s, PROFILES[0]))
        if high[0] < s.config.max_batch_size:
            text = f"the profile of `{name}` ends at {high[0]} rows, `max_batch_size` is {s.config.max_batch_size}"
            yield Problem(text, line)
