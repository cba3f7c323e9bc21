"""ControlNets, T2I- and IP-Adapters that a server offers: pixels as in Python, and nobody names a path."""

from __future__ import annotations

import base64
import io
import json
import random
import zipfile
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from pictura import TextToImage
from pictura.history import History
from pictura.history.replaying import replay
from pictura.picture import Picture
from steering import original

PROMPT = "a red cat on a tree"
SAID = {"num_steps": 3, "seed": 3, "size": (48, 32), "guidance_scale": 3.0, "sampler": "euler"}
CALL = {"prompt": PROMPT, "steps": 3, "seed": 3, "width": 48, "height": 32, "cfg_scale": 3.0}
LONG = "a folder of the owner's " * 3
NAMES = {
    "control": ["broken", "canny.safetensors", "edges", "kinds/depth", "more.safetensors", "xl"],
    "reference": ["face.safetensors", "style.safetensors"],
}


def drawing(seed, size=(48, 32)):
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values)


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def base(image):
    return base64.b64encode(png(image)).decode()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """model: a small Stable Diffusion; adapters: what its owner offers; elsewhere: what is not offered."""
    import diffusers
    from safetensors.torch import save_file

    from pipelines import pipeline, redrawn
    from steering import control, ip_adapter

    place = tmp_path_factory.mktemp("adapters")
    adapters = place / "adapters"
    pipe = pipeline("sd1", 1)
    pipe.save_pretrained(place / "model")
    edges = control(pipe, adapters / "edges", 0)
    save_file(original(edges), adapters / "canny.safetensors")
    control(pipe, place / "elsewhere", 1)
    control(pipeline("sdxl", 1), adapters / "xl", 0)
    widths = list(pipe.unet.config.block_out_channels)
    depth = diffusers.T2IAdapter(channels=widths, num_res_blocks=1, downscale_factor=2)
    redrawn(depth, random.Random(1)).save_pretrained(adapters / "kinds" / "depth")
    ip_adapter(pipe, adapters, random.Random(1), pipe.unet.config.cross_attention_dim)
    (adapters / "notes.txt").write_text("of the owner")
    (adapters / "half.safetensors").write_bytes((adapters / "canny.safetensors").read_bytes()[:-9])
    ink(pipe, place / "loras" / "styles")
    wrong(place, edges)
    return place


def wrong(place, edges):
    """Files that are offered, and cannot be used."""
    import shutil

    import torch
    from safetensors.torch import save_file

    adapters, loras, one = place / "adapters", place / "loras", torch.ones(2, 2)
    save_file({**original(edges), "more": one}, adapters / "more.safetensors")
    save_file({"image_proj.perceiver_resampler.proj_in.weight": one}, adapters / "face.safetensors")
    shutil.copytree(adapters / "edges", adapters / "broken")
    weights = next((adapters / "broken").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-9])
    names = [f"transformer.single_transformer_blocks.0.attn.to_q.lora_{part}.weight" for part in "AB"]
    save_file({name: one.clone() for name in names}, loras / "styles" / "other.safetensors")
    (loras / LONG).mkdir()
    (loras / LONG / "cut.safetensors").write_bytes((loras / "styles" / "ink.safetensors").read_bytes()[:-9])


def ink(pipe, folder):
    """A LoRA for one layer."""
    import torch
    from safetensors.torch import save_file

    name, layer = next((n, m) for n, m in pipe.unet.named_modules() if n.endswith("attn1.to_q"))
    down, up = torch.randn(2, layer.in_features), torch.randn(layer.out_features, 2)
    folder.mkdir(parents=True)
    tensors = {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}
    save_file(tensors, folder / "ink.safetensors")


@pytest.fixture(scope="module")
def offering(place):
    from serving import Server

    arguments = ["--model", f"small={place / 'model'}", "--adapters", str(place / "adapters")]
    arguments += ["--loras", str(place / "loras")]
    server = Server(place / "home", *arguments, PICTURA_CACHE=str(place / "cache")).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def model(place):
    return TextToImage.from_preset(place / "model", history=False)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PICTURA_CACHE", str(tmp_path / "here"))


def sent(server, image):
    return server.request("POST", "/api/attachments", content=png(image)).json()


def drawn(server, options):
    job = server.submit({"prompt": PROMPT, **SAID, "size": "48x32", "model": "small", "options": options})
    done = server.ended(job["id"])
    assert done["status"] == "done", done["failures"]
    return done["images"][0]["id"]


def pixels(server, id):
    return np.asarray(Image.open(io.BytesIO(server.get(f"/images/{id}.png").content)))


def test_what_is_offered(offering, server):
    assert offering.get("/api/adapters").json() == NAMES
    listed = offering.get("/controlnet/model_list", params={"update": "true"}).json()["model_list"]
    assert listed == NAMES["control"] + NAMES["reference"]
    assert offering.get("/controlnet/module_list").json()["module_list"] == ["none"]
    assert offering.get("/sdapi/v1/scripts").json()["txt2img"] == ["controlnet"]
    assert server.get("/api/adapters").json() == {"control": [], "reference": []}  # another server
    assert server.get("/controlnet/model_list").json() == {"model_list": []}


def test_native_requests_give_the_pixels_of_python(offering, model, place):
    hint, other, style = drawing(1), drawing(2), drawing(4)
    folder = place / "adapters"
    here = model.generate(
        PROMPT, **SAID,
        control=[
            {"model": str(folder / "edges"), "image": hint, "weight": 0.8},
            {"model": str(folder / "kinds" / "depth"), "image": other, "start": 0.25, "end": 0.75},
        ],
        reference={"model": str(folder / "style.safetensors"), "image": style, "weight": 0.6},
    )  # fmt: skip
    assert not np.array_equal(here, model.generate(PROMPT, **SAID)), "the adapters change nothing"
    id = drawn(
        offering,
        {
            "control": [
                {"name": "edges", "image": sent(offering, hint), "weight": 0.8},
                {"name": "kinds/depth", "image": sent(offering, other), "start": 0.25, "end": 0.75},
            ],
            "reference": {"name": "style.safetensors", "image": sent(offering, style), "weight": 0.6},
        },
    )
    assert np.array_equal(pixels(offering, id), here)
    told = offering.get(f"/api/images/{id}").json()
    shown = told["request"]["options"]
    assert [one["name"] for one in shown["control"]] == ["edges", "kinds/depth"]
    assert shown["reference"]["name"] == "style.safetensors" and "model" not in shown["reference"]
    assert str(place) not in json.dumps([told, offering.get(f"/api/jobs/{told['job']}").json()])
    again = offering.request("POST", f"/api/images/{id}/replay").json()
    assert again["identical"] is True, again
    assert np.array_equal(pixels(offering, drawn(offering, shown)), here)  # what was told can be asked again


def test_a_single_file_is_the_folder(offering):
    image = sent(offering, drawing(1))
    one, other = (
        drawn(offering, {"control": [{"name": n, "image": image}]}) for n in ("edges", "canny.safetensors")
    )
    assert np.array_equal(pixels(offering, one), pixels(offering, other))


def test_what_goes_out_says_no_place_of_the_server(offering, model, place):
    lora = {"name": "styles/ink.safetensors", "weight": 0.5}
    options = {"control": [{"name": "kinds/depth", "image": sent(offering, drawing(1))}], "lora": [lora]}
    id = drawn(offering, options)
    here = model.generate(
        PROMPT, **SAID,
        control=[{"model": str(place / "adapters" / "kinds" / "depth"), "image": drawing(1)}],
        lora=[{"path": str(place / "loras" / "styles" / "ink.safetensors"), "weight": 0.5}],
    )  # fmt: skip
    assert np.array_equal(pixels(offering, id), here)
    file = offering.get(f"/images/{id}.png").content
    said = Picture.open(io.BytesIO(file)).request.options
    assert said["control"][0]["name"] == "kinds/depth" and said["lora"][0]["weight"] == 0.5
    job = offering.get(f"/api/images/{id}").json()["job"]
    told = [
        offering.get(f"/api/images/{id}").content, offering.get(f"/api/jobs/{job}").content,
        offering.get("/api/images").content, offering.request("POST", "/api/inspect", content=file).content,
        *(str(Image.open(io.BytesIO(file)).text[name]).encode() for name in ("pictura", "parameters")),
        *(offering.get(f"/images/{id}.{kind}").content for kind in ("jpeg", "webp")),
        zipped(offering.get("/api/export", params={"job": job}).content),
        answered(offering, unit()).content,
    ]  # fmt: skip
    for content in told:
        assert str(place).encode() not in content and len(content) > 100
    assert offering.request("POST", f"/api/images/{id}/replay").json()["identical"] is True


def zipped(content):
    return zipfile.ZipFile(io.BytesIO(content)).read("metadata.jsonl")


def test_the_history_makes_them_again_here(offering, model, place):
    options = {"control": [{"name": "edges", "image": sent(offering, drawing(2))}]}
    id = drawn(offering, options)
    with History(folder=place / "home") as history, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PICTURA_CACHE", str(place / "cache"))
        entry = history.get(id)
        assert entry.request.options["control"][0]["model"] == str(place / "adapters" / "edges")
        found = replay(entry, lambda then: model.generate(then.request.amended(model=None)))
    assert found.identical, found.differences


def test_our_own_provider_names_them_too(offering, model, place):
    hint = drawing(1)
    here = model.generate(PROMPT, **SAID, control=[{"model": str(place / "adapters/edges"), "image": hint}])
    remote = TextToImage.from_preset(f"{offering.url}#small", api="pictura", history=False)
    there = remote.generate(PROMPT, **SAID, control=[{"name": "edges", "image": hint}])
    assert isinstance(there, Picture) and np.array_equal(there, here)


def test_nobody_names_a_path(offering, place):
    image = sent(offering, drawing(1))
    for adapter in (
        {"model": str(place / "elsewhere")}, {"model": str(place / "adapters" / "edges")},
        {"name": str(place / "elsewhere")}, {"name": "../elsewhere"}, {"name": "edges/../../elsewhere"},
        {"name": ["edges"]}, {"name": "notes.txt"}, {"name": "image_encoder"}, {"name": "style.safetensors"},
        {"name": "edges", "model": str(place / "elsewhere")}, {"model": "hf://org/name"},
        {"name": "edges", "encoder": "/"}, {"path": str(place / "elsewhere")}, {"x": [{"model": "/"}]},
    ):  # fmt: skip
        for control in ([{**adapter, "image": image}], {**adapter, "image": image}, [[{**adapter}]]):
            request = {"prompt": "a", "model": "small", "num_steps": 1, "options": {"control": control}}
            answer = offering.request("POST", "/api/jobs", json={"requests": [request]})
            if answer.status_code == 202:  # what no entry of a list can be is refused by the family
                done = offering.ended(answer.json()["id"])
                assert isinstance(control, list) and isinstance(control[0], list), control
                assert done["status"] == "failed" and "; give {" in done["failures"][0]["error"]
            else:
                assert answer.status_code == 400, (control, answer.text)
    for options in (
        {"control": [str(place / "elsewhere")]}, {"control": str(place / "elsewhere")},
        {"reference": str(place / "adapters" / "style.safetensors")}, {"reference": [{"name": "edges"}]},
        {"reference": {"name": "style.safetensors", "encoder": str(place), "image": image}},
        {"control": [{"name": "edges", "image": image}] * 9},
        {"control": [{"name": "edges", "image": str(place / "home")}]},
    ):  # fmt: skip
        request = {"prompt": "a", "model": "small", "num_steps": 1, "options": options}
        answer = offering.request("POST", "/api/jobs", json={"requests": [request]})
        if answer.status_code == 202:
            assert offering.ended(answer.json()["id"])["status"] == "failed", options
        else:
            assert answer.status_code == 400, (options, answer.text)
    told = offering.request(
        "POST", "/api/jobs",
        json={"requests": [{"prompt": "a", "options": {"control": [{"name": "edgse", "image": image}]}}]},
    )  # fmt: skip
    assert "did you mean 'edges'" in told.json()["error"]["message"]


def unit(**said):
    return {"model": "edges", "image": base(drawing(1))} | said


def answered(server, *units, path="txt2img", **more):
    scripts = {"ControlNet": {"args": list(units)}}
    body = {**CALL, "sampler_name": "Euler", "alwayson_scripts": scripts}
    body |= {"override_settings": {"sd_model_checkpoint": "small"}, **more}
    return server.request("POST", f"/sdapi/v1/{path}", json=body)


def first(answer):
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(answer.json()["images"][0]))))


def test_units_of_automatic1111s_extension(offering, model, place):
    folder = place / "adapters"
    edges, style = str(folder / "edges"), str(folder / "style.safetensors")
    entry = {"model": edges, "image": drawing(1), "weight": 0.7, "start": 0.2, "end": 0.9}
    here = np.asarray(model.generate(PROMPT, **SAID, control=[entry]))
    usual = {"weight": 0.7, "guidance_start": 0.2, "guidance_end": 0.9, "module": "none"}
    for one in (
        unit(**usual, resize_mode="Resize and Fill", control_mode="Balanced", enabled=True, mask=None),
        unit(**usual, model="edges [d14c016b]", image={"image": base(drawing(1))}, pixel_perfect=True),
        {"model": "edges", "input_image": "data:image/png;base64," + base(drawing(1)), **usual},
    ):
        assert np.array_equal(first(answered(offering, one)), here)
    plain = np.asarray(model.generate(PROMPT, **SAID))
    assert np.array_equal(first(answered(offering)), plain)
    assert np.array_equal(first(answered(offering, {"enabled": False, "model": "None"})), plain)
    both = model.generate(
        PROMPT, **SAID, control=[{"model": edges, "image": drawing(1)}],
        reference={"model": style, "image": drawing(4), "weight": 0.6},
    )  # fmt: skip
    ip = {"model": "style.safetensors", "image": base(drawing(4)), "weight": 0.6, "module": "ip-adapter-auto"}
    assert np.array_equal(first(answered(offering, unit(), ip)), both)
    # Pictures of another shape are cropped, as the extension does unless told otherwise, or stretched.
    wide = drawing(5, (96, 32))
    for mode, used in ((None, wide.crop((24, 0, 72, 32))), ("Just Resize", wide)):
        expected = model.generate(PROMPT, **SAID, control=[{"model": edges, "image": used}])
        given = unit(image=base(wide)) | ({} if mode is None else {"resize_mode": mode})
        assert np.array_equal(first(answered(offering, given)), expected), mode


def test_a_unit_without_a_picture_has_the_one_that_is_begun_with(offering, model, place):
    start, edges = drawing(7), str(place / "adapters" / "edges")
    here = model.generate(
        PROMPT, **SAID, image=start, strength=0.6, control=[{"model": edges, "image": start}]
    )
    said = {"init_images": [base(start)], "denoising_strength": 0.6}
    assert np.array_equal(first(answered(offering, {"model": "edges"}, path="img2img", **said)), here)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"model": "nothing"}, "not offered"), ({"model": "None"}, "not offered"),
        ({"module": "canny"}, "preprocessors"), ({"control_mode": 1}, "control_mode"),
        ({"mask": "abc"}, "mask"), ({"image": None}, "no image"), ({"image": "http://x/y.png"}, "image"),
        ({"weight": "much"}, "weight"), ({"resize_mode": 2, "image": "wide"}, "48:32"),
        ({"enabled": 3}, "enabled"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)  # fmt: skip
def test_what_a_unit_cannot_have_is_refused(offering, said, reason):
    if said.get("image") == "wide":
        said = {**said, "image": base(drawing(5, (96, 32)))}
    answer = answered(offering, unit(**said))
    assert 400 <= answer.status_code < 500 and reason in answer.json()["detail"], answer.text


def test_other_scripts_and_wrong_shapes_are_refused(offering, server):
    for scripts in (
        {"ADetailer": {"args": [True]}}, {"controlnet": {"args": "x"}}, {"controlnet": []},
        {"controlnet": {"args": [1]}}, [1], "x",
    ):  # fmt: skip
        answer = offering.request("POST", "/sdapi/v1/txt2img", json={**CALL, "alwayson_scripts": scripts})
        assert answer.status_code == 400, (scripts, answer.text)
    assert "not offered" in answered(server, unit(), override_settings={}).json()["detail"]


def test_an_adapter_of_another_model_is_refused(offering):
    answer = answered(offering, unit(model="xl"))
    assert answer.status_code == 422 and "control 'xl' is for another model" in answer.json()["detail"]


def test_errors_say_no_place_of_the_server(offering, place):
    """A file that does not fit, one that is cut, one whose folder's name is too long to be shown."""
    image = sent(offering, drawing(1))
    for options, kind, said in (
        ({"lora": [{"name": "styles/other.safetensors"}]}, "OtherModel", "lora 'other.safetensors' is no"),
        ({"lora": [{"name": f"{LONG}/cut.safetensors"}]}, "CheckpointError", "not a sound safetensors file"),
        ({"lora": [{"name": f"{LONG}/cut.safetensors", "sha256": "0" * 64}]}, "ParameterError", "cut.safet"),
        ({"control": [{"name": "xl", "image": image}]}, "OtherModel", "control 'xl' is for another model"),
        ({"control": [{"name": "more.safetensors", "image": image}]}, "CheckpointError", "'more' in 'more."),
        ({"reference": {"name": "face.safetensors", "image": image}}, "CheckpointError", "no IP-Adapter"),
        ({"control": [{"name": "broken", "image": image}]}, "CheckpointError", "'broken/diffusion_pyt"),
    ):  # fmt: skip
        request = {"prompt": "a", "model": "small", "num_steps": 1, "options": options}
        answer = offering.request("POST", "/api/jobs", json={"requests": [request]})
        assert answer.status_code == 202, answer.text
        done = offering.ended(answer.json()["id"])
        (failure,) = done["failures"]
        assert failure["kind"] == kind and said in failure["error"], failure
        assert str(place)[:30] not in json.dumps(done), failure


def test_the_real_client(offering, model, place):
    import webuiapi

    where = urlsplit(offering.url)
    api = webuiapi.WebUIApi(host=where.hostname, port=where.port, sampler="Euler", steps=3)
    assert api.controlnet_model_list() == NAMES["control"] + NAMES["reference"]
    assert api.controlnet_module_list() == ["none"] and api.controlnet_version() >= 2
    api.set_options({"sd_model_checkpoint": "small"})
    made = api.txt2img(
        prompt=PROMPT, seed=3, cfg_scale=3.0, width=48, height=32,
        controlnet_units=[webuiapi.ControlNetUnit(image=drawing(1), model="edges", weight=0.8)],
        alwayson_scripts={},  # its own default would keep the unit for whatever this process asks next
    )  # fmt: skip
    entry = {"model": str(place / "adapters" / "edges"), "image": drawing(1), "weight": 0.8}
    assert np.array_equal(np.asarray(made.image), np.asarray(model.generate(PROMPT, **SAID, control=[entry])))
    api.session.close()
