"""Who gets the page and who today's answer, with which headers; and that the files need nothing from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from importlib.resources import files

import pytest
from frontend.conftest import Service
from frontend.key_help import behind_keys, key
from sie_frontend.http.status.page import wants_page

STATIC = files("sie_frontend.http.status") / "static"
FILES = sorted(entry.name for entry in STATIC.iterdir())
# As these programs send it.
BROWSERS = {
    "Chrome": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,"
    "application/signed-exchange;v=b3;q=0.7",
    "Firefox": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Lynx": "text/html, text/plain, text/sgml, */*;q=0.01",
}
PROGRAMS = {
    "nothing": None,
    "curl, httpx": "*/*",
    "SIE's SDK": "application/msgpack",
    "OpenAI's client": "application/json",
    "axios": "application/json, text/plain, */*",
    "java.net": "text/html;q=0, image/gif, image/jpeg, *; q=.2, */*; q=.2",
    "a client that would rather have JSON": "text/html;q=0.5, application/json",
    "any text": "text/*",
    "no number": "text/html;q=often",
    "empty": "",
}


@pytest.mark.parametrize("accept", BROWSERS.values(), ids=BROWSERS)
def test_browsers_want_the_page(accept: str) -> None:
    assert wants_page(accept)


@pytest.mark.parametrize("accept", PROGRAMS.values(), ids=PROGRAMS)
@pytest.mark.asyncio
async def test_programs_are_answered_as_before(accept: str | None, service: Service) -> None:
    assert not wants_page(accept)
    async with service.open(wait=False) as client:
        del client.headers["accept"]
        answer = await client.get("/", headers={} if accept is None else {"accept": accept})
    assert (answer.status_code, answer.content) == (307, b"")
    assert dict(answer.headers) == {"content-length": "0", "location": "/docs"}


@pytest.mark.asyncio
async def test_the_page_and_its_files_are_locked_in(service: Service) -> None:
    async with service.open(wait=False) as client:
        page = await client.get("/", headers={"accept": BROWSERS["Firefox"]})
        assert page.headers["vary"] == "Accept"
        answers = [page, *[await client.get(f"/page/{name}") for name in FILES]]
        for answer in answers:
            assert answer.status_code == 200
            policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
            assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
            assert policy["frame-ancestors"] == policy["trusted-types"] == "'none'"
            assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
            assert "unsafe" not in answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["x-frame-options"] == "DENY"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["cache-control"] == "no-cache"
        assert page.content == (STATIC / "index.html").read_bytes()


@pytest.mark.asyncio
async def test_files_are_sent_once_and_nothing_else_is_found(service: Service) -> None:
    async with service.open(wait=False) as client:
        first = await client.get("/page/main.js")
        assert first.headers["content-type"] == "text/javascript; charset=utf-8"
        again = await client.get("/page/main.js", headers={"if-none-match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert (await client.head("/page/main.js")).content == b""
        assert (await client.post("/page/main.js")).status_code == 405
        for path in ("", "nothing.js", "%2e%2e/facts.py", "..%2ffacts.py", "main.js%00", "__init__.py"):
            answer = await client.get(f"/page/{path}")
            assert answer.status_code == 404, path
            assert answer.headers["content-type"] == "application/json"


@pytest.mark.asyncio
async def test_no_other_origin_may_read_the_facts(service: Service) -> None:
    async with service.open() as client:
        answer = await client.get("/v1/status", headers={"origin": "https://elsewhere.example"})
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.asyncio
async def test_the_page_needs_no_key_and_tells_nothing(service: Service) -> None:
    async with service.open(wait=False) as client:
        without = await client.get("/", headers={"accept": "text/html"})
    async with behind_keys(service.settings, key()) as client:
        del client.headers["authorization"]
        behind = await client.get("/", headers={"accept": "text/html"})
        assert behind.content == without.content
        assert (await client.get("/page/main.js")).status_code == 200
        refused = await client.get("/v1/status")
        assert (refused.status_code, refused.json()["detail"]["code"]) == (401, "UNAUTHORIZED")


class _Markup(HTMLParser):
    """Every element with its attributes, and what stands in scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inline = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements[-1:] and self.elements[-1][0] in ("script", "style"):
            self.inline += data.strip()


def test_nothing_is_inline_and_nothing_comes_from_elsewhere() -> None:
    markup = _Markup()
    markup.feed((STATIC / "index.html").read_text(encoding="utf-8"))
    assert markup.inline == ""
    for tag, attributes in markup.elements:
        assert tag != "style"
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("src", "href", "action"):
            assert not re.match(r"[a-z]+:|/", attributes.get(name) or ""), (tag, attributes)
    ids = [attributes["id"] for _, attributes in markup.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    labelled = {attributes["for"] for tag, attributes in markup.elements if tag == "label"}
    assert labelled == {a["id"] for tag, a in markup.elements if tag in ("input", "select", "textarea")}


def test_the_page_is_small_and_never_parses_markup() -> None:
    texts = {name: (STATIC / name).read_text(encoding="utf-8") for name in FILES}
    assert sum(map(len, texts.values())) < 40_000
    for name, text in texts.items():
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function|DOMParser", text
        ), name
        assert "localStorage" not in text and "document.cookie" not in text
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), name


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, other: str) -> float:
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_can_be_told_apart(scheme: int) -> None:
    """WCAG 2.2 asks 4.5 of text and 3 of the edges of controls."""
    style = (STATIC / "style.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{([^}]*)\}", style)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[scheme]))
    assert len(colours) == 14
    for ground in ("page", "card"):
        for text in ("text", "soft", "link", "good", "wait", "bad"):
            assert _contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
        assert _contrast(colours["control"], colours[ground]) >= 3
    for text, ground in (("text", "notice"), ("soft", "notice"), ("on-button", "button"), ("text", "bar")):
        assert _contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
