"""The page in a real browser before the real server: what it shows, computes, keeps, asks for, and survives."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from aiohttp import web
from e2e.processes import Serving
from frontend.key_help import SECRET, key
from frontend.process import FrontendProcess
from numpy.typing import NDArray
from recipes.built import BuiltFamilies
from recipes.factory import FAMILIES
from sie_frontend.http.status.page import HEADERS
from sie_sdk import SIEClient
from sie_sdk.types import Item

from .browser import Browser, find_browser

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(find_browser() is None, reason="no Chromium: install Debian's chromium-headless-shell"),
]

EVERY_KIND = FAMILIES["bge_m3"].sie_id
RERANKER = FAMILIES["cross_encoder_bert_identity"].sie_id
QUERY = "retrieval systems"
TEXTS = ["hello, WORLD", "retrieval systems embed", "embedding systems rank <b>texts</b>"]
HOSTILE = "<img src=x onerror='window.owned=1'><script>window.owned=1</script>"


@pytest.fixture(scope="module")
def serving(built_families: BuiltFamilies, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Many models, of which only those are loaded that a test asks for."""
    repository = built_families.repository(built_families.group("bge_m3"))
    server = Serving(repository, tmp_path_factory.mktemp("status_page"), "--load", "on-demand")
    server.wait_ready()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def opened() -> Iterator[Browser]:
    program = find_browser()
    assert program is not None
    with Browser(program) as browser:
        yield browser


@pytest.fixture
def browser(opened: Browser) -> Iterator[Browser]:
    """The browser, in which nothing of the page was wrong."""
    opened.look()
    yield opened
    # What Chromium says of answers that are no success is no mistake of the page.
    assert [one for one in opened.complaints if not one.startswith("Failed to load resource")] == []


def show(browser: Browser, url: str) -> None:
    """Open the page, which asks often in tests, and wait for its first report."""
    browser.open(f"{url}/")
    browser.until("document.querySelector('#models table')")
    browser.run("document.documentElement.dataset.everyMs = 200")
    browser.run("document.dispatchEvent(new Event('visibilitychange'))")  # and not in five seconds


def rows(browser: Browser, caption: str) -> list[list[str]]:
    """The cells of the table with a caption that begins so."""
    found = browser.run(
        "[...document.querySelectorAll('table')].filter(t => t.caption.textContent.startsWith("
        f"{json.dumps(caption)})).flatMap(t => [...t.tBodies[0].rows].map(r => [...r.cells].map(c => c.innerText)))"
    )
    return [[str(cell) for cell in row] for row in found]


def compute(browser: Browser, output: str, model: str = EVERY_KIND, query: str = QUERY) -> None:
    browser.choose("#model", model)
    browser.choose("#output", output)
    browser.fill("#query", query)
    browser.fill("#texts", "\n".join(TEXTS))
    browser.run("document.getElementById('result').replaceChildren()")
    browser.run("document.getElementById('go').focus()")
    browser.press("Enter")
    browser.until("document.querySelector('#result table') && !document.getElementById('go').disabled", 120)


def test_it_shows_what_the_server_says(serving: Serving, browser: Browser) -> None:
    show(browser, serving.url)
    report = httpx.get(f"{serving.url}/v1/status").json()
    shown = {row[0]: row for row in rows(browser, "")[: len(report["models"])]}
    assert list(shown) == [one["id"] for one in report["models"]]
    assert "available" in shown[EVERY_KIND][1]
    assert shown[EVERY_KIND][4] == f"{report['models'][list(shown).index(EVERY_KIND)]['closeness']['min_cosine']:.6f}"
    assert browser.text("#health") == "● Ready"
    assert browser.text("#about").startswith(f"{report['version']}, contract {report['contract']}, on cpu")
    assert {url.removeprefix(serving.url) for url in browser.requests if not url.startswith("data:")} == {
        "/",
        "/v1/status",
        *(f"/page/{name}" for name in ("style.css", "main.js", "api.js", "box.js", "dom.js", "overview.js")),
        "/page/vectors.js",
        *(["/page/icon.svg"] if f"{serving.url}/page/icon.svg" in browser.requests else []),
    }


def likeness(output: str, query: Any, other: Any) -> float:
    if output == "dense":
        return float(query @ other / (np.linalg.norm(query) * np.linalg.norm(other)))
    if output == "sparse":
        width = 1 + max(query["indices"].max(), other["indices"].max())
        spread: list[NDArray[np.float64]] = []
        for vector in (query, other):
            spread.append(np.zeros(width))
            spread[-1][vector["indices"]] = vector["values"]
        return float(spread[0] @ spread[1])
    return float((query @ other.T).max(axis=1).sum())


@pytest.mark.parametrize("output", ["dense", "sparse", "multivector"])
def test_neighbours_are_where_numpy_has_them(output: Any, serving: Serving, browser: Browser) -> None:
    show(browser, serving.url)
    compute(browser, output)
    with SIEClient(serving.url) as client:
        asked: Any = client.encode(EVERY_KIND, Item(text=QUERY), output_types=[output], is_query=True)
        found: Any = client.encode(EVERY_KIND, [Item(text=text) for text in TEXTS], output_types=[output])
    alike = [likeness(output, asked[output], one[output]) for one in found]
    order = sorted(range(len(TEXTS)), key=lambda at: -alike[at])
    ranking = rows(browser, f"Neighbours of “{QUERY}”")
    assert [row[1] for row in ranking] == [TEXTS[at] for at in order]
    np.testing.assert_allclose([float(row[2]) for row in ranking], sorted(alike, reverse=True), atol=1e-4)
    described = rows(browser, "What came back")
    assert [row[0] for row in described] == [QUERY, *TEXTS]
    vector = found[1][output]
    if output == "dense":
        assert described[2][1] == f"{len(vector)} numbers, norm {np.linalg.norm(vector):.4f}"
        shown = [float(word) for word in described[2][2].split()[:8]]
        np.testing.assert_allclose(shown, vector[:8], atol=1e-4)
    elif output == "multivector":
        assert described[2][1] == f"{vector.shape[0]} vectors of {vector.shape[1]} numbers; the first"
    else:
        heaviest = vector["indices"][np.argmax(vector["values"])]
        assert described[2][2].startswith(f"{heaviest}: ")


@pytest.mark.parametrize("model", [EVERY_KIND, RERANKER])
def test_scores_are_those_of_the_score_route(model: str, serving: Serving, browser: Browser) -> None:
    show(browser, serving.url)
    compute(browser, "score", model)
    with SIEClient(serving.url) as client:
        found: Any = client.score(model, Item(text=QUERY), [Item(text=text) for text in TEXTS])
    ranking = rows(browser, f"Scores for “{QUERY}”")
    assert [row[1] for row in ranking] == [TEXTS[int(one["item_id"].split("-")[1])] for one in found["scores"]]
    np.testing.assert_allclose([float(row[2]) for row in ranking], [one["score"] for one in found["scores"]], atol=1e-4)
    browser.until(f"document.getElementById('models').innerText.includes('loaded') && {json.dumps(model)}")
    assert "loaded" in next(row for row in rows(browser, "") if row[0] == model)[1]


def test_without_a_query_the_first_text_is_one(serving: Serving, browser: Browser) -> None:
    show(browser, serving.url)
    compute(browser, "dense", query="")
    ranking = rows(browser, "Neighbours of the first one")
    assert ranking[0][1:] == [TEXTS[0], "1.0000"]


def test_what_is_wrong_is_said_in_the_servers_words(serving: Serving, browser: Browser) -> None:
    show(browser, serving.url)
    browser.choose("#model", RERANKER)
    browser.run("document.getElementById('go').click()")
    browser.until("document.querySelector('#said.bad')")
    assert browser.text("#said") == "There is no text yet"
    refused = browser.run(
        "import('/page/api.js').then(m => m.call('v1/encode/no/such', {items: 1})).catch(e => e.code)"
    )
    assert refused == "INVALID_INPUT"


def test_a_reader_of_screens_and_a_keyboard_find_everything(serving: Serving, browser: Browser) -> None:
    show(browser, serving.url)
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    controls = [node for node in nodes if node["role"]["value"] in ("button", "textbox", "combobox", "link", "table")]
    names = [node.get("name", {}).get("value", "") for node in controls]
    assert len(controls) >= 10 and all(names), names
    regions = [node["name"]["value"] for node in nodes if node["role"]["value"] == "region"]
    assert regions[:3] == ["Now", "Models", "Try a text"]
    browser.run("document.activeElement.blur()")
    visited = []
    for _ in range(8):
        browser.press("Tab")
        visited.append(browser.run("document.activeElement.id || document.activeElement.textContent"))
    assert visited[-5:] == ["model", "output", "query", "texts", "go"]
    assert visited[0] == "Skip to the box for a text"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_fits_on_a_phone_by_day_and_by_night(dark: bool, serving: Serving, browser: Browser) -> None:
    browser.look(width=320, height=640, dark=dark)
    show(browser, serving.url)
    assert browser.run("document.documentElement.scrollWidth") == 320
    roles = [node["role"]["value"] for node in browser.call("Accessibility.getFullAXTree")["nodes"]]
    for role, selector in (("row", "tr"), ("columnheader", "thead th"), ("rowheader", "tbody th"), ("cell", "td")):
        assert roles.count(role) == browser.run(f"document.querySelectorAll('{selector}').length") > 1
    ground = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, ground[4:-1].split(","))) < 64) == dark


def test_a_tab_that_nobody_sees_asks_nothing(serving: Serving, browser: Browser) -> None:
    show(browser, serving.url)
    reports = f"{serving.url}/v1/status"
    browser.run("window.seen = performance.now()")
    browser.until("performance.now() - window.seen > 1000")
    assert browser.requests.count(reports) >= 3
    hide = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true}); "
    hide += "document.dispatchEvent(new Event('visibilitychange'))"
    browser.run(hide % "true")
    browser.run("new Promise(go => setTimeout(go, 300))")  # what was on its way
    before = browser.requests.count(reports)
    browser.run("new Promise(go => setTimeout(go, 1000))")
    assert browser.requests.count(reports) == before
    browser.run(hide % "false")
    browser.run("new Promise(go => setTimeout(go, 300))")
    assert browser.requests.count(reports) > before


def test_the_browser_holds_the_page_to_its_policy(serving: Serving, opened: Browser) -> None:
    show(opened, serving.url)
    for attempt in (
        "document.body.insertAdjacentHTML('beforeend', '<p>')",
        "document.body.innerHTML = '<p>'",
        "Promise.resolve().then(() => trustedTypes.createPolicy('mine', {}))",
        "new Function('return 1')()",
        "fetch('http://127.0.0.1:9/')",
    ):
        refused = opened.run(
            f"(async () => {{ try {{ await ({attempt}); return '' }} catch (e) {{ return e.name }} }})()"
        )
        assert refused in ("TypeError", "EvalError"), attempt
    opened.run("document.body.append(Object.assign(document.createElement('style'), {textContent: 'p {color: red}'}))")
    assert any("style-src 'self'" in one for one in opened.complaints), opened.complaints
    assert any("connect-src 'self'" in one for one in opened.complaints), opened.complaints


# Behind keys


def test_a_key_stays_in_its_tab(
    serving: Serving, browser: Browser, built_families: BuiltFamilies, tmp_path: Path
) -> None:
    repository = built_families.repository(built_families.group("bge_m3"))
    keys = {"SIE_TRITON_API_KEYS": key(verbs="models,encode", models=EVERY_KIND).line}
    with FrontendProcess(
        tmp_path / "log", "--repository", repository, "--triton-url", "127.0.0.1:9", **keys
    ) as frontend:
        browser.open(f"{frontend.url}/")
        browser.until("document.activeElement.id === 'key'")
        assert browser.run("document.getElementById('keyform').hidden") is False
        assert rows(browser, "") == []
        for wrong in ("sie_guessed", "no key at all"):
            browser.fill("#key", wrong)
            browser.press("Enter")
        browser.until("document.getElementById('keywhy').innerText.includes('not known')")
        browser.fill("#key", SECRET)
        browser.press("Enter")
        browser.until("document.querySelector('#models table')")
        assert [row[0] for row in rows(browser, "")] == [EVERY_KIND]
        assert "a key with the verb metrics" in browser.text("#method")
        assert browser.text("#tiles") == ""
        kept = browser.run(
            "JSON.stringify([{...localStorage}, document.cookie, location.href, document.body.innerText])"
        )
        assert SECRET not in kept
        assert SECRET not in " ".join(browser.requests)
        assert browser.run("Object.values({...sessionStorage})") == [SECRET]
        browser.open(f"{frontend.url}/?again")
        browser.until("document.querySelector('#models table')")
        browser.run("document.querySelector('#forget button').click()")
        browser.until("document.readyState === 'complete' && document.activeElement.id === 'key'")
        assert browser.run("sessionStorage.length") == 0
        assert SECRET not in frontend.log


# A server that wishes the reader ill


class Forger:
    """Answers with our files, and with documents that somebody else wrote."""

    def __init__(self, documents: dict[str, tuple[int, bytes]], port: int = 0) -> None:
        self._documents = documents
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._started: threading.Event = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Forger:
        self._thread.start()
        assert self._started.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", self._port, reuse_address=True)
        self._loop.run_until_complete(site.start())
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._started.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())

    async def _answer(self, request: web.Request) -> web.Response:
        for beginning, (status, content) in self._documents.items():
            if request.path.startswith(beginning):
                return web.Response(body=content, status=status, content_type="application/json")
        file = files("sie_frontend.http.status") / "static" / (request.path.rpartition("/")[2] or "index.html")
        media = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
        return web.Response(body=file.read_bytes(), headers=HEADERS, content_type=media[file.name.rpartition(".")[2]])


def poisoned(value: Any) -> Any:
    """A document whose every text is markup."""
    match value:
        case dict():
            return {name: poisoned(entry) for name, entry in value.items()}
        case list():
            return [poisoned(entry) for entry in value]
        case str():
            return value + HOSTILE
        case _:
            return value


def test_nothing_that_the_server_says_becomes_markup(serving: Serving, browser: Browser) -> None:
    httpx.post(f"{serving.url}/v1/encode/no/such", json={})
    report = httpx.get(f"{serving.url}/v1/status").json()
    report["models"][0]["last_error"] = {"message": "it cannot be loaded ", "attempts": 2, "permanent": False}
    report["numbers"]["errors"][0]["message"] = "out of memory "
    forged = poisoned(report)
    refusal = json.dumps(poisoned({"detail": {"code": "X", "message": "refused "}})).encode()
    with Forger({"/v1/status": (200, json.dumps(forged).encode()), "/v1/": (400, refusal)}) as forger:
        show(browser, forger.url)
        compute_nothing = "document.getElementById('texts').value = 'a'; document.getElementById('go').click()"
        browser.run(compute_nothing)
        browser.until("document.querySelector('#said.bad')")
        text = browser.text("body")
        assert browser.text("#said") == "refused " + HOSTILE
        assert text.count(HOSTILE) >= 3 * len(forged["models"]) + 4
        assert "it cannot be loaded " + HOSTILE in text and "out of memory " + HOSTILE in text
        assert browser.run("window.owned") is None
        assert browser.run("document.querySelectorAll('img, script:not([src]), [onerror], iframe').length") == 0
        assert not [url for url in browser.requests if url.endswith("/x")]


# The end


def test_when_the_server_is_gone_it_says_so_and_goes_on_when_it_is_back(serving: Serving, opened: Browser) -> None:
    show(opened, serving.url)
    report = httpx.get(f"{serving.url}/v1/status").content
    assert serving.stop() == 0
    opened.until("document.getElementById('health').innerText.includes('does not answer')")
    assert "what is below is from" in opened.text("#health")
    assert rows(opened, "") != []
    assert opened.run("document.body.classList.contains('stale')")
    with Forger({"/v1/status": (200, report)}, serving.port):
        opened.until("document.getElementById('health').innerText === '● Ready'")
        assert not opened.run("document.body.classList.contains('stale')")
