"""Models of a real server: named, loaded on demand, kept by the memory they take, far away, or broken."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from PIL import Image

from pictura import TextToImage

RED = {"prompt": "red", "seed": 5}


@pytest.fixture
def toys(tmp_path):
    """Two models of other widths, in folders."""
    made = {}
    for name, width in (("small", 8), ("wide", 64)):
        model = TextToImage.from_preset("toy", load_weights=False, width=width)
        model.save_to_preset(tmp_path / name)
        made[name] = tmp_path / name
    return made


def states(server):
    return {item["name"]: item["state"] for item in server.get("/api/models").json()["items"]}


def pixels(server, done):
    assert done["status"] == "done", done
    return [np.asarray(Image.open(io.BytesIO(server.get(image["url"]).content))) for image in done["images"]]


def test_loaded_on_demand_named_and_listed(own_server, toys):
    server = own_server("--model", f"small={toys['small']}", "--model", f"wide={toys['wide']}").start()
    assert states(server)["small"] == "ready" and states(server)["wide"] == "unloaded"
    done = server.ended(server.submit({**RED, "model": "wide"}, {**RED, "model": "small"}, RED)["id"])
    wide, small, default = pixels(server, done)
    assert np.array_equal(wide, TextToImage.from_preset(toys["wide"]).generate(**_call(RED)))
    assert np.array_equal(small, TextToImage.from_preset(toys["small"]).generate(**_call(RED)))
    assert np.array_equal(small, default) and not np.array_equal(small, wide)
    assert states(server)["wide"] == "ready"
    kept = server.get("/api/images", params={"model": "wide"}).json()["items"]
    assert [item["request"]["model"] for item in kept] == ["wide"]


@pytest.mark.slow
def test_idle_models_make_room(own_server, toys):
    """With room for nothing, the model that is not needed leaves, and comes back when it is."""
    arguments = ["--model", f"small={toys['small']}", "--model", f"wide={toys['wide']}", "--memory", "0.1"]
    server = own_server(*arguments).start()
    for name, other in (("wide", "small"), ("small", "wide"), ("wide", "small")):
        assert server.ended(server.submit({**RED, "model": name})["id"])["status"] == "done"
        server.until(lambda name=name, other=other: states(server)[name] == "ready"
                     and states(server)[other] == "unloaded")  # fmt: skip


def test_preloading(own_server, toys):
    server = own_server("--model", f"small={toys['small']}", "--model", f"wide={toys['wide']}").start()
    assert server.request("POST", "/api/models/wide/load").status_code == 202
    server.until(lambda: states(server)["wide"] == "ready")


def test_a_model_that_cannot_be_loaded_fails_its_tasks_with_words(own_server, toys):
    weights = toys["wide"] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    server = own_server("--model", f"small={toys['small']}", "--model", f"wide={toys['wide']}").start()
    done = server.ended(server.submit({**RED, "model": "wide"})["id"])
    assert done["status"] == "failed" and done["failures"][0]["kind"] == "CheckpointError"
    assert server.ended(server.submit(RED)["id"])["status"] == "done", "the other model is not concerned"


@pytest.mark.slow
def test_servers_of_one_history_may_offer_different_models(own_server, toys, tmp_path):
    """One that does not offer what a job asks for leaves it to others, and ends it where there are none."""
    small, wide = (own_server("--model", f"{n}={toys[n]}", folder=tmp_path / "both") for n in toys)
    small.start(ready=False)
    job = small.submit({**RED, "model": "small"})
    small.kill()  # before its worker was there
    wide.start()
    time.sleep(1)
    assert wide.job(job["id"])["status"] == "queued"
    small.start()
    assert wide.ended(job["id"])["status"] == "done"
    small.stop()
    small.start(ready=False)
    job = small.submit({**RED, "model": "small"})
    small.kill()
    (failure,) = wide.ended(job["id"])["failures"]
    assert "'small' is not offered here" in failure["error"]


def test_a_model_that_is_far_away(own_server, server, scenes, tmp_path):
    """A server may offer another server's model: previews and pictures come through."""
    far = f"far=pictura+{server.url}#scenes"
    near = own_server("--model", far, folder=tmp_path / "near").start()
    job = near.submit({"prompt": "a cat above a star", "seed": 9, "num_steps": 25})
    done = near.ended(job["id"])
    (made,) = pixels(near, done)
    assert np.array_equal(made, scenes.generate("a cat above a star", seed=9, num_steps=25))


def _call(request):
    return {"inputs": request["prompt"], **{k: v for k, v in request.items() if k != "prompt"}}
