"""The fields of objects that are not Kubernetes' own, as packages of theirs have them, and a check against them.

`custom_types.json` has each type that we render: its fields with their types, and which it cannot do without. A type is
`str`, `int`, `bool`, `any`, `list[T]`, `dict[T]`, `str~PATTERN`, another type of the table, or one of Kubernetes, which
others check. To write it anew, fetch the packages that it names into a folder and run
`SIE_TRITON_CUSTOM_PACKAGES=FOLDER pytest tests/deploy/test_custom_types.py --update-golden`.
"""

from __future__ import annotations

import ast
import json
import re
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Types = dict[str, dict[str, Any]]

TABLE = Path(__file__).with_name("custom_types.json")
# Kind -> the type of the table, and the package that has it.
KINDS = {
    "InferenceService": "V1beta1InferenceService",
    "ServingRuntime": "V1alpha1ServingRuntime",
    "ScaledObject": "ScaledObject",
    "HTTPRoute": "HTTPRoute",
}
_PLAIN = {"str": str, "int": int, "bool": bool}


def recorded() -> dict[str, Any]:
    """The table: `packages`, their names and versions, and `types`."""
    content: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return content


def problems(found: dict[str, Any], types: Types) -> list[str]:
    """What the API server would refuse of an object, by its type."""
    return list(_differences(KINDS[found["kind"]], found, found["kind"], types))


def _differences(expected: str, value: Any, where: str, types: Types) -> Iterator[str]:
    if match := re.fullmatch(r"(list|dict)\[(.*)\]", expected):
        container = list if match[1] == "list" else dict
        if not isinstance(value, container):
            yield f"{where} is no {match[1]}"
            return
        entries = enumerate(value) if isinstance(value, list) else value.items()
        for key, entry in entries:
            yield from _differences(match[2], entry, f"{where}[{key}]", types)
    elif expected.partition("~")[0] in _PLAIN:
        kind, _, pattern = expected.partition("~")
        if type(value) is not _PLAIN[kind]:
            yield f"{where} is {value!r} and should be {kind}"
        elif pattern and not re.search(pattern, str(value)):
            yield f"{where} is {value!r}"
    elif expected in types:
        yield from _of_object(types[expected], value, where, types)


def _of_object(described: dict[str, Any], value: Any, where: str, types: Types) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where} is no object"
        return
    fields = described["fields"]
    for missing in set(described["required"]) - set(value):
        yield f"{where} lacks {missing}"
    for name, entry in value.items():
        if name not in fields:
            yield f"{where} has no field {name}"
        else:
            yield from _differences(fields[name], entry, f"{where}.{name}", types)


def read_packages(folder: Path) -> dict[str, Any]:
    """The table of the packages that a folder holds, without types that no kind of ours leads to."""
    readers = {"kserve-": _kserve, "cloudcoil_models_keda-": _keda, "kubernetes-models-gateway-api-": _gateway}
    types: Types = {}
    names = []
    for prefix, read in readers.items():
        [path] = folder.glob(f"{prefix}[0-9]*")
        names.append(re.sub(r"(-py3-none-any)?\.(whl|tgz)$", "", path.name))
        types |= read(path)
    return {"packages": sorted(names), "types": {name: types[name] for name in sorted(_reached(types))}}


def _reached(types: Types) -> set[str]:
    """What the kinds lead to. Parts that we never write are named and not followed."""
    found: set[str] = set()
    pending = list(KINDS.values())
    while pending:
        name = pending.pop()
        if name in found or name not in types:
            continue
        found.add(name)
        for field, expected in types[name]["fields"].items():
            if field in _NEVER_WRITTEN:
                continue
            pending += re.findall(r"[\w.]+", expected.partition("~")[0])
    return found


_NEVER_WRITTEN = {
    *("status", "explainer", "batcher", "logger", "autoScaling", "storage", "storageUris", "workerSpec", "filters"),
    *("builtInAdapter", "sklearn", "xgboost", "tensorflow", "pytorch", "triton", "onnx", "huggingface", "pmml"),
    *("lightgbm", "paddle", "scalingModifiers", "fallback"),
}


def _kserve(path: Path) -> Types:
    """The models of KServe's Python SDK, which is generated from its OpenAPI document."""
    types: Types = {}
    with zipfile.ZipFile(path) as wheel:
        for name in wheel.namelist():
            if not re.fullmatch(r"kserve/models/v1(alpha1|beta1)_\w+\.py", name):
                continue
            for node in ast.parse(wheel.read(name)).body:
                if isinstance(node, ast.ClassDef):
                    types[node.name] = _kserve_class(node)
    return types


def _kserve_class(node: ast.ClassDef) -> dict[str, Any]:
    constants = {
        target.id: ast.literal_eval(statement.value)
        for statement in node.body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name) and target.id in ("openapi_types", "attribute_map")
    }
    fields = {
        constants["attribute_map"][name]: re.sub(r"dict\(str, (.*)\)", r"dict[\1]", expected)
        for name, expected in constants["openapi_types"].items()
    }
    return {"fields": dict(sorted(fields.items())), "required": []}


def _keda(path: Path) -> Types:
    """Models that cloudcoil generates from KEDA's CustomResourceDefinitions."""
    with zipfile.ZipFile(path) as wheel:
        tree = ast.parse(wheel.read("cloudcoil/models/keda/v1alpha1.py"))
    types: Types = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            fields, required = {}, []
            for statement in node.body:
                if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                    text = ast.unparse(statement.annotation)
                    alias = re.search(r"alias='(\w+)'", text)
                    name = alias[1] if alias else statement.target.id
                    fields[name] = _pydantic(text)
                    if statement.value is None:
                        required.append(name)
            types[node.name] = {"fields": dict(sorted(fields.items())), "required": sorted(required)}
    return types


def _pydantic(text: str) -> str:
    text = re.sub(r"^Annotated\[(.*), Field\(.*\)\]$", r"\1", text)
    text = re.sub(r"^Optional\[(.*)\]$", r"\1", text)
    if literal := re.fullmatch(r"Literal\['([^']*)'\]", text):
        return f"str~^{re.escape(literal[1])}$"
    text = text.replace("List[", "list[").replace("Dict[str, ", "dict[")
    return text if re.fullmatch(r"[\w.]+|(list|dict)\[[\w.]+\]", text) else "any"


def _gateway(path: Path) -> Types:
    """The JSON schema of a package that is generated from the Gateway API's CustomResourceDefinitions."""
    with tarfile.open(path) as package:
        member = package.extractfile("package/gateway.networking.k8s.io/v1/HTTPRoute.mjs")
        assert member is not None
        match = re.search(r"const schema = (\{.*?\n\});", member.read().decode(), re.DOTALL)
    assert match is not None
    types: Types = {}
    _schema("HTTPRoute", json.loads(match[1]), types)
    return types


def _schema(name: str, schema: dict[str, Any], types: Types) -> str:
    match schema.get("type"):
        case "array":
            return f"list[{_schema(name, schema['items'], types)}]"
        case "object" if "properties" in schema:
            fields = {key: _schema(f"{name}.{key}", value, types) for key, value in schema["properties"].items()}
            types[name] = {"fields": dict(sorted(fields.items())), "required": sorted(schema.get("required", ()))}
            return name
        case "string":
            choices = f"^({'|'.join(map(re.escape, schema['enum']))})$" if "enum" in schema else ""
            pattern = choices or schema.get("pattern", "")
            return f"str~{pattern}" if pattern else "str"
        case other:
            return {"object": "dict[str]", "integer": "int", "boolean": "bool"}.get(str(other), "any")
