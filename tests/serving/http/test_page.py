"""Tests the page at / in a browser."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pandas as pd
import pytest
import uvicorn
from matplotlib import image

from recall.config.experiment import Config
from recall.serving.http.app import create_app
from recall.serving.http.snapshot import Snapshot
from tests.helpers.browser import Page, browser, find_browser

ROWS = "document.querySelectorAll('tbody tr').length"


@pytest.fixture(scope="module")
def url(run: Path, snapshot: Snapshot) -> Iterator[str]:
    """Start a server in a thread of this process."""
    server = uvicorn.Server(uvicorn.Config(create_app(run, snapshot=snapshot), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def page(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Open a tab of a browser."""
    if (program := find_browser()) is None:
        pytest.skip("no Chromium on this machine")
    with browser(program, tmp_path_factory.mktemp("profile")) as tab:
        yield tab


def test_typing_a_user_shows_candidates_with_title_score_share_and_exposures(
    page: Page, url: str, run: Path, settings: Config, tmp_path: Path
) -> None:
    page.open(url)
    page.type("u001")
    page.until(f"{ROWS} === 20")
    page.screenshot(tmp_path / "page.png")  # among pytest's temporary files, for who wants to look
    height, _, channels = image.imread(tmp_path / "page.png").shape
    assert height > 500
    assert channels >= 3
    expected = httpx.post(f"{url}/recall", json={"users": ["u001"], "k": 20}).json()["results"][0]["items"]
    titles = pd.read_parquet(settings.data.items.path).set_index("item_id").title
    vectors = pd.read_parquet(run / "vectors" / "vectors.parquet").set_index("item_id")
    shown = page.run(
        "[...document.querySelectorAll('tbody tr')].map(row => [...row.cells].map(cell => cell.innerText))"
    )
    for rank, (cells, item) in enumerate(zip(shown, expected, strict=True), start=1):
        share, exposures = vectors.behaviour_share[item["id"]], vectors.exposures[item["id"]]
        assert cells[0] == str(rank)
        assert cells[1].split("\n") == [titles[item["id"]], item["id"]]
        assert float(cells[2]) == pytest.approx(item["score"], abs=1e-4)
        assert float(cells[3].removesuffix(" %")) == pytest.approx(100 * share, abs=0.51)
        assert cells[4] == (f"{exposures:,}" if exposures else "new")
    assert page.run("location.search") == "?user=u001&k=20"


def test_choosing_a_candidate_shows_what_is_like_it(page: Page, url: str) -> None:
    page.open(f"{url}/?user=u001&k=5")
    page.until(f"{ROWS} === 5")
    chosen = page.run("document.querySelector('tbody .id').innerText")
    page.run("document.querySelector('tbody button').click()")
    page.until(f"location.search.startsWith('?item=') && document.querySelector('#status b')?.innerText === '{chosen}'")
    assert page.run(ROWS) == 5
    assert page.run("document.querySelector('[name=kind]:checked').value") == "item"
    assert chosen not in page.run("[...document.querySelectorAll('tbody .id')].map(id => id.innerText)")


def test_an_unknown_item_is_said_so_in_words_and_markup_in_an_id_stays_text(page: Page, url: str) -> None:
    page.open(f"{url}/?item=%3Cimg%20src%3Dx%20onerror%3Ddocument.title%3D1%3E")
    page.until("document.querySelector('#status.error')")
    assert "<img src=x onerror=document.title=1>" in page.run("document.querySelector('#status').innerText")
    assert page.run("document.title") == "recall"
    assert page.run("document.querySelector('#found').hidden")


def test_the_page_loads_nothing_from_elsewhere_and_breaks_no_rule_of_its_own(page: Page, url: str) -> None:
    page.events.clear()
    page.open(f"{url}/?user=u002")
    page.until(f"{ROWS} === 20")
    asked = [
        event["params"]["request"]["url"] for event in page.events if event["method"] == "Network.requestWillBeSent"
    ]
    assert asked
    assert all(address.startswith((url, "data:")) for address in asked)
    complaints = [event for event in page.events if event["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")]
    assert not complaints  # the content security policy would complain here


def test_every_field_has_a_name_and_nothing_is_wider_than_a_phone(page: Page, url: str) -> None:
    page.send("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=1, mobile=True)
    page.open(f"{url}/?user=u001")
    page.until(f"{ROWS} === 20")
    assert page.run("document.documentElement.scrollWidth") <= 360
    page.send("Emulation.clearDeviceMetricsOverride")
    tree = page.send("Accessibility.getFullAXTree")["nodes"]
    fields = [node for node in tree if node["role"]["value"] in ("textbox", "spinbutton", "radio", "button")]
    assert len(fields) >= 5
    assert all(re.search(r"\w", node["name"]["value"]) for node in fields)
