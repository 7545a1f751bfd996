"""The way of one bundle through the compiler: each stage a value that is handed on to the next."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sie_frontend.reference import REFERENCE_NAME, Question

from sie_triton import __version__
from sie_triton.checkpoint.files import file_digest
from sie_triton.compiler.certificate import certify, take_reference
from sie_triton.compiler.graphs import write_measured_graphs
from sie_triton.compiler.measured import Site
from sie_triton.compiler.options import BuildOptions, Target
from sie_triton.compiler.packages import check_comparable
from sie_triton.compiler.space import check_room
from sie_triton.compiler.weights import Weights, check_remote_code, find_checkpoint, read_weights
from sie_triton.compiler.workbench import WORKBENCHES, Workbench
from sie_triton.diagnostics import Diagnostic, DiagnosticError
from sie_triton.planning.families import QUERY_WEIGHTS_NAME
from sie_triton.planning.plan import EXPORTER_REVISION, GraphOptions, TritonPlan
from sie_triton.planning.planner import make_plans
from sie_triton.repository.config import CpuShape, cpu_shape, run_tokens, triton_configs
from sie_triton.repository.processor import NO_BFLOAT16, notes_here
from sie_triton.repository.record import Record, built_entry, model_entries, triton_entries
from sie_triton.verify.carried import carried_name
from sie_triton.verify.public_model import PublicModel, comparables_of, open_heads, open_reader
from sie_triton.verify.reference import write_reference

# The implementation that a build is compared with reads the merged weights too.
MERGED = "how `{}` was merged into the weights (LoRA)"


@dataclass(frozen=True, slots=True)
class _Job:
    """What all plans of one bundle share."""

    target: Target
    weights: Weights
    cpu: CpuShape
    key: str
    staging: Path
    options: BuildOptions


def compile_bundle(target: Target, options: BuildOptions, staging: Path) -> list[Record]:
    """One bundle into the staging directory: checkpoint, facts, plans, then each plan's graphs, measured and recorded.

    Raises `DiagnosticError`.
    """
    bundle, announce = target.bundle, options.announce
    check_comparable(target, carried=options.carried)
    checkpoint = find_checkpoint(target, options)
    place = (
        checkpoint.folder if checkpoint.adapter is None else f"{checkpoint.origin}`, with `{checkpoint.adapter.origin}"
    )
    announce(f"{bundle.sie_id}: weights from {checkpoint.source} `{place}`")
    check_remote_code(target, checkpoint, options)
    weights = read_weights(checkpoint)
    plans = make_plans(bundle, target.profiles, weights.facts, options.graphs)
    for note in notes_here(plans):
        if note == NO_BFLOAT16:
            raise DiagnosticError([Diagnostic("SIE532", note, hint="leave `--precision` out here")])
        announce(note)
    check_room(weights.numbers, {p for plan in plans for p in plan.precisions.values()}, options.repository)
    announce(f"{bundle.sie_id}: importing the libraries that read checkpoints")
    benches = {
        modality: WORKBENCHES[modality](checkpoint.folder, announce, options.trust_remote_code)
        for modality in dict.fromkeys(plan.modality for plan in plans)
    }
    key = build_key(target, options, checkpoint.identity)
    job = _Job(target, weights, cpu_shape(options.cores, weights.bytes), key, staging, options)
    return [_compile_plan(plan, benches[plan.modality], job) for plan in plans]


def _compile_plan(plan: TritonPlan, bench: Workbench, job: _Job) -> Record:
    """One public Triton model: input, reference, graphs, record."""
    announce, staging = job.options.announce, job.staging
    home = _clear(plan, staging)
    written = bench.write_input(plan, home)
    model = _public_model(plan, written.reads(plan.served[0]), staging)
    reference, testimony = take_reference(written, model, _question(plan, job, home), _carried(plan, job), announce)
    write_reference(home / REFERENCE_NAME, reference)
    announce(f"{plan.name}: comparing {len(reference.cases)} {_called(plan.modality)} with {reference.origin}")
    wanted = job.options.graphs
    site = Site(staging, job.cpu, job.key[:12], announce, dict(wanted.accepted))
    graphs = write_measured_graphs(plan, model, bench.write_graphs, site, insisted=wanted.precision)
    merged = (
        (MERGED.format(job.target.lora or "the adapter of the checkpoint"),) if job.weights.checkpoint.adapter else ()
    )
    certificate = certify(reference, testimony, (*plan.warnings, *written.warnings(testimony)), not_compared=merged)
    for text in (*certificate.departures, *certificate.warnings):
        announce(f"{plan.name}: {text}")
    bundle, checkpoint = job.target.bundle, job.weights.checkpoint
    revision, identity = checkpoint.revision_of(bundle.hf_id), checkpoint.identity
    default, *_ = triton_configs(graphs.plan, job.cpu, site.tag).values()
    return Record(
        plan.name,
        model_entries(
            bundle,
            graphs.plan,
            job.cpu,
            lambda s: written.reads(s, testimony),
            revision,
            graphs.padding_cost,
        ),
        triton_entries(staging, default),
        built_entry(
            graphs.plan,
            job.key,
            identity,
            graphs.parity,
            certificate,
            nearest={precision: found.nearest for precision, found in graphs.answers.items()},
            reranked={precision: found.reranked for precision, found in graphs.answers.items()},
            written=graphs.written,
            accepted=dict(job.options.graphs.accepted) if graphs.written or graphs.answers else {},
        ),
    )


def _called(modality: str) -> str:
    """What cases of a modality are called."""
    return "items" if modality == "mixed" else f"{modality}s"


def _question(plan: TritonPlan, job: _Job, home: Path) -> Question:
    """What decides a witness's answers: the checkpoint, what the plan says of reading and of outputs, query weights."""
    served = plan.served[0]
    told = (
        *(served.profile.to_json(), served.recipe.name, plan.modality, plan.max_length, plan.truncation_side),
        *(plan.lowercase, [tensor.name for tensor in plan.outputs]),
        file_digest(home / QUERY_WEIGHTS_NAME) if plan.query_weights else None,
        *(("shifted",) if plan.encoder.shifted_patches else ()),
    )
    written = json.dumps(told, sort_keys=True, default=str)
    return Question(job.weights.checkpoint.identity, hashlib.sha256(written.encode()).hexdigest())


def _carried(plan: TritonPlan, job: _Job) -> Path | None:
    """Where a reference of the plan would lie; None where only a new one is wanted, or nobody wrote the bundle."""
    if not job.options.carried or job.target.derived:
        return None
    return job.target.bundle.path.parent / carried_name(plan.name)


def _public_model(plan: TritonPlan, reads: object, staging: Path) -> PublicModel:
    """The plan's public model, before there is a manifest that says so."""
    options = plan.served[0].profile.runtime
    reader = open_reader(plan.modality, reads, staging, {"default": options})
    comparables = comparables_of(head for served in plan.served for head in served.heads.values())
    heads = (open_heads(s.heads, staging, reads, s.profile.loadtime) for s in plan.served)
    return PublicModel(
        plan.name,
        reader,
        options,
        comparables,
        tuple(head for opened in heads for head in opened),
        plan.modality,
        run_tokens("cpu", plan.max_batch_tokens, plan.row_tokens),
    )


def _clear(plan: TritonPlan, staging: Path) -> Path:
    """Empty directories for all Triton models of the plan; returns the version folder of the public one."""
    for name in dict.fromkeys((*(graph.triton_model for graph in plan.graphs), plan.name)):
        directory = staging / name
        if directory.exists():
            shutil.rmtree(directory)
        (directory / "1").mkdir(parents=True)
    return staging / plan.name / "1"


def build_key(target: Target, options: BuildOptions, identity: str) -> str:
    """Digest of every input that decides the built bytes; equal keys need no second build."""
    inputs = {
        "profiles": [(profile.to_json(), recipe.name) for profile, recipe in target.profiles],
        "checkpoint": identity,
        "cores": options.cores,
        "graphs": _told(options.graphs),
        "carried": options.carried,
        "exporter": EXPORTER_REVISION,
        "version": __version__,
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()


def _told(graphs: GraphOptions) -> dict[str, Any]:
    """The options of graphs as inputs. Those that came later count only where they are used: other keys stay."""
    plain = asdict(GraphOptions())
    later = {"accepted", "engine"}
    return {name: value for name, value in asdict(graphs).items() if name not in later or value != plain[name]}
