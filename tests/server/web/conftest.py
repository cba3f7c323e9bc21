"""A real browser on a real server. Screenshots go to out/screenshots, where that can be written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect, sync_playwright

from serving import Server

ROOT = Path(__file__).parents[3]
WIDE = {"width": 1440, "height": 900}


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server of these tests alone: what a search of the page finds is what they drew."""
    made = Server(tmp_path_factory.mktemp("web")).start()
    yield made
    made.stop()


@pytest.fixture(scope="module")  # an open one leaves an event loop running, which others could not bear
def browser() -> Iterator[Browser]:
    program = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))),
        None,
    )
    if program is None:
        pytest.fail("there is no Chromium to look at the page with; install it: apt-get install chromium")
    expect.set_options(timeout=30_000)  # the machine may be busy
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield made
        made.close()


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = ROOT / "out" / "screenshots"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        usable = os.access(folder, os.W_OK)
    except OSError:
        usable = False
    return folder if usable else tmp_path_factory.mktemp("screenshots")


class Seen:
    """A page and what it said on its console. Everything there is an error but what a test expects."""

    def __init__(self, page: Page, url: str, screenshots: Path) -> None:
        self.page, self.url, self.folder = page, url, screenshots
        self.said: list[str] = []
        page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        page.on("request", self.asked)
        page.on("dialog", lambda dialog: (self.said.append(f"dialog: {dialog.message}"), dialog.dismiss()))

    def asked(self, request: Request) -> None:
        """Nothing but the server is ever asked for anything."""
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.said.append(f"asked elsewhere: {request.url}")

    def go(self, hash: str = "") -> Page:
        self.page.goto(f"{self.url}/{hash}")
        return self.page

    def shot(self, name: str) -> None:
        self.page.wait_for_timeout(60)
        self.page.screenshot(path=self.folder / f"{name}.png")


@pytest.fixture
def look(browser: Browser, screenshots: Path) -> Iterator[Callable[..., Seen]]:
    """look(server, **context options): a fresh browser's page. What its console says fails the test."""
    made: list[tuple[BrowserContext, Seen]] = []

    def open_(server: Any, **options: Any) -> Seen:
        options = {"viewport": WIDE, "reduced_motion": "reduce", "locale": "en-GB", **options}
        context = browser.new_context(**options)
        context.set_default_timeout(20_000)
        made.append((context, Seen(context.new_page(), server.url, screenshots)))
        return made[-1][1]

    yield open_
    said = [line for _, seen in made for line in seen.said]
    for context, _ in made:
        context.close()
    assert not said, said


RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


@pytest.fixture(scope="session")
def accessible() -> Callable[[Page], None]:
    """accessible(page): axe finds nothing on it, light or dark."""

    def check(page: Page) -> None:
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            found = Axe().run(page, options=RULES).response["violations"]
            assert [
                (one["id"], node["target"], node["failureSummary"]) for one in found for node in one["nodes"]
            ] == []

    return check


@pytest.fixture(scope="session")
def drawn(server: Any) -> list[dict[str, Any]]:
    """Pictures that are in the history of the shared server."""
    prompts = [
        "a cat left of a pizza on a blue background",
        "three stars",
        "an owl above a pine tree",
        "a rocket on a yellow background",
    ]
    job = server.submit(*({"prompt": prompt, "seed": 7 + seed} for seed in range(3) for prompt in prompts))
    images = server.ended(job["id"])["images"]
    assert len(images) == 12
    return images
