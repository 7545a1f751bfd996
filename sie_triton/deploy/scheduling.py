"""Where pods may run, and with whose right their images are pulled: short forms, as the command line has them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

Object = dict[str, Any]

_NAME = r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_PREFIX = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*"
_KEY = rf"({_PREFIX}/)?{_NAME}"
_SELECTOR = re.compile(rf"(?P<key>{_KEY})=(?P<value>({_NAME})?)")
_TOLERATION = re.compile(
    rf"(?P<key>{_KEY})(=(?P<value>({_NAME})?))?(:(?P<effect>NoSchedule|PreferNoSchedule|NoExecute))?"
)


def node_selector(entries: Sequence[str]) -> dict[str, str]:
    """`KEY=VALUE` entries as a pod's `nodeSelector`. Raises `ValueError` that names the wrong one."""
    found: dict[str, str] = {}
    for entry in entries:
        match = _SELECTOR.fullmatch(entry)
        if match is None:
            raise ValueError(f"`{entry}` is not a label of a node; write `KEY=VALUE`")
        if found.get(match["key"], match["value"]) != match["value"]:
            raise ValueError(f"`{match['key']}` is given two values, and no node has both")
        found[match["key"]] = match["value"]
    return found


def tolerations(entries: Sequence[str]) -> list[Object]:
    """`KEY[=VALUE][:EFFECT]` entries as a pod's `tolerations`; without a value any is tolerated, and any effect.

    Raises `ValueError` that names the wrong one.
    """
    found = []
    for entry in entries:
        match = _TOLERATION.fullmatch(entry)
        if match is None:
            raise ValueError(
                f"`{entry}` is not a toleration; write `KEY`, `KEY=VALUE` or `KEY=VALUE:EFFECT` with the effect "
                "`NoSchedule`, `PreferNoSchedule` or `NoExecute`"
            )
        toleration: Object = {"key": match["key"], "operator": "Exists" if match["value"] is None else "Equal"}
        if match["value"] is not None:
            toleration["value"] = match["value"]
        if match["effect"]:
            toleration["effect"] = match["effect"]
        found.append(toleration)
    return found


def placement(selector: Sequence[str], tolerated: Sequence[str], pull_secrets: Sequence[str]) -> Object:
    """The fields of a pod for all of them; empty ones are left out. The entries were checked."""
    fields: Object = {
        "imagePullSecrets": [{"name": name} for name in pull_secrets],
        "nodeSelector": node_selector(selector),
        "tolerations": tolerations(tolerated),
    }
    return {name: value for name, value in fields.items() if value}


def spread(labels: dict[str, str]) -> list[Object]:
    """Pods of one kind on different machines and in different zones, as far as there are several."""
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": labels},
        }
        for key in ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
    ]
