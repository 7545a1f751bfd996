"""Manifests for clusters: Kubernetes objects, or KServe's, from what a built repository says about itself."""

from sie_triton.deploy.next_steps import next_steps
from sie_triton.deploy.options import DeployOptions
from sie_triton.deploy.writer import write_manifests

__all__ = ["DeployOptions", "next_steps", "write_manifests"]
