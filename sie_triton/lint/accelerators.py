"""The execution accelerators of a configuration, as the onnxruntime backend reads them."""

from __future__ import annotations

from dataclasses import dataclass

from sie_triton.lint.groups import groups
from sie_triton.lint.rule import LintSubject

# What ONNX Runtime's boolean options can be: the backend's own reading is wider, but it hands the text on.
BOOLEANS = frozenset({"0", "1", "true", "false", "True", "False"})
TRUE = frozenset({"1", "true", "True"})


@dataclass(frozen=True, slots=True)
class AcceleratorEntry:
    """One accelerator of `gpu_execution_accelerator` or `cpu_execution_accelerator`, as it is written."""

    device: str
    index: int
    name: str
    parameters: dict[str, str]

    @property
    def path(self) -> tuple[str | int, ...]:
        """Its place among the fields."""
        return ("optimization", "execution_accelerators", f"{self.device}_execution_accelerator", self.index)

    def line(self, s: LintSubject, key: str | None = None) -> int | None:
        """Line of the parameter `key`, else of the accelerator."""
        line = None if key is None else s.config.lines.entry((*self.path, "parameters"), key)
        return line or s.line(*self.path)


def accelerators(s: LintSubject, device: str) -> list[AcceleratorEntry]:
    """The accelerators of `gpu` or `cpu` that the onnxruntime backend reads; none for other backends."""
    if not s.is_onnx:
        return []
    written = getattr(s.config.message.optimization.execution_accelerators, f"{device}_execution_accelerator")
    return [
        AcceleratorEntry(device, i, str(a.name), {str(k): str(v) for k, v in sorted(a.parameters.items())})
        for i, a in enumerate(written)
    ]


def gpu_accelerators(s: LintSubject, name: str) -> list[AcceleratorEntry]:
    """The GPU accelerators of one name, where they are looked at."""
    return [a for a in accelerators(s, "gpu") if a.name == name] if on_gpu(s) else []


def on_gpu(s: LintSubject) -> bool:
    """Whether some instances may run on a GPU: only for those does the backend look at GPU accelerators."""
    return any(g.kind in ("KIND_GPU", "KIND_AUTO") and s.on_cpu(g.kind) is not True for g in groups(s))
