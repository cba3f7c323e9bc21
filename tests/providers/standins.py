"""Services on loopback: each answers as its documentation says, and draws plain pictures.

A stand-in is a function (asked, server) -> answer. `STANDINS` has one for each provider, with a model and the
settings to open it with.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import pictura
from loopback import SECRET, Answer, Asked, Loopback, b64, png
from pictura.request import Request

SIZE = (16, 8)
IMAGE = {"content-type": "image/png"}


@dataclass
class StandIn:
    answer: Callable[[Asked, Loopback], Any]
    model: str
    settings: dict[str, Any] = field(default_factory=dict)
    key: str = SECRET

    def serve(self) -> Loopback:
        server = Loopback(lambda asked: self.answer(asked, server))
        return server

    def open(self, name: str, server: Loopback, base: str = "", **settings: Any) -> pictura.TextToImage:
        preset = f"{pictura.providers.scheme(name)}://{self.model}"
        given = {"api_key": self.key, "timeout": (2, 5, 10), "max_retries": 0, **self.settings, **settings}
        return pictura.TextToImage.from_preset(preset, base_url=f"{server.url}{base}", **given)


def colour_of(seed: object) -> tuple[int, int, int]:
    return (int(seed or 0) % 256, 100, 200)  # the seed shows in the picture


def file_at(asked: Asked) -> Answer:
    """Addresses of pictures are files/SEED.png."""
    seed = asked.path.rpartition("/")[2].partition(".")[0]
    return Answer(body=png(colour_of(seed), SIZE), headers=IMAGE)


def openai(asked: Asked, server: Loopback) -> Any:
    if asked.method == "GET":
        return file_at(asked)
    body = asked.json if "json" in asked.headers["content-type"] else {"n": 1, "edit": asked.form}
    count, seed = body.get("n") or 1, body.get("seed")
    if body.get("stream"):
        events = [
            {"type": "image_generation.partial_image", "partial_image_index": 0, "b64_json": b64(size=SIZE)},
            {"type": "image_generation.completed", "b64_json": b64(colour_of(seed), SIZE)},
        ]
        pieces = iter([f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in events])
        return Answer(body=pieces, headers={"content-type": "text/event-stream"})
    entry = {"b64_json": b64(colour_of(seed), SIZE), "revised_prompt": "a fine cat"}
    return {"created": 1, "data": [entry] * count}


def huggingface(asked: Asked, server: Loopback) -> Any:
    return Answer(body=png(colour_of(asked.json["parameters"].get("seed")), SIZE), headers=IMAGE)


def automatic1111(asked: Asked, server: Loopback) -> Any:
    body = asked.json
    seeds = [body["seed"] + index for index in range(body["n_iter"])]
    steps, cfg = body.get("steps", 20), body.get("cfg_scale", 7.0)
    texts = [
        f"{body['prompt']}\nSteps: {steps}, Sampler: Euler a, Schedule type: Karras, CFG scale: {cfg}, "
        f"Seed: {seed}, Size: {SIZE[0]}x{SIZE[1]}, Model hash: 0123456789, Model: dream"
        for seed in seeds
    ]
    info = {"all_seeds": seeds, "infotexts": texts, "index_of_first_image": 0, "sd_model_name": "dream",
            "sd_model_hash": "0123456789", "seed": seeds[0]}  # fmt: skip
    images = [b64(colour_of(seed), SIZE) for seed in seeds]
    return {"images": images, "parameters": body, "info": json.dumps(info)}


def pictura_server(asked: Asked, server: Loopback) -> Any:
    """The job's id says the first seed and how many there are."""
    if asked.path.startswith("/files/"):
        return pictura_file(asked, server)
    if asked.method == "POST" and asked.path == "/api/jobs":
        wanted = asked.json["requests"]
        name = f"{wanted[0]['seed']}/{len(wanted)}"
        assert [each["seed"] for each in wanted] == [wanted[0]["seed"] + n for n in range(len(wanted))]
        return Answer(202, {"id": name, "status": "queued", "images": [], "failures": []})
    first, _, count = unquote(asked.path.split("/")[3]).partition("/")
    if asked.path.endswith("/events"):
        return Answer(
            body=pictura_events(int(first), int(count), int(asked.headers.get("last-event-id", 0))),
            headers={"content-type": "text/event-stream"},
        )
    images = [pictura_image(index, int(first) + index) for index in range(int(count))]
    return {"id": f"{first}/{count}", "status": "done", "images": images, "failures": []}


def pictura_image(index: int, seed: int) -> dict[str, Any]:
    return {"id": str(index), "index": index, "seed": seed, "url": f"/files/{seed}.png"}


def pictura_events(first: int, count: int, after: int) -> Iterator[bytes]:
    """What is kept has a number; the connection is lost after the first picture of several."""
    if after == 0:
        step = {"index": 0, "step": 1, "total": 2}
        yield f": keep-alive\n\nevent: step\ndata: {json.dumps(step)}\n\n".encode()
        yield f"event: preview\ndata: {json.dumps({**step, 'image': b64(size=SIZE)})}\n\n".encode()
    pictures = [("picture", pictura_image(index, first + index)) for index in range(count)]
    kept = [("status", {"status": "running"}), *pictures, ("status", {"status": "done"})]
    for number, (kind, body) in enumerate(kept, 1):
        if number > after:
            yield f"id: {number}\nevent: {kind}\ndata: {json.dumps(body)}\n\n".encode()
        if number == 2 > after and count > 1:
            return


def pictura_file(asked: Asked, server: Loopback) -> Answer:
    """A PNG with its completed request inside, as the server writes them."""
    seed = int(asked.path.rpartition("/")[2].partition(".")[0])
    image = pictura.picture.Image.open(io.BytesIO(png(colour_of(seed), SIZE)))
    request = Request(prompt="a cat", seed=seed, num_steps=12, sampler="euler", size=SIZE, model="scenes")
    return Answer(body=pictura.Picture(image=image, request=request).to_bytes(), headers=IMAGE)


def stability(asked: Asked, server: Loopback) -> Any:
    seed = int(asked.form["seed"])
    return {"image": b64(colour_of(seed), SIZE), "seed": seed, "finish_reason": "SUCCESS"}


def replicate(asked: Asked, server: Loopback) -> Any:
    if asked.path.startswith("/files/"):
        return file_at(asked)
    seed = asked.json["input"]["seed"] if asked.content else int(asked.path.rpartition("/")[2])
    where = f"{server.url}/predictions/{seed}"
    prediction = {"id": str(seed), "model": "acme/flux", "version": "hidden", "input": {}, "error": None,
                  "urls": {"get": where, "cancel": f"{where}/cancel"}}  # fmt: skip
    if asked.method == "POST":
        return Answer(201, {**prediction, "status": "starting", "output": None})
    return {**prediction, "status": "succeeded", "output": [f"{server.url}/files/{seed}.png"]}


def fal(asked: Asked, server: Loopback) -> Any:
    if asked.path.startswith("/files/"):
        return file_at(asked)
    seed = asked.json["seed"] if asked.method == "POST" else int(asked.path.split("/")[4])
    where = f"{server.url}/fal-ai/flux/requests/{seed}"
    if asked.method == "POST":
        return {"request_id": str(seed), "status_url": f"{where}/status", "response_url": where,
                "cancel_url": f"{where}/cancel"}  # fmt: skip
    if asked.path.endswith("/status"):
        asks = sum(each.path == asked.path for each in server.asked)
        return {"status": "IN_QUEUE", "queue_position": 0} if asks < 2 else {"status": "COMPLETED"}
    url = f"{server.url}/files/{seed}.png"
    return {"images": [{"url": url, "width": 16, "height": 8}], "seed": seed, "prompt": "a cat",
            "has_nsfw_concepts": [False]}  # fmt: skip


def together(asked: Asked, server: Loopback) -> Any:
    assert asked.json["response_format"] == "base64"
    picture = b64(colour_of(asked.json["seed"]), SIZE)
    return {"data": [{"index": 0, "type": "b64_json", "b64_json": picture}]}


def bfl(asked: Asked, server: Loopback) -> Any:
    if asked.path.startswith("/files/"):
        return file_at(asked)
    seed = asked.json["seed"] if asked.method == "POST" else int(asked.path.rpartition("=")[2])
    where = f"/v1/get_result?id={seed}"
    if asked.method == "POST":
        return {"id": str(seed), "polling_url": f"{server.url}{where}"}
    if sum(each.path == asked.path for each in server.asked) < 2:
        return {"id": str(seed), "status": "Pending", "result": None}
    return {"id": str(seed), "status": "Ready", "result": {"sample": f"{server.url}/files/{seed}.png"}}


def google(asked: Asked, server: Loopback) -> Any:
    if asked.path.endswith(":predict"):
        count = asked.json["parameters"]["sampleCount"]
        entry = {"bytesBase64Encoded": b64(colour_of(0), SIZE), "mimeType": "image/png"}
        return {"predictions": [entry] * count}
    data = {"mimeType": "image/png", "data": b64(colour_of(0), SIZE)}
    parts = [{"text": "Here it is."}, {"inlineData": data}]
    return {"candidates": [{"content": {"parts": parts, "role": "model"}, "finishReason": "STOP"}]}


def bedrock(asked: Asked, server: Loopback) -> Any:
    assert asked.headers["authorization"].startswith(("AWS4-HMAC-SHA256 Credential=AKIA", "Bearer "))
    assert unquote(asked.path).startswith("/model/") and asked.path.endswith("/invoke")
    body = asked.json
    if "taskType" in body:
        seed = body["imageGenerationConfig"]["seed"]
        return {"images": [b64(colour_of(seed), SIZE)], "error": None}
    return {"images": [b64(colour_of(body["seed"]), SIZE)], "seeds": [body["seed"]], "finish_reasons": [None]}


STANDINS = {
    "openai": StandIn(openai, "gpt-image-1"),
    "azure": StandIn(openai, "my-deployment"),
    "xai": StandIn(openai, "grok-2-image"),
    "huggingface": StandIn(huggingface, "org/model"),
    "automatic1111": StandIn(automatic1111, "dream"),
    "pictura": StandIn(pictura_server, "scenes"),
    "stability": StandIn(stability, "core"),
    "replicate": StandIn(replicate, "owner/name"),
    "fal": StandIn(fal, "fal-ai/flux/dev"),
    "together": StandIn(together, "org/model"),
    "bfl": StandIn(bfl, "flux-pro-1.1"),
    "google": StandIn(google, "imagen-4.0-generate-001"),
    "bedrock": StandIn(
        bedrock, "amazon.nova-canvas-v1:0", key=f"AKIAEXAMPLE:{SECRET}", settings={"region": "eu-west-1"}
    ),
}


def seed_of(picture: pictura.Picture) -> int:
    return picture.image.getpixel((0, 0))[0]


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
