"""The float32 graphs of a plan, in a repository for a moment: what coarser precisions are made of and compared with."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from sie_frontend.reference import REFERENCE_NAME

from sie_triton.answers.items import ITEMS
from sie_triton.answers.runs import items_for
from sie_triton.compiler.answers import Answers, Float32Answers
from sie_triton.compiler.measured import Site, WriteGraphs, write_configs
from sie_triton.interrupts import fleeting
from sie_triton.planning.plan import TritonPlan
from sie_triton.repository.processor import multiplies_bfloat16
from sie_triton.verify.model_runner import ModelRunner
from sie_triton.verify.public_model import PublicModel


@contextmanager
def float32_side(
    plan: TritonPlan, model: PublicModel, write: WriteGraphs, site: Site
) -> Iterator[tuple[TritonPlan, Site, float | None]]:
    """Write the graphs of a plan in float32, apart, beside a copy of the reference.

    Gives the plan in float32, where it lies, and what a padded position costs there. The files go at the end.
    """
    whole = replace(plan, precisions={"cpu": "float32"}, engine="onnxruntime")
    with tempfile.TemporaryDirectory(prefix="sie-triton-") as folder, fleeting(Path(folder)):
        apart = replace(site, staging=Path(folder))
        for name in dict.fromkeys((*(graph.triton_model for graph in whole.graphs), whole.name)):
            (apart.staging / name / "1").mkdir(parents=True)
        home = Path(model.name) / "1" / REFERENCE_NAME
        shutil.copyfile(site.staging / home, apart.staging / home)
        padding_cost = write(whole, apart.staging, "float32")
        write_configs(whole, apart)
        yield whole, apart, padding_cost


def bfloat16_answers(plan: TritonPlan, model: PublicModel, write: WriteGraphs, site: Site, config_name: str) -> Answers:
    """What bfloat16 on a CPU does to answers. A processor that has to imitate it is asked about few items."""
    with float32_side(plan, model, write, site) as (_, apart, _):
        items = ITEMS[model.modality]
        count = items_for(model, apart.staging) if multiplies_bfloat16() else items.fewest
        site.announce(f"{plan.name}: answers over {count} {items.told} or pairs of them, in float32 and in bfloat16")
        float32 = Float32Answers.of(model, ModelRunner(apart.staging, model.name), count)
        answers = float32.against(ModelRunner(site.staging, model.name, config_name))
    for told in answers.told():
        site.announce(f"{plan.name}: {told}")
    return answers
