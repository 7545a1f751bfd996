"""The page at `/docs`: an OpenAPI document as plain HTML, with no script and nothing that is fetched from elsewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any, Final, TypeAlias

Json: TypeAlias = Mapping[str, Any]

_STYLE: Final = """\
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1rem; color: #1b1b1b }
h2 { border-bottom: 1px solid #bbb; margin-top: 3rem } h3 { margin-top: 2rem }
code, pre { font-family: ui-monospace, monospace; font-size: 0.9em; background: #f2f2f2 }
pre { padding: 0.6rem; overflow-x: auto } table { border-collapse: collapse; width: 100% }
th, td { border: 1px solid #ccc; padding: 0.3rem 0.6rem; text-align: left; vertical-align: top }
"""

_SCHEMAS: Final = "#/components/schemas/"


def page(document: Json) -> str:
    """The whole page; it is well-formed XML, too."""
    info = document["info"]
    title = f"{escape(info['title'])}, contract {escape(info['version'])}"
    parts = [
        f"<h1>{title}</h1>",
        *_paragraphs(info["description"]),
        '<p>The same for programs: <a href="/openapi.json">/openapi.json</a>.</p>',
        *_contents(document),
        *(part for tag in document["tags"] for part in _chapter(tag["name"], document)),
        "<h2>Schemas</h2>",
        *(part for name, schema in document["components"]["schemas"].items() for part in _schema(name, schema)),
    ]
    head = f'<meta charset="utf-8"/><title>{title}</title><style>{_STYLE}</style>'
    body = "\n".join(parts)
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def _contents(document: Json) -> Iterator[str]:
    yield "<ul>"
    for method, path, operation in _operations(document):
        link = f'<a href="#{operation["operationId"]}"><code>{method} {escape(path)}</code></a>'
        yield f"<li>{link} {_text(operation['summary'])}</li>"
    yield "</ul>"


def _chapter(tag: str, document: Json) -> Iterator[str]:
    yield f"<h2>{escape(tag)}</h2>"
    for method, path, operation in _operations(document):
        if tag in operation["tags"]:
            yield f'<h3 id="{operation["operationId"]}"><code>{method} {escape(path)}</code></h3>'
            yield f"<p><strong>{_text(operation['summary'])}.</strong></p>"
            yield from _paragraphs(operation["description"])
            yield from _sent(operation, document)
            yield from _answered(operation)


def _sent(operation: Json, document: Json) -> Iterator[str]:
    known = document["components"]["parameters"]
    parameters = [known[parameter["$ref"].rpartition("/")[2]] for parameter in operation.get("parameters", ())]
    if parameters:
        rows = [(_code(one["name"]), one["in"], _text(one["description"])) for one in parameters]
        yield _table(("Parameter", "In", "Means"), rows)
    content = operation.get("requestBody", {}).get("content", {})
    for schema, media in _by_schema(content):
        yield f"<p>Body: {schema} as {' or '.join(map(_code, media))}, for example</p>"
        yield f"<pre>{escape(json.dumps(content[media[0]]['example']), quote=False)}</pre>"


def _answered(operation: Json) -> Iterator[str]:
    rows = []
    for status, answer in operation["responses"].items():
        bodies = [
            f"{schema} as {' or '.join(map(_code, media))}" for schema, media in _by_schema(answer.get("content", {}))
        ]
        headers = ", ".join(map(_code, answer.get("headers", {})))
        rows.append((status, _text(answer["description"]), "<br/>".join(bodies), headers))
    yield _table(("Status", "Means", "Body", "Headers"), rows)


def _by_schema(content: Json) -> list[tuple[str, list[str]]]:
    found: dict[str, list[str]] = {}
    for media, said in content.items():
        if media != "*/*":
            found.setdefault(_type(said["schema"]) if "schema" in said else "text", []).append(media)
    return list(found.items())


def _schema(name: str, schema: Json) -> Iterator[str]:
    yield f'<h3 id="{name}">{escape(name)}</h3>'
    yield from _paragraphs(schema.get("description", ""))
    required = schema.get("required", ())
    rows = [
        (_code(member), _type(said), "yes" if member in required else "", _text(said.get("description", "")))
        for member, said in schema["properties"].items()
    ]
    yield _table(("Field", "Type", "Required", "Means"), rows)


def _type(schema: Json) -> str:
    """A schema in a few words, with links to those that have names."""
    if reference := schema.get("$ref"):
        name = escape(reference.removeprefix(_SCHEMAS))
        return f'<a href="#{name}">{name}</a>'
    if alternatives := schema.get("anyOf"):
        return " or ".join(_type(alternative) for alternative in alternatives)
    if choices := schema.get("enum"):
        return " or ".join(_code(json.dumps(choice)) for choice in choices)
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"array of {_type(schema.get('items', {}))}"
    if values := schema.get("additionalProperties"):
        return f"object of {_type(values)}"
    return "bytes (base64 in JSON)" if "contentEncoding" in schema else escape(kind)


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f"<th>{name}</th>" for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _paragraphs(text: str) -> Iterator[str]:
    return (f"<p>{_text(paragraph)}</p>" for paragraph in text.split("\n\n") if paragraph.strip())


def _text(text: str) -> str:
    """Escaped, and what stands between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text.strip(), quote=False))


def _code(text: str) -> str:
    return f"<code>{escape(text, quote=False)}</code>"
