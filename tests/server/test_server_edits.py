"""Pictures from pictures: OpenAI's and AUTOMATIC1111's clients, a model that can and one that cannot."""

from __future__ import annotations

import io

import httpx2
import numpy as np
import openai
import pytest
import torch
import webuiapi
from PIL import Image

from pictura import TextToImage
from pictures import pixels
from pipelines import pipeline


def noise(size=(32, 32), seed=0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


def png(image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    import diffusers

    folder, pipe = tmp_path_factory.mktemp("model"), pipeline("sd1", 1)
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tiny(server, tmp_path_factory, folder):
    """A server whose default model is a very small Stable Diffusion with random weights."""
    made = type(server)(tmp_path_factory.mktemp("tiny"), "--model", f"tiny={folder}").start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def local(folder):
    """The same model, here; with as many threads as the server has, since sums are ordered by them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield TextToImage.from_preset(str(folder))
    torch.set_num_threads(threads)


@pytest.fixture
def client(tiny):
    with openai.OpenAI(base_url=f"{tiny.url}/v1", api_key="none", max_retries=0) as made:
        yield made


QUICK = {"seed": 3, "num_steps": 4, "strength": 0.6}


@pytest.mark.parametrize("form", ["bytes", "named", "list"])
def test_an_edit(client, local, form):
    image = png(noise())
    sent = {"bytes": image, "named": ("in.png", image, "image/png"), "list": [image]}[form]
    made = client.images.edit(image=sent, prompt="a cat", extra_body=QUICK)
    expected = local.generate("a cat", image=image, **QUICK)
    assert np.array_equal(pixels(made.data[0].b64_json), expected)


def test_a_mask_is_transparent_where_it_is_made_anew(client, local):
    image, ours = png(noise()), np.zeros((32, 32), np.uint8)
    ours[8:20, 4:28] = 255
    theirs = Image.merge("RGBA", [Image.new("L", (32, 32))] * 3 + [Image.fromarray(255 - ours)])
    expected = local.generate("a cat", image=image, mask=ours, **QUICK)
    for mask in (png(theirs), png(Image.fromarray(ours))):
        made = client.images.edit(image=image, mask=mask, prompt="a cat", n=2, size="32x32", extra_body=QUICK)
        assert [item.seed for item in made.data] == [3, 4]
        assert np.array_equal(pixels(made.data[0].b64_json), expected)


def test_nested_options_and_a_stream(client, local):
    image = png(noise())
    body = {"seed": 3, "num_steps": 4, "options": {"strength": 0.6, "guidance_rescale": 0.5}}
    events = list(
        client.images.edit(image=image, prompt="a cat", stream=True, partial_images=2, extra_body=body)
    )
    assert events[-1].type == "image_edit.completed"
    assert {event.type for event in events[:-1]} <= {"image_edit.partial_image"}
    expected = local.generate("a cat", image=image, guidance_rescale=0.5, **QUICK)
    assert np.array_equal(pixels(events[-1].b64_json), expected)


def test_a_variation(client, local):
    image = png(noise())
    with pytest.warns(DeprecationWarning):
        made = client.images.create_variation(image=image, extra_body=QUICK)
    assert np.array_equal(pixels(made.data[0].b64_json), local.generate("", image=image, **QUICK))


def test_an_edit_that_is_sent_again_is_made_once(tiny):
    def form():
        return {"files": {"image": png(noise())}, "data": {"prompt": "again", "num_steps": "2"}}

    ids = []
    for attempt in range(3):
        headers = {"x-stainless-retry-count": str(attempt)}
        answer = tiny.request("POST", "/v1/images/edits", headers=headers, **form())
        ids.append(answer.json()["data"][0]["id"])
    assert len(set(ids)) == 1


def test_what_cannot_be(client, tiny, server):
    image = png(noise())
    for fields, words in [
        ({"image": [image, image]}, "send one"),
        ({"image": b"<html>"}, "no picture"),
        ({"image": image, "mask": b"none"}, "no picture"),
        ({"image": image, "extra_body": {"strength": "much"}}, "strength"),
        ({"image": image, "extra_body": {"num_steps": "2.5"}}, "num_steps"),
    ]:
        with pytest.raises(openai.BadRequestError, match=words):
            client.images.edit(prompt="a cat", **fields)
    for path in ("edits", "variations"):
        answer = tiny.request("POST", f"/v1/images/{path}", json={"prompt": "a"})
        assert answer.status_code == 400 and "multipart" in answer.json()["error"]["message"]
        broken = {"content-type": "multipart/form-data; boundary=x"}
        answer = tiny.request("POST", f"/v1/images/{path}", content=b"--y\r\n", headers=broken)
        assert answer.status_code == 400 and answer.json()["error"]["message"]
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as scenes:
            with pytest.raises(openai.BadRequestError, match="cannot use image"):
                scenes.images.edit(image=image, prompt="a cat")


def test_img2img(tiny, local):
    api = webuiapi.WebUIApi(host="127.0.0.1", port=tiny.port, sampler="Euler", steps=4)
    image, ours = noise(), np.zeros((32, 32), np.uint8)
    ours[8:20, 4:28] = 255
    more = {
        "prompt": "a cat",
        "seed": 3,
        "width": 32,
        "height": 32,
        "denoising_strength": 0.6,
        "cfg_scale": 3.0,
    }
    made = api.img2img(images=[image], **more)
    common = {"seed": 3, "num_steps": 4, "strength": 0.6, "guidance_scale": 3.0, "sampler": "euler"}
    assert np.array_equal(made.image, local.generate("a cat", image=image, size="32x32", **common))
    assert made.info["denoising_strength"] == 0.6 and "init_images" not in made.parameters
    masked = api.img2img(
        images=[image], mask_image=Image.fromarray(255 - ours), inpainting_mask_invert=1, **more
    )
    expected = local.generate("a cat", image=image, mask=ours, size="32x32", **common)
    assert np.array_equal(masked.image, expected)
    stretched = api.img2img(images=[noise((48, 16))], **more)
    assert stretched.image.size == (32, 32)
    api.session.close()


def test_image_to_image_of_hugging_face(tiny, local, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    image = png(noise())
    with huggingface_hub.InferenceClient(base_url=f"{tiny.url}/models/tiny") as client:
        made = client.image_to_image(image, prompt="a cat", num_inference_steps=4, seed=3, strength=0.6)
    assert np.array_equal(made.convert("RGB"), local.generate("a cat", image=image, **QUICK))
    broken = {"inputs": "no picture", "parameters": {"prompt": "a cat"}}
    assert tiny.request("POST", "/", json=broken).status_code == 400


def test_sizes_that_the_model_refuses(tiny):
    answer = httpx2.post(
        f"{tiny.url}/sdapi/v1/txt2img", json={"prompt": "a", "width": 33, "height": 32}, timeout=60
    )
    assert answer.status_code == 400 and answer.json()["error"] == "ParameterError"
