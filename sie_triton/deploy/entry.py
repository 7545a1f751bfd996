"""The way in from outside the cluster: an Ingress, or an HTTPRoute of a Gateway.

What is in front of a frontend must not be stricter than the frontend itself: its limits are the contract's, and its
answers say so. A proxy's own 413, or a 504 after a minute, would reach clients that the contract promises something
else.
"""

from __future__ import annotations

from typing import Any

from sie_frontend.settings import Settings

from sie_triton.deploy.options import Deployment
from sie_triton.deploy.pods import FRONTEND_PORT, metadata

Object = dict[str, Any]

_NGINX = "nginx.ingress.kubernetes.io"
# A model that is loaded on demand answers at once that it is loading; otherwise a run may take this long, and waits
# for others before.
_LONGEST_ANSWER = 600


def entries(deployment: Deployment) -> list[Object]:
    """The objects; empty where nobody asked for a host."""
    if deployment.ingress_host is None:
        return []
    return [_route(deployment) if deployment.gateway else _ingress(deployment)]


def nginx_annotations(*, tls_behind: bool) -> dict[str, str]:
    """What makes ingress-nginx pass on whatever the frontend takes. Other controllers read none of it."""
    annotations = {
        f"{_NGINX}/proxy-body-size": f"{-(-Settings().max_body_bytes // 2**20)}m",
        # The frontend reads bodies as they come, and gives slow ones 408: nothing waits on the proxy's disk before.
        f"{_NGINX}/proxy-request-buffering": "off",
        f"{_NGINX}/proxy-read-timeout": str(_LONGEST_ANSWER),
        f"{_NGINX}/proxy-send-timeout": str(_LONGEST_ANSWER),
        # A frontend that leaves refuses connections in the end: another takes the request, which it has not seen.
        f"{_NGINX}/proxy-next-upstream": "error",
        f"{_NGINX}/proxy-next-upstream-tries": "3",
    }
    if tls_behind:
        annotations[f"{_NGINX}/backend-protocol"] = "HTTPS"
    return annotations


def _ingress(deployment: Deployment) -> Object:
    backend = {"service": {"name": f"{deployment.name}-frontend", "port": {"number": FRONTEND_PORT}}}
    spec: Object = {
        "rules": [
            {
                "host": deployment.ingress_host,
                "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]},
            }
        ]
    }
    if deployment.ingress_tls_secret:
        spec["tls"] = [{"hosts": [deployment.ingress_host], "secretName": deployment.ingress_tls_secret}]
    if deployment.ingress_class:
        spec["ingressClassName"] = deployment.ingress_class
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            **metadata(deployment, "frontend"),
            "annotations": nginx_annotations(tls_behind=deployment.tls_secret is not None),
        },
        "spec": spec,
    }


def _route(deployment: Deployment) -> Object:
    namespace, _, name = str(deployment.gateway).rpartition("/")
    parent = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": metadata(deployment, "frontend"),
        "spec": {
            "parentRefs": [parent],
            "hostnames": [deployment.ingress_host],
            "rules": [
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                    "backendRefs": [{"name": f"{deployment.name}-frontend", "port": FRONTEND_PORT}],
                    "timeouts": {"request": f"{_LONGEST_ANSWER}s", "backendRequest": f"{_LONGEST_ANSWER}s"},
                }
            ],
        },
    }
