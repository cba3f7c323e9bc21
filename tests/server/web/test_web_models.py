"""A model with options, pictures and LoRA files of its own: its form is built from what it declares."""

from __future__ import annotations

import io

import pytest
import torch
from PIL import Image
from playwright.sync_api import expect
from safetensors.torch import save_file

from pipelines import family_of, pipeline

pytestmark = pytest.mark.slow  # a model of another family, read by this process and by a worker


@pytest.fixture(scope="module")
def studio(server, tmp_path_factory):
    """A server with a small Stable Diffusion and a LoRA file for it."""
    folder = tmp_path_factory.mktemp("studio")
    pipe = pipeline("sd1", 3)
    pipe.save_pretrained(folder / "sd")
    unet = family_of(pipe, "sd1").parts["unet"]
    name = next(name for name, layer in unet.named_modules() if isinstance(layer, torch.nn.Linear))
    out, inside = unet.get_submodule(name).weight.shape
    pair = {"lora_A": torch.ones(2, inside) / 10, "lora_B": torch.ones(out, 2) / 10}
    (folder / "loras").mkdir()
    tensors = {f"unet.{name}.{part}.weight": tensor for part, tensor in pair.items()}
    save_file(tensors, folder / "loras" / "style.safetensors")
    cache = {"PICTURA_CACHE": str(folder / "cache")}
    options = ("--model", f"sketch={folder / 'sd'}", "--loras", str(folder / "loras"))
    made = type(server)(folder / "home", *options, **cache).start()
    yield made
    made.stop()


def test_lora_and_a_picture_to_start_from(studio, look, tmp_path) -> None:
    seen = look(studio)
    page = seen.go()
    expect(page.get_by_label("Model", exact=True)).to_have_value("sketch")
    page.get_by_label("Prompt", exact=True).fill("a red cat")
    page.get_by_role("spinbutton", name="Pictures").fill("1")
    page.get_by_label("Steps", exact=True).fill("4")
    page.get_by_label("Size", exact=True).fill("64x64")
    page.get_by_label("Seed", exact=True).fill("5")
    page.get_by_text("More settings").click()
    page.get_by_label("Add a LoRA").select_option("style.safetensors")
    page.get_by_label("Weight of style.safetensors").fill("0.7")
    Image.effect_noise((64, 64), 80).convert("RGB").save(tmp_path / "start.png")
    page.get_by_label("Image", exact=True).set_input_files(tmp_path / "start.png")
    expect(page.get_by_text("start.png is attached.")).to_be_visible()
    page.get_by_label("Strength", exact=True).fill("0.6")
    page.locator("input.code").first.fill("{")  # what is no JSON is said at once, and not sent
    expect(page.get_by_text("This is no JSON")).to_be_visible()
    page.locator("input.code").first.fill("")
    page.get_by_role("button", name="Generate").click()
    expect(page.locator(".cell.done")).to_have_count(1)
    (image,) = studio.get("/api/images").json()["items"]
    options = image["request"]["options"]
    assert options["lora"][0]["weight"] == 0.7 and options["lora"][0]["name"] == "style.safetensors"
    assert options["strength"] == 0.6 and len(options["image"]["sha256"]) == 64
    assert image["size"] == [64, 64]

    page.locator(".cell-link").click()  # back from the picture: the same form, and the same picture
    page.get_by_role("dialog").get_by_role("button", name="Use settings").click()
    expect(page.get_by_label("Weight of style.safetensors")).to_have_value("0.7")
    expect(page.get_by_text("A picture is attached.")).to_be_visible()
    page.get_by_role("button", name="Generate").click()
    expect(page.locator(".cell.done")).to_have_count(2)
    again = studio.get("/api/images").json()["items"]
    assert again[0]["request"] == again[1]["request"]
    pixels = [Image.open(io.BytesIO(studio.get(item["url"]).content)).tobytes() for item in again]
    assert pixels[0] == pixels[1]

    page.get_by_role("button", name="Take away style.safetensors").click()
    page.get_by_role("button", name="Take away the image").click()
    page.get_by_label("Strength", exact=True).fill("")
    page.get_by_role("button", name="Generate").click()
    expect(page.locator(".cell.done")).to_have_count(3)
    plain = studio.get("/api/images").json()["items"][0]["request"]["options"]
    assert "lora" not in plain and "image" not in plain


def test_sizes_that_the_model_can_draw(studio, look) -> None:
    page = look(studio).go()
    size = page.get_by_label("Size", exact=True)
    expect(page.get_by_text("Multiples of 2.")).to_be_visible()
    suggested = page.locator(f"#{size.get_attribute('list')} option")
    sizes = [option.get_attribute("value").split("x") for option in suggested.all()]
    assert len(sizes) > 4 and all(int(side) % 2 == 0 for pair in sizes for side in pair)
    page.get_by_label("Prompt", exact=True).fill("a cat")
    size.fill("huge")
    page.get_by_role("button", name="Generate").click()
    expect(size).to_be_focused()
    expect(size).to_have_attribute("aria-invalid", "true")
