"""The two consoles, and how diagnostics, parity, certificates and plans are printed on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from sie_frontend.manifest import Built, Certificate, Distance

    from sie_triton.diagnostics import Diagnostic
    from sie_triton.planning.plan import Module, TritonPlan
    from sie_triton.planning.tensors import Tensor

# Wide enough that nothing is folded when the output is a file or a pipe.
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def say(message: str) -> None:
    """Print a line on stderr, exactly as it is."""
    err.print(message, markup=False)


def print_diagnostics(diagnostics: Iterable[Diagnostic]) -> None:
    """Print each diagnostic on stderr: place, code and message, then the hint on a line of its own."""
    for diagnostic in diagnostics:
        place = f"{escape(str(diagnostic.where))}: " if diagnostic.where else ""
        err.print(f"{place}[bold red]{diagnostic.code}[/]: ", end="")
        err.print(diagnostic.message, markup=False)
        if diagnostic.hint:
            err.print(f"  hint: {diagnostic.hint}", markup=False)


def parity_lines(parity: Mapping[str, Mapping[str, Distance]]) -> list[str]:
    """One line for each precision and output: how far it is from the reference."""
    return [
        f"{tensor} in {precision}: {_closeness(distance)}"
        for precision, measured in parity.items()
        for tensor, distance in measured.items()
    ]


def _closeness(distance: Distance) -> str:
    cosine = "" if distance.min_cosine is None else f"min cosine {distance.min_cosine:.8f}, "
    return (
        f"{cosine}max difference {distance.max_abs:.1e} over {distance.cases} cases; "
        f"alone against batched {distance.batch_max_abs:.1e}"
    )


def answer_lines(built: Built) -> list[str]:
    """One line for each precision and output: what became of float32's answers when the model was built."""
    from sie_triton.compiler.answers import Answers

    return [
        f"in {precision}, when it was built: {told}"
        for precision in dict.fromkeys((*built.nearest, *built.reranked))
        for told in Answers(built.nearest.get(precision, {}), built.reranked.get(precision, {})).told()
    ]


def print_certificate(name: str, certificate: Certificate) -> None:
    """Print what a model's numbers were compared with, what was not compared, and every departure and warning."""
    said = [
        f"compared with {certificate.implementation}: {', '.join(certificate.compared)}",
        f"{certificate.cases} cases, sha256 {certificate.texts}",
        *(f"not compared: {text}" for text in certificate.not_compared),
        *certificate.departures,
        *(f"warning: {text}" for text in certificate.warnings),
    ]
    for line in said:
        out.print(f"{name} {line}", markup=False)


def plan_json(plan: TritonPlan) -> dict[str, Any]:
    """A plan as JSON values; of what it serves only the model ids."""
    content = asdict(plan)
    content["served"] = [served.profile.model_id for served in plan.served]
    return content


def print_plan(plan: TritonPlan) -> None:
    """Print a plan on stdout: what it serves and for which devices, every graph with its tensors, the warnings."""
    ids = ", ".join(served.profile.model_id for served in plan.served)
    devices = ", ".join(f"{device} in {precision}" for device, precision in plan.precisions.items())
    out.print(f"[bold]{plan.name}[/] serves {ids}")
    engine = f" by {plan.engine}" if plan.engine != "onnxruntime" else ""
    out.print(f"  {plan.format}{engine}, {plan.layout}, for {devices}")
    out.print(f"  {_reads(plan)}")
    for graph in plan.graphs:
        modules = [graph.module.encoder, *graph.heads] if graph.module.kind == "fused" else [graph.module]
        _print_signature(graph.triton_model, " + ".join(map(_described, modules)), graph.inputs, graph.outputs)
    if plan.steps:
        _print_signature(plan.name, "ensemble of the above", plan.inputs, plan.outputs)
    for text in plan.warnings:
        out.print(f"  warning: {text}", markup=False)


def _reads(plan: TritonPlan) -> str:
    """What becomes of an item before it is computed."""
    if plan.modality == "text":
        return f"truncates at {plan.max_length} tokens; pads to {', '.join(map(str, plan.buckets))}"
    if plan.modality == "mixed":
        cut = f"texts and pictures in one row; truncates at {plan.max_length} tokens"
        seen = plan.encoder.sighted
        if seen is None:
            return cut
        square = seen.patch_size * seen.merge_size
        bounds = f"{seen.min_pixels} to {seen.max_pixels} pixels"
        return f"{cut}; pictures of {bounds}, {seen.pixels.resample}; each square of {square} pixels takes one"
    pixels = plan.encoder.pixels
    if pixels is None:
        return "the checkpoint's files say how pictures are prepared"
    if pixels.fit == "tiles":
        cut = f"pictures of {pixels.longest} pixels in tiles of {pixels.size}, {pixels.resample}"
        return f"{cut}; each takes {', '.join(map(str, plan.buckets))} tokens"
    taken = plan.row_tokens * plan.max_length
    return f"pictures of {pixels.size} pixels by {pixels.fit}, {pixels.resample}; each takes {taken} tokens"


def _described(module: Module) -> str:
    fields = asdict(module)
    fields.pop("pixels", None)
    fields.pop("page", None)
    fields.pop("sighted", None)
    return " ".join([fields.pop("kind"), *(f"{key}={_shown(value)}" for key, value in fields.items() if value)])


def _shown(value: object) -> str:
    return ",".join(str(entry) for entry in value) if isinstance(value, list | tuple) else str(value)


def _print_signature(name: str, computes: str, inputs: Iterable[Tensor], outputs: Iterable[Tensor]) -> None:
    out.print(f"  {name}: {computes}", markup=False)
    for arrow, tensors in (("<-", inputs), ("->", outputs)):
        for tensor in tensors:
            axes = ", ".join(map(str, tensor.axes))
            out.print(f"    {arrow} {tensor.name} {tensor.datatype} [{axes}]", markup=False)
