"""Grids, blind comparisons and the queue."""

from __future__ import annotations

import itertools
import json

import pytest
from playwright.sync_api import expect


def test_a_grid_over_two_parameters(server, drawn, look, accessible, tmp_path) -> None:
    seen = look(server)
    page = seen.go(f"#/picture/{drawn[1]['id']}")
    page.get_by_role("link", name="Vary").click()
    page.get_by_label("Across", exact=True).select_option("num_steps")
    page.get_by_label("Across: values").fill("2, 6-10:2")
    page.get_by_label("Down", exact=True).select_option("guidance_scale")
    page.get_by_label("Down: values").fill("1, 2.5")
    expect(page.get_by_text("4 × 2 = 8 pictures")).to_be_visible()
    page.get_by_role("button", name="Draw the grid").click()
    table = page.get_by_role("table")
    expect(table.locator(".cell.done")).to_have_count(8)
    heads = [head.inner_text() for head in table.get_by_role("columnheader").all()]
    assert heads == ["Steps 2", "Steps 6", "Steps 8", "Steps 10"]
    assert [head.inner_text() for head in table.get_by_role("rowheader").all()] == [
        "Guidance 1",
        "Guidance 2.5",
    ]
    cells = table.locator(".cell a")
    for cell, (guidance, steps) in zip(cells.all(), itertools.product((1, 2.5), (2, 6, 8, 10)), strict=True):
        image = server.get(cell.get_attribute("href").replace("#/picture/", "/api/images/")).json()["request"]
        assert (image["num_steps"], image["guidance_scale"], image["seed"]) == (
            steps,
            guidance,
            drawn[1]["seed"],
        )
        assert (
            cell.locator("img").get_attribute("alt") == f"three stars, Steps {steps}, Guidance {guidance:g}"
        )
    accessible(page)
    seen.shot("grid-done")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as one picture").click()
    download.value.save_as(tmp_path / "grid.png")
    assert (tmp_path / "grid.png").read_bytes().startswith(b"\x89PNG")
    page.reload()  # the address holds job and axes
    expect(page.get_by_role("table").locator(".cell.done")).to_have_count(8)
    expect(page.get_by_label("Across: values")).to_have_value("2, 6-10:2")


def test_words_of_the_prompt_take_turns(server, look) -> None:
    page = look(server).go()
    page.get_by_label("Prompt", exact=True).fill("a cat above a cloud")
    page.get_by_role("link", name="Grid").click()
    page.get_by_label("Across", exact=True).select_option("prompt")
    page.get_by_label("Across: values").fill("dog, owl")
    page.get_by_label("Down", exact=True).select_option("")
    page.get_by_role("button", name="Draw the grid").click()
    expect(page.get_by_text("“dog” is not in the prompt.")).to_be_visible()
    page.get_by_label("Across: values").fill("cat, dog, owl")
    page.get_by_role("button", name="Draw the grid").click()
    expect(page.locator(".cell.done")).to_have_count(3)
    ids = [link.get_attribute("href").split("/")[-1] for link in page.locator(".cell a").all()]
    requests = [server.get(f"/api/images/{id}").json()["request"] for id in ids]
    assert [request["prompt"] for request in requests] == [
        f"a {it} above a cloud" for it in ("cat", "dog", "owl")
    ]
    assert len({request["seed"] for request in requests}) == 1  # only the words differ


@pytest.mark.parametrize(
    "name, text, values",
    [
        ("num_steps", "1-5", [1, 2, 3, 4, 5]),
        ("guidance_scale", "1-2:0.25, 7", [1, 1.25, 1.5, 1.75, 2, 7]),
        ("seed", "9223372036854775807", [9223372036854775807]),
        ("sampler", "euler, heun", ["euler", "heun"]),
        ("num_steps", "5-1", None),
        ("num_steps", "", None),
        ("guidance_scale", "1-1000:0.001", None),
        ("guidance_scale", "warm", None),
    ],
)
def test_values_of_an_axis(server, look, name: str, text: str, values: list[object] | None) -> None:
    page = look(server).go("#/queue")
    result = page.evaluate(
        """async ([name, text]) => { const {valuesOf} = await import('/static/axes.js');
        const {write} = await import('/static/json.js');
        try { return write(valuesOf(name, text)); } catch (error) { return null; } }""",
        [name, text],
    )
    assert (None if result is None else json.loads(result)) == values


def test_two_models_blind(server, look, accessible) -> None:
    seen = look(server)
    page = seen.go("#/compare")
    page.get_by_label("First model").select_option("scenes")
    page.get_by_label("Second model").select_option("gan-cls")
    page.get_by_label("Prompts").fill("a cat\nthree apples")
    page.get_by_role("button", name="Begin").click()
    expect(page.get_by_text("Pair 1 of 4")).to_be_visible(timeout=60_000)
    words = page.locator("main").inner_text()
    assert "scenes" not in words and "gan-cls" not in words
    seen.shot("blind-pair")
    job = page.evaluate("new URLSearchParams(location.hash.split('?')[1]).get('job')")
    for number in range(1, 5):
        expect(page.get_by_text(f"Pair {number} of 4")).to_be_visible(timeout=60_000)
        sides = [image.get_attribute("src") for image in page.locator(".blind-side img").all()]
        models = [server.get(f"/api{side.removesuffix('.png')}").json()["request"]["model"] for side in sides]
        assert sorted(models) == ["gan-cls", "scenes"]
        if number == 2:
            page.reload()  # the same pair, the same sides
            expect(page.locator(".blind-side img")).to_have_count(2)
            assert [image.get_attribute("src") for image in page.locator(".blind-side img").all()] == sides
        page.keyboard.press("s" if number == 4 else "ab"[models.index("scenes")])
    expect(page.get_by_role("heading", name="The result")).to_be_focused()
    rows = [
        row.inner_text().replace("\n", "").split("\t") for row in page.locator(".plain-table tbody tr").all()
    ]
    assert rows == [["scenes", "3", "75 %"], ["gan-cls", "0", "0 %"], ["Neither", "1", "25 %"]]
    page.get_by_text("All pairs").click()
    accessible(page)
    seen.shot("compare-result")
    items = server.get("/api/images", params={"job": job}).json()["items"]
    assert len({(item["request"]["seed"], item["request"]["prompt"]) for item in items}) == 4


def test_the_queue_cancels(server, look) -> None:
    seen = look(server)
    job = server.submit(*({"prompt": "a slow snail", "num_steps": 900, "seed": seed} for seed in range(40)))
    page = seen.go("#/queue")
    row = page.locator(".queue-row", has_text="a slow snail").first
    expect(row.get_by_role("progressbar")).to_be_visible()
    seen.shot("queue-working")
    row.get_by_role("button", name="Cancel a slow snail").click()
    expect(row.locator(".state")).to_contain_text("Cancelled")
    assert server.job(job["id"])["status"] == "cancelled"
    page.get_by_label("Which jobs").select_option("cancelled")
    expect(page.locator(".queue-row", has_text="a slow snail")).to_have_count(1)
    page.get_by_label("Which jobs").select_option("failed")
    expect(page.locator(".queue-row", has_text="a slow snail")).to_have_count(0)


def test_a_job_is_cancelled_where_it_is_drawn(server, look) -> None:
    page = look(server).go()
    page.get_by_label("Prompt", exact=True).fill("a slow turtle")
    page.get_by_label("Steps", exact=True).fill("900")
    page.get_by_role("button", name="Generate").click()
    count = page.locator("#tabs .count")
    expect(count).to_have_text("1")
    expect(page.locator(".cell.drawing").first).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".state").first).to_contain_text("Cancelled")
    expect(count).to_be_hidden()
    expect(page.locator("#said")).to_contain_text("cancelled")
    page.get_by_role("button", name="Take it off this page").click()
    expect(page.get_by_role("heading", name="Nothing drawn yet")).to_be_visible()
