"""A Job that fills the claim, and what keeps pods from starting before it is done.

The Job is named after what it does: another rendering that asks for the same work names the same Job, which Kubernetes
leaves alone, and one that asks for other work makes another. When it is done, it leaves a file of that name beside
the repository, for which pods wait. Pods from before keep serving what they have loaded.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from sie_frontend.manifest import Manifest

from sie_triton.deploy.options import FILL_BY_BUILDING, Deployment
from sie_triton.deploy.pods import (
    MOUNT,
    container_security,
    environment,
    manifest_hash,
    metadata,
    pod_labels,
    pod_spec,
    repository_path,
    resources,
)
from sie_triton.deploy.sizing import MIB, RepositorySize, builder_needs, fetcher_needs, quantity

Object = dict[str, Any]

_CACHE = "/cache"
# The first process of a container ends at SIGTERM only if it says so.
_WAIT = 'trap exit TERM; until [ -f "$0" ]; do echo "waiting for $0"; sleep 2 & wait $!; done'
_DAY = 86_400
# A checkpoint, its copy in the cache of downloads, and what is being built.
_CHECKPOINTS = 4


def filling(deployment: Deployment, manifest: Manifest, size: RepositorySize) -> list[Object]:
    """The Job; empty where nobody asked for one."""
    if deployment.fill is None:
        return []
    name = fill_name(deployment, manifest)
    return [
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {**metadata(deployment, "fill"), "name": name},
            "spec": {
                "backoffLimit": 3,
                "ttlSecondsAfterFinished": _DAY,
                "template": {
                    "metadata": {"labels": pod_labels(deployment, "fill")},
                    "spec": _pod(deployment, manifest, size),
                },
            },
        }
    ]


def fill_name(deployment: Deployment, manifest: Manifest) -> str:
    """The Job's name: the same for the same work."""
    work = [deployment.fill, _image(deployment), deployment.source.uri, _work_of(deployment, manifest)]
    return f"{deployment.name}-fill-{hashlib.sha256(json.dumps(work).encode()).hexdigest()[:8]}"


def waiting(deployment: Deployment, manifest: Manifest, image: str) -> list[Object]:
    """The container, of an image that the pod has anyway, that ends when the claim is filled.

    Where no Job fills the claim that is rendered, it waits for a manifest; an existing claim is taken as it is.
    """
    if deployment.fill is not None:
        awaited = _marker(deployment, manifest)
    elif deployment.own_claim:
        awaited = f"{repository_path(deployment)}/manifest.json"
    else:
        return []
    return [
        {
            "name": "wait-for-repository",
            "image": image,
            "command": ["sh", "-c", _WAIT, awaited],
            "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
            "securityContext": container_security(),
            "volumeMounts": [{"name": "repository", "mountPath": MOUNT, "readOnly": True}],
        }
    ]


def _marker(deployment: Deployment, manifest: Manifest) -> str:
    return f"{MOUNT}/.{fill_name(deployment, manifest)}"


def _image(deployment: Deployment) -> str:
    return deployment.builder_image if deployment.fill == FILL_BY_BUILDING else _fetcher_image(deployment)


def _fetcher_image(deployment: Deployment) -> str:
    """The builder's has the fetching command too; ours that serves is smaller, and is there already."""
    return deployment.triton_image if deployment.engine == "embedded" else deployment.builder_image


def _work_of(deployment: Deployment, manifest: Manifest) -> str:
    """What tells one piece of work from another: the ids, or the repository that is fetched."""
    return " ".join(_ids(manifest)) if deployment.fill == FILL_BY_BUILDING else manifest_hash(manifest)


def _ids(manifest: Manifest) -> list[str]:
    """The models to name in a build; a profile that its model is built with needs no name."""
    return [i for i in manifest.models if ":" not in i or i.partition(":")[0] not in manifest.models]


def _pod(deployment: Deployment, manifest: Manifest, size: RepositorySize) -> Object:
    repository = repository_path(deployment)
    builds = deployment.fill == FILL_BY_BUILDING
    variables = {"SIE_TRITON_REPOSITORY": repository, "HOME": _CACHE, "XDG_CACHE_HOME": _CACHE}
    if builds:
        variables |= {"MODELS": " ".join(_ids(manifest)), "HF_HOME": f"{_CACHE}/huggingface"}
        work = "build-models"
    else:
        variables["FETCHED"] = str(deployment.fill)
        work = 'sie-triton fetch "$FETCHED" --repository "$SIE_TRITON_REPOSITORY"'
    needs = builder_needs(size) if builds else fetcher_needs()
    room = 512 * MIB + (_CHECKPOINTS * size.repository_bytes if builds else 0)
    container: Object = {
        "name": "fill",
        "image": _image(deployment),
        "command": ["sh", "-euc", f'{work}; touch "$0"', _marker(deployment, manifest)],
        "env": environment(variables),
        "resources": resources(needs),
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "repository", "mountPath": MOUNT},
            {"name": "cache", "mountPath": _CACHE},
            {"name": "scratch", "mountPath": "/tmp"},
        ],
    }
    if deployment.credentials_secret:
        container["envFrom"] = [{"secretRef": {"name": deployment.credentials_secret}}]
    volumes: list[Object] = [
        {"name": "repository", "persistentVolumeClaim": {"claimName": deployment.source.host}},
        {"name": "cache", "emptyDir": {"sizeLimit": quantity(room)}},
        {"name": "scratch", "emptyDir": {"sizeLimit": quantity(1024 * MIB)}},
    ]
    spec = pod_spec(deployment, "fill", [container], volumes)
    # There is one of it: nothing to spread, and nobody waits for it to leave.
    del spec["topologySpreadConstraints"], spec["terminationGracePeriodSeconds"]
    return {"restartPolicy": "OnFailure", **spec}
