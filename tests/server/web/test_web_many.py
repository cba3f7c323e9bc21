"""A gallery of 100,000 pictures holds a screenful of them, wherever one looks."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from PIL import Image
from playwright.sync_api import expect
from sqlalchemy import insert

from pictura import Picture, Request
from pictura.history import History
from pictura.history.tables import pictures

MANY = 100_000
MOST_TILES = 200  # in the document, of whatever is on the screen
IN_SIGHT = """[...document.querySelectorAll('.tile')].filter((tile) => {
    const box = tile.getBoundingClientRect(); return box.bottom > 0 && box.top < innerHeight; })"""


@pytest.fixture(scope="module")
def many(server, tmp_path_factory, request):
    """A server over a history of 100,000 rows that share one file."""
    folder = tmp_path_factory.mktemp("many")
    with History(folder=folder) as history:
        picture = Picture(
            image=Image.new("RGB", (32, 32), "teal"), request=Request(prompt="one", seed=0, model="scenes")
        )
        first = history.add(picture)
        rows = []
        for number in range(1, MANY):
            asked = {"prompt": f"picture {number}", "seed": number, "model": "scenes"}
            rows.append(
                {"id": f"{number:032x}", "made_at": first.made_at + number, "sha256": first.sha256,
                 "suffix": ".png", "width": 32, "height": 32, "job_id": None, "job_index": None,
                 "model": "scenes", "model_digest": None,
                 "prompt": asked["prompt"], "negative_prompt": None, "seed": number, "num_steps": None,
                 "guidance_scale": None, "sampler": None, "request": json.dumps(asked), "details": "{}"}
            )  # fmt: skip
        with history.engine.begin() as connection:
            for start in range(0, len(rows), 5000):
                connection.execute(insert(pictures), rows[start : start + 5000])
    made = type(server)(folder).start(ready=False)
    request.addfinalizer(lambda: (made.stop(), shutil.rmtree(folder, ignore_errors=True)))
    return made


def tiles(page) -> int:
    return page.evaluate("document.querySelectorAll('.tile').length")


def shown(page) -> list[int]:
    """Places of the tiles in sight, once all of them are there."""
    page.wait_for_function(
        f"""() => {{ const seen = {IN_SIGHT};
        return seen.length && seen.every((tile) => tile.querySelector('img').complete
          && tile.dataset.id); }}"""
    )
    return page.evaluate(f"() => {IN_SIGHT}.map((tile) => Number(tile.ariaPosInSet))")


@pytest.mark.parametrize("width", [360, 1440])
def test_jumps_to_anywhere(many, look, width: int) -> None:
    seen = look(many, viewport={"width": width, "height": 800})
    page = seen.go("#/gallery")
    expect(page.locator(".gallery-count")).to_have_text("100,000 pictures")
    assert tiles(page) < MOST_TILES
    for share in (0.5, 0.93, 0.21, 1.0, 0.0):
        page.evaluate("(share) => scrollTo(0, share * document.documentElement.scrollHeight)", share)
        places = shown(page)
        assert tiles(page) < MOST_TILES
        middle = sum(places) / len(places) / MANY
        assert abs(middle - share) < 0.01
        for place in (places[0], places[-1]):  # the newest is number 1
            alt = page.locator(f".tile[aria-posinset='{place}'] img").get_attribute("alt")
            assert alt == (f"picture {MANY - place}" if place < MANY else "one")
    assert page.evaluate("document.querySelectorAll('*').length") < 3000


def test_keys_go_to_both_ends(many, look) -> None:
    page = look(many).go("#/gallery")
    expect(page.locator(".gallery-count")).to_have_text("100,000 pictures")
    page.locator(".tile a[href]").first.focus()
    page.keyboard.press("End")
    expect(page.locator(".tile[aria-posinset='100000'] a")).to_be_focused()
    expect(page.locator(".tile[aria-posinset='100000'] img")).to_have_attribute("alt", "one")
    for _ in range(3):
        page.keyboard.press("PageUp")
    focused = page.evaluate("Number(document.activeElement.closest('.tile').ariaPosInSet)")
    assert 99_700 < focused < 100_000
    page.keyboard.press("Home")
    expect(page.locator(".tile[aria-posinset='1'] a")).to_be_focused()
    assert tiles(page) < MOST_TILES


def test_search_among_them(many, look) -> None:
    seen = look(many)
    page = seen.go("#/gallery")
    page.get_by_role("searchbox").fill("picture 4242")
    expect(page.locator(".gallery-count")).to_have_text("11 pictures")  # 4242 and what begins so
    page.get_by_role("searchbox").fill("picture")
    expect(page.locator(".gallery-count")).to_have_text("99,999 pictures")
    page.locator(".tile a[href]").first.click()
    expect(page.locator(".detail-prompt")).to_have_text("picture 99999")
    for number in range(99_998, 99_990, -1):
        page.keyboard.press("ArrowRight")
        expect(page.locator(".detail-prompt")).to_have_text(f"picture {number}")
    page.keyboard.press("Escape")
    expect(page).to_have_url(re.compile("query=picture"))
    seen.shot("gallery-many")


def test_more_than_a_browser_can_be_tall(many, look) -> None:
    """A million would be taller than browsers allow: compressed, every picture can still be reached."""
    page = look(many, viewport={"width": 600, "height": 700}).go("#/gallery")
    expect(page.locator(".gallery-count")).to_have_text("100,000 pictures")
    result = page.evaluate(
        """async () => { const {virtual} = await import('/static/virtual.js');
        const grid = virtual({ size: () => ({columns: 2, side: 300, gap: 0}), update() {},
          render() { const tile = document.createElement('li'); tile.className = 'tile';
            tile.append(document.createElement('a')); return tile; } });
        document.querySelector('main').replaceChildren(grid.box); grid.count = 1_000_000;
        const next = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
        await next(); const seen = [];
        for (const share of [0, .5, 1]) {
          scrollTo(0, share * document.documentElement.scrollHeight); await next(); await next();
          const places = IN_SIGHT.map((tile) => Number(tile.ariaPosInSet));
          seen.push([Math.min(...places), Math.max(...places)]); }
        return [document.documentElement.scrollHeight, seen]; }""".replace("IN_SIGHT", IN_SIGHT)
    )
    height, (first, middle, last) = result
    assert height < 10_000_000 and first[0] == 1 and last[1] == 1_000_000
    assert abs(middle[0] - 500_000) < 5000
