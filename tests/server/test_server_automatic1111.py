"""webuiapi, a client of AUTOMATIC1111's web interface, and Open WebUI's calls, against a real server."""

from __future__ import annotations

import base64
import io
import json
import threading

import numpy as np
import pytest
import webuiapi
from PIL import Image

from pictura.picture import infotext
from pictures import opened


@pytest.fixture
def api(server):
    made = webuiapi.WebUIApi(host="127.0.0.1", port=server.port, sampler="Euler a", steps=4)
    yield made
    made.session.close()


def pixels(image) -> np.ndarray:
    return np.asarray(image.convert("RGB"))


def post(server, path, body, **headers):
    return server.request("POST", f"/sdapi/v1/{path}", json=body, headers=headers)


def test_what_its_client_sends_when_nobody_chose(api, scenes):
    made = api.txt2img(prompt="a cat", seed=7)
    expected = scenes.generate("a cat", seed=7, num_steps=4, guidance_scale=7.0, sampler="euler_ancestral")
    assert np.array_equal(pixels(made.image), expected)
    info = made.info
    assert (info["width"], info["height"], info["seed"], info["all_seeds"]) == (128, 128, 7, [7])
    assert (info["sampler_name"], info["steps"], info["cfg_scale"]) == ("Euler a", 4, 7.0)
    assert info["sd_model_name"] == "scenes" and info["sd_model_hash"] == expected.model_digest[:10]
    assert info["extra_generation_params"] == {} and info["index_of_first_image"] == 0
    assert made.parameters["prompt"] == "a cat"
    assert made.image.info["parameters"] == info["infotexts"][0]
    assert infotext.to_request(info["infotexts"][0])[0].seed == 7


def test_every_parameter_of_its_client(api, scenes):
    made = api.txt2img(
        prompt="a cat", negative_prompt="a dog", seed=3, cfg_scale=2.5, steps=5, width=128, height=128,
        sampler_name="DPM++ 2M", scheduler="karras", batch_size=2, n_iter=2,
    )  # fmt: skip
    expected = scenes.generate(
        "a cat", negative_prompts="a dog", seed=3, guidance_scale=2.5, num_steps=5, sampler="dpmpp_2m",
        schedule="karras", num_images=4,
    )  # fmt: skip
    assert np.array_equal([pixels(image) for image in made.images], np.asarray(expected))
    assert made.info["all_seeds"] == [3, 4, 5, 6] and made.info["negative_prompt"] == "a dog"


@pytest.mark.parametrize(
    ("fields", "sampler", "schedule"),
    [
        ({"sampler_name": "DPM++ 2M Karras"}, "dpmpp_2m", "karras"),
        ({"sampler_index": "heun"}, "heun", None),
        ({"sampler_name": "euler_ancestral", "scheduler": "Automatic"}, "euler_ancestral", None),
        ({"scheduler": "Exponential"}, None, "exponential"),
        ({"sampler_name": None, "scheduler": None}, None, None),
    ],
)
def test_names_of_samplers(server, fields, sampler, schedule):
    answer = post(server, "txt2img", {"prompt": "a cat", "steps": 1, "seed": None, **fields})
    assert answer.status_code == 200, answer.text
    said = infotext.to_request(json.loads(answer.json()["info"])["infotexts"][0])[0]
    assert said.sampler == (sampler or said.sampler) and said.schedule == (schedule or said.schedule)
    assert float(answer.headers["x-process-time"]) > 0


def test_random_seeds_are_told(api):
    seeds = {api.txt2img(prompt="a cat", steps=1).info["seed"] for _ in range(2)}
    assert len(seeds) == 2 and all(0 <= seed < 2**32 for seed in seeds)


def test_what_the_client_need_not_see(server):
    body = {"prompt": "a cat", "steps": 1, "send_images": False, "batch_size": 2.0}
    answer = post(server, "txt2img", body).json()
    assert answer["images"] == [] and len(json.loads(answer["info"])["all_seeds"]) == 2


def test_progress_with_previews_and_interrupting(api, server):
    made = []

    def ask():
        made.append(api.txt2img(prompt="a slow cat", steps=400, n_iter=3))

    idle = api.get_progress()
    assert idle["progress"] == 0 and idle["state"]["job_count"] == 0 and idle["current_image"] is None
    thread = threading.Thread(target=ask)
    thread.start()
    other = webuiapi.WebUIApi(host="127.0.0.1", port=server.port)
    shown = server.until(lambda: (found := other.get_progress())["current_image"] and found)
    assert 0 < shown["progress"] < 1 and shown["eta_relative"] > 0
    assert shown["state"]["job_count"] == 3 and shown["state"]["sampling_steps"] == 400
    assert opened(shown["current_image"]).size == (128, 128)
    assert other.interrupt() == {}
    thread.join(30)
    assert len(made[0].images) < 3
    assert other.get_progress()["progress"] == 0
    assert other.skip() is None
    other.session.close()


def test_lists(api):
    assert api.util_get_model_names()[0] == "scenes" or "scenes" in api.util_get_model_names()
    assert {"Euler a", "DPM++ 2M", "DDIM"} <= set(api.util_get_sampler_names())
    assert {"karras", "automatic"} <= set(api.util_get_scheduler_names())
    assert any(style["prompt"] for style in api.get_prompt_styles())
    assert api.get_memory()["ram"]["used"] > 0
    assert api.get_cmd_flags()["api"] is True and api.get_scripts()["txt2img"] == []
    for name in ("sd_vae", "loras", "upscalers", "hypernetworks", "face_restorers", "latent_upscale_modes"):
        assert isinstance(getattr(api, f"get_{name}")(), list)
    assert api.get_embeddings() == {"loaded": {}, "skipped": {}} and api.refresh_checkpoints() is None


def test_reading_a_picture(api, scenes):
    image = scenes.generate(
        "a cat, two stars", negative_prompts="a dog", seed=5, num_steps=2, guidance_scale=3
    )
    found = api.png_info(Image.open(io.BytesIO(image.to_bytes())))
    assert found.info.startswith("a cat, two stars\nNegative prompt: a dog\nSteps: 2, ")
    sent = {"image": f"data:image/png;base64,{base64.b64encode(image.to_bytes()).decode()}"}
    parameters = api.session.post(f"{api.baseurl}/png-info", json=sent).json()["parameters"]
    assert (parameters["Prompt"], parameters["Seed"], parameters["Size-1"]) == (
        "a cat, two stars",
        "5",
        "128",
    )
    plain = api.png_info(Image.new("RGB", (8, 8)))
    assert plain.info == ""


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("txt2img", {"sampler_name": "Magic"}, 404, "Sampler not found"),
        ("txt2img", {"scheduler": "Magic"}, 404, "Scheduler not found"),
        ("txt2img", {"width": 96, "height": 96}, 400, "128x128"),
        ("txt2img", {"steps": 0}, 400, "num_steps"),
        ("txt2img", {"steps": "many"}, 400, "steps"),
        ("txt2img", {"script_name": "x/y plot"}, 400, "script"),
        ("txt2img", {"batch_size": 100, "n_iter": 100}, 400, "1 to 100"),
        ("txt2img", {"override_settings": {"sd_model_checkpoint": "nothing"}}, 400, "scenes"),
        ("txt2img", {"prompt": 3}, 400, "prompt"),
        ("img2img", {}, 400, "Init image"),
        ("img2img", {"init_images": ["http://127.0.0.1/secret.png"]}, 400, "encoded image"),
        ("img2img", {"init_images": ["aGVsbG8="]}, 400, "no picture"),
        ("png-info", {"image": "???"}, 400, "encoded image"),
        ("options", {"sd_model_checkpoint": "nothing"}, 400, "scenes"),
        ("options", [], 400, "object"),
    ],
)
def test_errors(server, path, body, status, words):
    answer = post(server, path, body)
    assert answer.status_code == status and words in answer.json()["detail"]
    assert set(answer.json()) == {"error", "detail", "body", "errors"}
    assert "x-process-time" in answer.headers


def test_a_picture_that_the_model_cannot_start_from(api):
    with pytest.raises(RuntimeError, match="cannot use image"):
        api.img2img(images=[Image.new("RGB", (128, 128))], prompt="a cat")


def test_each_key_has_a_model_of_its_own(own_server, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("first-key\nsecond-key\n")
    server = own_server("--api-key-file", str(keys), "--model", "scenes", "--model", "other=scenes").start(
        ready=False
    )
    assert server.get("/sdapi/v1/options").status_code == 401
    made = []
    for key in ("first-key", "second-key"):
        made.append(webuiapi.WebUIApi(host="127.0.0.1", port=server.port, steps=1))
        made[-1].set_auth("anybody", key)
    first, second = made
    first.util_set_model("other")
    assert first.util_get_current_model() == "other"
    assert first.txt2img(prompt="a cat").info["sd_model_name"] == "other"
    assert second.util_get_current_model() == "scenes"
    assert second.txt2img(prompt="a cat").info["sd_model_name"] == "scenes"
    for one in made:
        one.session.close()


def test_open_webui(server, scenes):
    """Its calls, one after the other, as its source makes them (0.12.4)."""
    empty = {"authorization": ""}
    assert server.get("/sdapi/v1/options", headers=empty).status_code == 200
    options = server.get("/sdapi/v1/options", headers=empty).json()
    models = server.get("/sdapi/v1/sd-models", headers=empty).json()
    assert {"title", "model_name"} <= set(models[0])
    options["sd_model_checkpoint"] = models[0]["title"]
    assert post(server, "options", options, **empty).json() is None
    body = {
        "prompt": "a cat", "batch_size": 1, "width": 512, "height": 512, "steps": 3,
        "negative_prompt": "a dog", "cfg_scale": 2, "seed": 7,
    }  # fmt: skip
    answer = post(server, "txt2img", body, **empty).json()
    (image,) = answer["images"]
    expected = scenes.generate("a cat", seed=7, num_steps=3, negative_prompts="a dog", guidance_scale=2)
    assert np.array_equal(pixels(opened(image)), expected)
    assert json.loads(answer["info"])["seed"] == 7
    headers = {"authorization": "Bearer none"}
    body = {"model": "scenes", "prompt": "a cat", "n": 1, "size": "128x128", "response_format": "b64_json"}
    body |= {"seed": 7, "num_steps": 3, "negative_prompt": "a dog", "guidance_scale": 2}
    answer = server.request("POST", "/v1/images/generations?api-version=", json=body, headers=headers).json()
    assert "url" not in answer["data"][0]
    image = opened(answer["data"][0]["b64_json"])
    assert np.array_equal(pixels(image), expected)
