"""Create: a prompt and its settings become pictures that one sees forming."""

from __future__ import annotations

import io
import json

from PIL import Image
from playwright.sync_api import expect

from pictura import Picture


def filled(page, prompt: str) -> None:
    page.get_by_label("Prompt", exact=True).fill(prompt)


def test_a_prompt_becomes_pictures_step_by_step(server, look, accessible) -> None:
    seen = look(server)
    page = seen.go()
    filled(page, "a cat left of a pizza")
    page.get_by_label("Steps", exact=True).fill("60")
    page.get_by_label("Seed", exact=True).fill("11")
    page.get_by_role("spinbutton", name="Pictures").fill("4")
    page.evaluate(
        """() => { window.steps = new Set(); window.previews = new Set(); window.said = [];
        new MutationObserver(() => {
          for (const note of document.querySelectorAll('.cell-note'))
            if (note.textContent) window.steps.add(note.textContent);
          for (const image of document.querySelectorAll('.cell img'))
            if (image.src.startsWith('data:')) window.previews.add(image.src);
          window.said.push(document.getElementById('said').textContent);
        }).observe(document.body, {subtree: true, childList: true, characterData: true, attributes: true});
        }"""
    )
    page.get_by_role("button", name="Generate").click()
    bar = page.get_by_role("progressbar", name="Progress of a cat left of a pizza")
    expect(bar).to_be_visible()
    seen.shot("create-drawing")
    pictures = page.locator(".cell.done img")
    expect(pictures).to_have_count(4)
    assert [image.get_attribute("alt") for image in pictures.all()] == ["a cat left of a pizza"] * 4
    expect(page.locator(".state").first).to_have_text("Done · 4 of 4")
    steps, previews, said = page.evaluate("[[...window.steps], window.previews.size, window.said]")
    assert len(steps) >= 3 and all(step.endswith(" / 60") for step in steps)
    assert previews >= 2
    assert "4 pictures ready." in said  # a screen reader hears the end, and how far it was before
    assert any(line.endswith("percent drawn.") for line in said)
    accessible(page)
    seen.shot("create-done")
    items = server.get("/api/images", params={"query": "cat pizza", "num_steps": 60}).json()["items"]
    assert sorted(item["request"]["seed"] for item in items) == [11, 12, 13, 14]
    page.locator(".cell-link").first.click()
    expect(page.get_by_role("dialog", name="Picture")).to_be_visible()


def test_every_setting_reaches_the_picture(server, look) -> None:
    page = look(server).go()
    filled(page, "two owls")
    page.get_by_role("spinbutton", name="Pictures").fill("1")
    page.get_by_label("Steps", exact=True).fill("5")
    page.get_by_label("Guidance", exact=True).fill("2.5")
    page.get_by_label("Sampler").select_option("heun")
    page.get_by_label("Seed", exact=True).fill("9223372036854775807")  # beyond what a double holds
    page.get_by_text("More settings").click()
    page.get_by_label("Leave out").fill("a dog")
    page.get_by_label("Schedule").select_option("karras")
    page.get_by_label("Guidance rescale").fill("0.5")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".cell.done")).to_have_count(1)
    (found,) = server.get("/api/images", params={"query": "two owls", "sampler": "heun"}).json()["items"]
    request = found["request"]
    assert request["seed"] == 9223372036854775807
    wanted = {"num_steps": 5, "guidance_scale": 2.5, "schedule": "karras", "negative_prompt": "a dog"}
    assert {name: request[name] for name in wanted} == wanted
    assert request["options"]["guidance_rescale"] == 0.5 and request["model"] == "scenes"
    page.locator(".cell-link").click()
    expect(page.locator(".facts")).to_contain_text("9223372036854775807")
    page.get_by_role("dialog").get_by_role("button", name="Use settings").click()
    assert page.get_by_label("Seed", exact=True).input_value() == "9223372036854775807"


def test_a_model_brings_its_own_form(server, look) -> None:
    page = look(server).go()
    model = page.get_by_label("Model", exact=True)
    expect(model).to_have_value("scenes")
    expect(page.get_by_label("Steps", exact=True)).to_have_attribute("placeholder", "12")
    page.get_by_text("More settings").click()
    page.get_by_label("Leave out").fill("a dog")
    model.select_option("gan-cls")
    load = page.get_by_role("button", name="Load it to see what it can do")
    if load.is_visible():  # another test may have loaded it
        load.click()
    expect(page.get_by_label("Size").locator("option")).to_have_text("64x64")
    expect(page.get_by_label("Steps", exact=True)).to_have_count(0)
    expect(page.get_by_label("Leave out")).to_have_count(0)
    expect(page.get_by_text("gan-cls cannot use what is kept for: Leave out")).to_be_visible()
    filled(page, "a rocket")
    page.get_by_role("button", name="Generate").click()
    expect(page.locator(".cell.done")).to_have_count(1)
    model.select_option("scenes")
    assert page.get_by_label("Leave out").input_value() == "a dog"


def test_what_is_wrong_is_said_where_it_is(server, look) -> None:
    seen = look(server)
    page = seen.go()
    expect(page.get_by_label("Steps", exact=True)).to_be_visible()
    page.get_by_role("button", name="Generate").click()
    prompt = page.get_by_label("Prompt", exact=True)
    expect(prompt).to_be_focused()
    expect(prompt).to_have_attribute("aria-invalid", "true")
    expect(prompt).to_have_accessible_description("Write what you would like to see.")
    filled(page, "a cat")
    page.get_by_label("Steps", exact=True).fill("0")
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_label("Steps", exact=True)).to_be_focused()
    page.get_by_label("Steps", exact=True).fill("12")
    page.get_by_label("Seed", exact=True).fill(
        "9999999999999999999"
    )  # 2^63 and more: only the server refuses it
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_label("Seed", exact=True)).to_be_focused()
    expect(page.locator(".error", has_text="2^63-1").first).to_be_visible()
    assert seen.said.pop().startswith("error: Failed to load resource") and not seen.said  # the browser's own


def test_a_picture_that_cannot_be_drawn_says_why(server, look, accessible) -> None:
    page = look(server).go()
    filled(page, "a cat")
    page.get_by_text("More settings").click()
    page.get_by_label("Leave out").fill("a dog")  # which scenes can do with guidance only
    page.get_by_role("button", name="Generate").click()
    expect(page.locator(".cell.failed")).to_contain_text("give a guidance_scale above 1")
    expect(page.locator("#said")).to_have_text("0 pictures ready, 1 failed.")
    accessible(page)


def test_words_that_the_model_does_not_know_are_told(server, look) -> None:
    page = look(server).go()
    filled(page, "a zeppelin above a castle")
    page.get_by_role("button", name="Generate").click()
    expect(page.locator(".job .notes")).to_contain_text("zeppelin")


def test_what_was_typed_outlives_a_reload(server, look) -> None:
    page = look(server).go()
    filled(page, "a very long thought\nthat goes on")
    page.get_by_label("Guidance", exact=True).fill("3")
    page.reload()
    assert page.get_by_label("Prompt", exact=True).input_value() == "a very long thought\nthat goes on"
    expect(page.get_by_label("Guidance", exact=True)).to_have_value("3")


def dropped(page, name: str, content: bytes) -> None:
    """Drop a file onto the page as a file manager does."""
    transfer = page.evaluate_handle(
        """([name, bytes]) => { const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], name, {type: 'image/png'})); return data; }""",
        [name, list(content)],
    )
    page.dispatch_event("body", "dragenter", {"dataTransfer": transfer})
    expect(page.get_by_text("Drop the picture to use its settings")).to_be_visible()
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})


def test_a_dropped_picture_gives_its_settings_back(server, drawn, look, tmp_path) -> None:
    seen = look(server)
    page = seen.go("#/gallery")
    content = server.get(drawn[5]["url"]).content
    request = Picture.open(write(tmp_path / "a.png", content)).request
    dropped(page, "a.png", content)
    expect(page.get_by_label("Prompt", exact=True)).to_have_value(request.prompt)
    assert page.get_by_label("Seed", exact=True).input_value() == str(request.seed)
    expect(page.get_by_text("The settings of the picture are in the form.").first).to_be_attached()
    page.get_by_role("button", name="Generate").click()
    again = page.locator(".cell.done")
    expect(again).to_have_count(1)
    made = server.get(
        page.locator(".cell.done a").get_attribute("href").replace("#/picture/", "/images/") + ".png"
    )
    assert Image.open(io.BytesIO(made.content)).tobytes() == Image.open(io.BytesIO(content)).tobytes()

    page.locator(".create input[type=file].unseen").set_input_files(tmp_path / "a.png")  # without a mouse
    plain = io.BytesIO()
    Image.new("RGB", (8, 8)).save(plain, "PNG")
    dropped(page, "plain.png", plain.getvalue())
    expect(page.get_by_role("alert").filter(has_text="does not say how it was made")).to_be_visible()


def write(path, content: bytes):
    path.write_bytes(content)
    return path


def test_json_keeps_whole_numbers(server, look) -> None:
    page = look(server).go()
    texts = ['{"seed":9223372036854775807,"x":1.5,"y":[0,-9007199254740993]}', '"\\\\u0001whole:12"', "1e300"]
    for text in texts:
        again = page.evaluate(
            """async (text) => { const {parse, write} = await import('/static/json.js');
            return write(parse(text)); }""",
            text,
        )
        assert json.loads(again) == json.loads(text)
