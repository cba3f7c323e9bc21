"""Gallery: found, opened, rated, gathered, copied, made again."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import zipfile
from urllib.parse import quote

import numpy as np
import pytest
from playwright.sync_api import expect

from pictures import pixels


def test_words_and_filters_find(server, drawn, look) -> None:
    seen = look(server)
    page = seen.go("#/gallery")
    expect(page.locator(".gallery-count")).to_contain_text(" pictures")
    page.keyboard.press("/")
    search = page.get_by_role("searchbox")
    expect(search).to_be_focused()
    search.fill("owl pine")
    expect(page.locator(".gallery-count")).to_have_text("3 pictures")
    expect(page.locator(".tile img")).to_have_count(3)
    assert {image.get_attribute("alt") for image in page.locator(".tile img").all()} == {
        "an owl above a pine tree"
    }
    page.get_by_role("button", name="Filters").click()
    page.get_by_label("Seed").fill("8")
    page.get_by_label("Seed").press("Enter")
    expect(page.locator(".gallery-count")).to_have_text("1 picture")
    expect(page).to_have_url(f"{server.url}/#/gallery?query=owl+pine&seed=8")
    page.reload()  # the address says it all
    expect(page.locator(".gallery-count")).to_have_text("1 picture")
    expect(search).to_have_value("owl pine")
    page.get_by_label("From").fill("2001-01-01")
    page.get_by_label("To").fill("2001-01-02")
    expect(page.get_by_role("heading", name="Nothing found")).to_be_visible()
    seen.shot("gallery-nothing")
    page.get_by_role("button", name="Clear").click()
    expect(page.locator(".tile img").first).to_be_visible()


def test_a_picture_says_what_made_it(server, drawn, look) -> None:
    seen = look(server)
    page = seen.go("#/gallery?query=rocket+yellow&seed=9")
    page.locator(".tile a").click()
    dialog = page.get_by_role("dialog", name="Picture")
    expect(dialog.get_by_role("img", name="a rocket on a yellow background")).to_be_visible()
    facts = dialog.locator(".facts")
    for text in ("scenes", "9", "128x128", "euler", "shift:8"):
        expect(facts).to_contain_text(text)
    page.keyboard.press("4")
    expect(dialog.get_by_role("radio", name="4 stars")).to_be_checked()
    page.get_by_label("Note").fill("good flames")
    page.get_by_label("Note").blur()
    expect(page.get_by_text("Saved.")).to_be_visible()
    dialog.get_by_role("button", name="Make again").click()
    expect(page.get_by_text("Made again: identical, pixel for pixel.")).to_be_visible()
    seen.shot("picture")
    dialog.get_by_role("button", name="Collect").click()
    page.get_by_label("Name", exact=True).fill("rockets")
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("button", name="Take it out of rockets")).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(page.locator(".tile a").first).to_be_focused()  # focus goes back to where it came from
    expect(page.locator(".tile-stars").last).to_have_text("★★★★")
    (image,) = server.get("/api/images", params={"collection": "rockets"}).json()["items"]
    assert (image["stars"], image["note"]) == (4, "good flames")


def test_stars_are_withdrawn_by_mouse_and_by_keys(server, drawn, look, accessible) -> None:
    page = look(server).go("#/gallery?query=rocket+yellow&seed=9")
    page.locator(".tile a").first.click()
    dialog = page.get_by_role("dialog", name="Picture")
    star = {number: dialog.get_by_role("radio", name=f"{number} star") for number in range(1, 6)}
    away = dialog.get_by_role("button", name="Withdraw the stars")
    said = page.locator("#said")
    id = page.url.rpartition("/")[2].partition("?")[0]

    def none_left() -> None:
        expect(said).to_have_text("Stars withdrawn.")
        expect(dialog.get_by_role("radio", checked=True)).to_have_count(0)
        expect(dialog.locator(".star.on")).to_have_count(0)
        expect(away).to_be_hidden()
        assert server.get(f"/api/images/{id}").json()["stars"] is None

    def given(number: int) -> None:
        expect(said).to_have_text(f"{number} star" if number == 1 else f"{number} stars.")
        expect(dialog.locator(".star.on")).to_have_count(number)
        expect(star[number]).to_be_checked()
        assert server.get(f"/api/images/{id}").json()["stars"] == number

    expect(dialog.get_by_role("button", name="Collect")).to_be_visible()  # it has loaded
    page.keyboard.press("2")
    given(2)
    marks = dialog.locator(".star")
    marks.nth(3).click()
    given(4)
    accessible(page)
    marks.nth(3).click()  # the star that is set
    none_left()
    star[2].focus()
    page.keyboard.press("Space")
    given(2)
    page.keyboard.press("ArrowRight")  # among the stars, not to the next picture
    given(3)
    page.keyboard.press("0")
    none_left()
    page.keyboard.press("0")
    expect(said).to_have_text("There are no stars.")
    page.keyboard.press("5")
    given(5)
    away.focus()
    page.keyboard.press("Enter")
    none_left()
    expect(star[1]).to_be_focused()  # not lost with the button
    page.keyboard.press("Escape")
    expect(page.locator(".tile-stars").first).to_have_text("")


def test_a_picture_shows_all_the_collections_it_is_in(server, drawn, look, accessible) -> None:
    id, names = drawn[1]["id"], ("<i>slanted</i>/%2e & more", "another one")
    for name in names:
        place = f"/api/collections/{quote(name, safe='')}/images/{id}"
        assert server.request("PUT", place).status_code == 200
    page = look(server).go(f"#/picture/{id}")
    dialog = page.get_by_role("dialog", name="Picture")
    listed = dialog.get_by_role("list", name="In collections").get_by_role("listitem")
    expect(listed).to_have_text(sorted(names))
    accessible(page)
    dialog.get_by_role("button", name=f"Take it out of {names[0]}").focus()
    page.keyboard.press("Enter")
    expect(listed).to_have_text([names[1]])
    expect(dialog.get_by_role("button", name="Collect")).to_be_focused()
    page.keyboard.press("Enter")
    page.get_by_label("Name", exact=True).fill(names[1])  # it is in there: nothing is shown twice
    page.keyboard.press("Enter")
    expect(page.locator(".toast", has_text=f"Put into “{names[1]}”.")).to_be_visible()
    expect(listed).to_have_text([names[1]])
    page.reload()
    expect(listed).to_have_text([names[1]])
    dialog.get_by_role("button", name=f"Take it out of {names[1]}").click()
    expect(listed).to_have_count(0)
    assert server.get(f"/api/images/{id}").json()["collections"] == []


def test_arrows_go_through_what_was_found(server, drawn, look) -> None:
    page = look(server).go("#/gallery?query=owl+pine")
    tiles = page.locator(".tile a[href]")
    expect(tiles).to_have_count(3)
    ids = [re.sub(".*/", "", tile.get_attribute("href")) for tile in tiles.all()]
    tiles.first.focus()
    page.keyboard.press("ArrowRight")
    expect(tiles.nth(1)).to_be_focused()
    page.keyboard.press("End")
    expect(tiles.nth(2)).to_be_focused()
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Picture")
    expect(dialog).to_be_visible()
    expect(page.get_by_role("button", name="The picture before")).to_be_disabled()
    page.keyboard.press("ArrowRight")
    expect(page).to_have_url(f"{server.url}/#/picture/{ids[1]}")
    page.get_by_role("button", name="The picture after").click()
    expect(page).to_have_url(f"{server.url}/#/picture/{ids[2]}")
    expect(page.get_by_role("button", name="The picture after")).to_be_disabled()
    page.keyboard.press("Escape")
    expect(page).to_have_url(f"{server.url}/#/gallery?query=owl+pine")


@pytest.fixture(scope="module")
def awkward(server):
    """A picture whose request needs care to be written down."""
    prompt = 'it\'s a "cat" $HOME `date` \\ \u202eno\nnew line'
    request = {"prompt": prompt, "seed": 2**40 + 1, "num_steps": 3,
               "guidance_scale": 2.0, "negative_prompt": "a dog's", "sampler": "heun", "schedule": "karras",
               "options": {"guidance_rescale": 0.25}}  # fmt: skip
    return server.ended(server.submit(request)["id"])["images"][0]


def copied(server, look, id: str, name: str) -> str:
    seen = look(server, permissions=["clipboard-read", "clipboard-write"])
    page = seen.go(f"#/picture/{id}")
    page.get_by_role("tab", name=name).click()
    page.get_by_role("button", name="Copy", exact=True).click()
    expect(page.locator("#said")).to_have_text("Copied.")
    return page.evaluate("navigator.clipboard.readText()")


def run(command: list[str], folder) -> None:
    path = [str(folder), *sys.path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path), "PICTURA_HOME": str(folder / "home"),
                                "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}  # fmt: skip
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


def test_the_command_makes_the_same_picture(server, awkward, look, tmp_path) -> None:
    text = copied(server, look, awkward["id"], "Command")
    assert "\u202e" not in text and "\n" not in text
    (tmp_path / "pictura").write_text(
        f"#!{sys.executable}\nimport sys\nfrom pictura.cli import main\nsys.exit(main())\n"
    )
    (tmp_path / "pictura").chmod(0o755)
    run(["bash", "-c", text], tmp_path)
    assert np.array_equal(
        pixels((tmp_path / "picture.png").read_bytes()), pixels(server.get(awkward["url"]).content)
    )


def test_the_python_makes_the_same_picture(server, awkward, look, tmp_path) -> None:
    text = copied(server, look, awkward["id"], "Python")
    assert "\u202e" not in text
    run([sys.executable, "-c", text], tmp_path)
    assert np.array_equal(
        pixels((tmp_path / "picture.png").read_bytes()), pixels(server.get(awkward["url"]).content)
    )


def test_the_curl_makes_the_same_picture(server, awkward, look) -> None:
    text = copied(server, look, awkward["id"], "curl")
    shown = subprocess.run(
        ["bash", "-c", text.replace("curl", "printf '%s\\0'", 1)], capture_output=True, text=True, check=True
    )
    url, *rest = shown.stdout.rstrip("\0").split("\0")
    assert url == f"{server.url}/api/jobs" and rest[:3] == ["-H", "content-type: application/json", "-d"]
    assert shlex.split(text)[0] == "curl"
    answer = server.request(
        "POST", "/api/jobs", content=rest[3].encode(), headers={"content-type": "application/json"}
    )
    again = server.ended(answer.json()["id"])["images"][0]
    assert np.array_equal(
        pixels(server.get(again["url"]).content), pixels(server.get(awkward["url"]).content)
    )


def test_several_are_selected(server, drawn, look, tmp_path) -> None:
    page = look(server).go("#/gallery?query=pizza+blue")
    tiles = page.locator(".tile a[href]")
    expect(tiles).to_have_count(3)
    tiles.first.focus()
    page.keyboard.press("x")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    expect(page.get_by_text("2 selected")).to_be_visible()
    page.get_by_role("button", name="Collect").click()
    page.get_by_label("Name", exact=True).fill("cats")
    page.get_by_role("button", name="Put in").click()
    expect(page.locator(".toast", has_text="2 in “cats”.")).to_be_visible()
    page.get_by_role("button", name="Compare blind").click()
    expect(page.get_by_role("button", name="Left is better")).to_be_visible()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_text("Left was drawn by scenes, right by scenes.")).to_be_visible()
    page.goto(f"{server.url}/#/gallery?collection=cats")
    expect(page.locator(".gallery-count")).to_have_text("2 pictures")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download all found").click()
    download.value.save_as(tmp_path / "all.zip")
    assert (
        len([name for name in zipfile.ZipFile(tmp_path / "all.zip").namelist() if name.endswith(".png")]) == 2
    )


def test_what_is_drawn_meanwhile_waits_above(server, drawn, look) -> None:
    page = look(server).go()
    page.get_by_label("Prompt", exact=True).fill("a dog above a cloud")
    page.get_by_label("Steps", exact=True).fill("30")
    page.get_by_role("button", name="Generate").click()
    page.get_by_role("link", name="Gallery").click()
    first = page.locator(".tile a[href]").first
    expect(first).to_be_visible()
    page.get_by_role("button", name="1 new picture").click()
    expect(page.locator(".tile img").first).to_have_attribute("alt", "a dog above a cloud")
