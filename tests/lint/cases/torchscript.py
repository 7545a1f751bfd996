"""Rules on TorchScript models."""

from __future__ import annotations

from lint.builders import replaced, script_file
from lint.builds import foreign, script_versions, torchscript, two_scripts
from lint.configs import scripted

from .case import Case


def scripts(bad: str, good: str) -> Case:
    return Case(foreign(bad, "model.pt"), foreign(good, "model.pt"))


CASES: dict[str, Case] = {
    "L117": Case(torchscript("INPUT__0", "OUTPUT"), torchscript("INPUT__0", "OUTPUT__0")),
    "L726": scripts(scripted(("intra_op_thread_count", "1")), scripted(("INTRA_OP_THREAD_COUNT", "1"))),
    "L727": scripts(scripted(("INFERENCE_MODE", "on")), scripted(("INFERENCE_MODE", "True"))),
    "L728": Case(
        two_scripts(scripted(("INTRA_OP_THREAD_COUNT", "1")), scripted(("INTRA_OP_THREAD_COUNT", "2"))),
        two_scripts(scripted(("INTRA_OP_THREAD_COUNT", "1")), scripted()),
    ),
    "L729": scripts(scripted(), scripted(("DISABLE_OPTIMIZED_EXECUTION", "true"))),
    "L730": Case(
        two_scripts(scripted(("INTER_OP_THREAD_COUNT", "1")), scripted(("INTER_OP_THREAD_COUNT", "1"))),
        two_scripts(scripted(("INTER_OP_THREAD_COUNT", "1")), scripted(("INTER_OP_THREAD_COUNT", "0"))),
    ),
    "L731": scripts(scripted(("INTER_OP_THREAD_COUNT", "1")), scripted(("INTRA_OP_THREAD_COUNT", "1"))),
    "L732": Case(
        script_versions(scripted(), script_file()[:-30]),
        script_versions(scripted(), script_file()),
    ),
    "L733": Case(
        script_versions(scripted(), script_file(("x: Tensor", "z: Tensor"))),
        script_versions(scripted(), script_file(("x: Dict[str, Tensor]",))),
    ),
    "L734": Case(
        foreign(replaced(scripted(), "TYPE_FP32", "TYPE_UINT32"), "model.pt"),
        foreign(replaced(scripted(), "TYPE_FP32", "TYPE_FP64"), "model.pt"),
    ),
    "L735": Case(
        foreign(replaced(scripted(), "OUTPUT__0", "OUTPUT__1"), "model.pt"),
        script_versions(replaced(scripted(), "OUTPUT__0", "OUTPUT__1"), script_file(returns="Tuple[Tensor, Tensor]")),
    ),
}
