"""The page of the HTTP contract says what the code does."""

from __future__ import annotations

import re

import numpy as np
from sie_frontend.contract.errors import ERROR_TABLE
from sie_frontend.contract.ndarray import pack_array
from sie_frontend.http.api_reference.document import document

from sie_triton.pages import http_api, http_tables

from .markdown import ROOT

PAGE = (ROOT / "docs" / "http-api.md").read_text(encoding="utf-8")


def test_the_page_is_up_to_date() -> None:
    assert http_api.render() == PAGE, "run `python -m sie_triton.pages`"


def test_every_route_and_every_error_is_on_it() -> None:
    for path, methods in document()["paths"].items():
        for method in methods:
            assert f"`{method.upper()} {path}`" in PAGE
    assert http_tables.errors().count("\n") == len(ERROR_TABLE) + 1
    for row in ERROR_TABLE.values():
        assert re.search(rf"^\| {row.status} \| {f'`{row.code}`' if row.code else ''} \|", PAGE, re.MULTILINE), row


def test_the_bytes_of_the_array_are_ours() -> None:
    (spelt,) = re.findall(r"^85 c402.*$", PAGE, re.MULTILINE)
    assert bytes.fromhex(spelt) == b"".join(pack_array(np.array([0.5, -1.0], dtype="<f4")))


def test_a_dtype_is_described_as_it_travels() -> None:
    rows = {row.split(" | ")[0].strip("| "): row.split(" | ")[2] for row in http_tables.dtypes().split("\n")[2:]}
    stored = {
        "float32": "<f4",
        "float16": "<f2",
        "int8": "\\|i1",
        "uint8": "\\|u1",
        "binary": "\\|u1",
        "ubinary": "\\|u1",
    }
    assert rows == {f"`{name}`": f"`{dtype}`" for name, dtype in stored.items()}
