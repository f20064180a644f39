"""The page in a browser: what a visitor does."""

import base64
import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kaleido_fast.search.index import KaleidoIndex

pytestmark = pytest.mark.slow
playwright = pytest.importorskip("playwright.sync_api", reason="the browser's tests need the package playwright")
uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")
from kaleido_fast.search.page.app import create_app  # noqa: E402

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
MARKUP = "<b id=evil>x</b>"
# Drops a file of these bytes on the page, as a hand would.
DROP = """([bytes, name]) => {
  const data = new DataTransfer();
  data.items.add(new File([Uint8Array.from(atob(bytes), (letter) => letter.charCodeAt(0))], name, { type: "image/jpeg" }));
  document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
}"""


@contextmanager
def served(index: KaleidoIndex) -> Iterator[str]:
    """The address of a server of this index, which lives as long as the block."""
    server = uvicorn.Server(uvicorn.Config(create_app(index), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 30
    while not server.started:
        assert thread.is_alive() and time.monotonic() < end, "the server did not start"
        time.sleep(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def marked_index(index_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> KaleidoIndex:
    """The index with markup as every product's text, in lines as long as they were."""
    folder = tmp_path_factory.mktemp("marked") / "index"
    shutil.copytree(index_folder, folder)
    lines = (folder / "products.jsonl").read_bytes().splitlines()
    marked = [json.dumps(json.loads(line) | {"text": MARKUP}, ensure_ascii=False).encode().ljust(len(line)) for line in lines]
    assert [len(line) for line in marked] == [len(line) for line in lines]
    (folder / "products.jsonl").write_bytes(b"\n".join(marked) + b"\n")
    return KaleidoIndex.open(folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine (apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        program = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield program
        program.close()


@pytest.fixture(scope="module")
def address(marked_index: KaleidoIndex) -> Iterator[str]:
    with served(marked_index) as place:
        yield place


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """A fresh page; what it throws fails the test."""
    tab, errors = browser.new_page(), []
    tab.on("pageerror", lambda error: errors.append(error))
    tab.goto(address)
    yield tab
    tab.close()
    assert not errors


def ids(page: Any) -> list[str]:
    """Of the results, once they are there."""
    page.wait_for_function("() => document.getElementById('status').textContent.startsWith('The ')")
    return [facts.split(" · ")[0] for facts in page.locator("#results .facts").all_text_contents()]


def ask(page: Any, text: str) -> None:
    page.fill("#text", text)
    page.press("#text", "Enter")


def test_a_typed_query_its_filter_and_more_like_this(page: Any, marked_index: KaleidoIndex) -> None:
    ask(page, "a red shirt")
    assert ids(page) == [hit.id for hit in marked_index.search("a red shirt", k=24)]
    kind = marked_index.search("a red shirt", k=1)[0].subcategory
    with page.expect_response("**/api/search"):
        page.select_option("#category", kind)
    page.wait_for_function("(kind) => [...document.querySelectorAll('#results .facts')].every((one) => one.textContent"
                           ".includes(kind))", arg=kind)
    filtered = ids(page)
    assert filtered == [hit.id for hit in marked_index.search("a red shirt", k=24, category=kind)]
    page.click("#results .like >> nth=1")
    page.wait_for_function("(id) => document.getElementById('status').textContent.includes(`like ${id}`)", arg=filtered[1])
    assert ids(page) == [hit.id for hit in marked_index.search(like=filtered[1], k=24, category=kind)]
    page.go_back()
    page.wait_for_function("() => !document.getElementById('status').textContent.includes(' like ')")
    assert ids(page) == filtered


def test_a_dropped_photograph(page: Any, marked_index: KaleidoIndex, tiny_shards: Path) -> None:
    file = tiny_shards.parent / "catalogue" / "images" / f"{marked_index.entries([7])[0].id}.jpg"
    page.evaluate(DROP, [base64.b64encode(file.read_bytes()).decode(), "shirt.jpg"])
    assert ids(page) == [hit.id for hit in marked_index.search(image=file, k=24)]
    assert page.text_content("#drop-text") == "Products like shirt.jpg"
    page.wait_for_function("() => document.getElementById('preview').naturalWidth > 0")


def test_markup_in_a_text_is_shown_as_text_and_the_match_is_explained(page: Any) -> None:
    ask(page, "a red shirt")
    ids(page)
    assert page.text_content("#results .text >> nth=0") == MARKUP
    page.click("#results .open >> nth=0")
    page.wait_for_selector("#words span")
    assert page.text_content("#product-text") == MARKUP and page.locator("#evil").count() == 0
    assert page.locator("#words span").all_text_contents() == ["a", "red", "shirt"]
    shades = [float(style) for style in page.eval_on_selector_all("#heat i", "(all) => all.map((one) => one.style.opacity)")]
    assert len(shades) == 25 and max(shades) <= 0.6 and all(shade == 0 or shade >= 0.12 for shade in shades)


def test_two_columns_on_a_telephone(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    ask(page, "a red shirt")
    ids(page)
    tops = page.eval_on_selector_all("#results li", "(all) => all.slice(0, 3).map((one) => one.offsetTop)")
    assert tops[0] == tops[1] < tops[2]
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
