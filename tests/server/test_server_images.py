"""The history over HTTP: search, rate, gather, export, replay; what is sent to the server."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from pictura import Picture


@pytest.fixture(scope="module")
def made(server):
    """Three pictures of one job."""
    job = server.submit(
        {"prompt": "an owl above a pine tree", "seed": 11, "num_steps": 3},
        {"prompt": "an owl left of a zebra", "seed": 12, "num_steps": 3},
        {"prompt": "two owls", "seed": 13, "num_steps": 2},
    )
    return server.ended(job["id"])


def search(server, **query):
    answer = server.get("/api/images", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_search_by_words_filters_and_cursor(server, made):
    ids = [image["id"] for image in made["images"]][::-1]
    mine = {"job": made["id"]}
    found = search(server, **mine)
    assert sorted(item["id"] for item in found["items"]) == sorted(ids) and found["next"] is None
    assert [item["index"] for item in search(server, query="zebra", **mine)["items"]] == [1]
    assert len(search(server, query="owl", **mine)["items"]) == 3, "the last word may be a beginning"
    assert [item["index"] for item in search(server, seed=13, **mine)["items"]] == [2]
    walked, cursor = [], None
    while True:
        page = search(server, limit=1, **mine, **({"cursor": cursor} if cursor else {}))
        walked += [item["id"] for item in page["items"]]
        if (cursor := page["next"]) is None:
            break
    assert walked == [item["id"] for item in found["items"]]
    assert search(server, since="2099-01-01", **mine)["items"] == []
    assert len(search(server, until="2099-01-01T00:00:00Z", **mine)["items"]) == 3
    for bad in ({"limit": 0}, {"cursor": "x"}, {"min_stars": 9}, {"since": "monday"}, {"seed": "1e999"}):
        assert server.get("/api/images", params=bad).status_code in (400, 422)


def test_everything_that_made_a_picture_is_told(server, made, scenes):
    image = server.get(f"/api/images/{made['images'][1]['id']}").json()
    expected = scenes.generate("an owl left of a zebra", seed=12, num_steps=3)
    assert image["request"] == expected.request.to_dict()
    assert image["model_digest"] == expected.model_digest and image["size"] == [128, 128]
    assert (image["job"], image["index"], image["stars"], image["note"]) == (made["id"], 1, None, None)
    assert image["made_at"].startswith("20") and image["made_at"].endswith("Z")
    small = server.get(image["thumbnail"], params={"width": 32})
    assert Image.open(io.BytesIO(small.content)).size == (32, 32)
    assert small.headers["content-type"] == "image/webp" and "immutable" in small.headers["cache-control"]


def test_stars_notes_choices_and_collections(server, made):
    first, second, third = (image["id"] for image in made["images"])
    rated = server.request("PATCH", f"/api/images/{first}", json={"stars": 4, "note": "a <b>good</b> owl"})
    assert (rated.json()["stars"], rated.json()["note"]) == (4, "a <b>good</b> owl")
    assert server.request("PATCH", f"/api/images/{first}", json={"stars": 5}).json()["note"] is not None
    assert [item["id"] for item in search(server, job=made["id"], min_stars=5)["items"]] == [first]
    for none in (0, None):
        assert server.request("PATCH", f"/api/images/{first}", json={"stars": 5}).json()["stars"] == 5
        bare = server.request("PATCH", f"/api/images/{first}", json={"stars": none}).json()
        assert (bare["stars"], bare["note"]) == (None, "a <b>good</b> owl")
        assert search(server, job=made["id"], rated=True)["items"] == []
    for body in ({"stars": 6}, {"stars": -1}, {"stars": False}, {"stars": "4"}, {"star": 4}, {"note": 4}, []):
        assert server.request("PATCH", f"/api/images/{first}", json=body).status_code == 400
    pair = {"winner": first, "loser": second}
    assert server.request("POST", "/api/choices", json=pair).status_code == 201
    assert server.request("POST", "/api/choices", json={"winner": first, "loser": first}).status_code == 400
    assert server.request("POST", "/api/choices", json={"winner": first}).status_code == 400
    for id in (first, third):
        assert server.request("PUT", f"/api/collections/best owls/images/{id}").status_code == 200
    assert {"name": "best owls", "count": 2} in server.get("/api/collections").json()["items"]
    server.request("PUT", f"/api/collections/a first one/images/{third}")
    assert server.get(f"/api/images/{first}").json()["collections"] == ["best owls"]
    assert server.get(f"/api/images/{second}").json()["collections"] == []
    assert server.get(f"/api/images/{third}").json()["collections"] == ["a first one", "best owls"]
    server.request("DELETE", f"/api/collections/best owls/images/{third}")
    rated = server.request("PATCH", f"/api/images/{third}", json={"note": "gone from one"}).json()
    assert rated["collections"] == ["a first one"]
    assert [item["id"] for item in search(server, collection="best owls")["items"]] == [first]


def test_export_is_a_zip_that_others_read(server, made):
    answer = server.get("/api/export", params={"job": made["id"]})
    packed = zipfile.ZipFile(io.BytesIO(answer.content))
    lines = [json.loads(line) for line in packed.read("metadata.jsonl").splitlines()]
    assert {line["seed"] for line in lines} == {11, 12, 13}
    for line in lines:
        assert packed.read(line["file_name"]) == server.get(f"/images/{line['id']}.png").content


def test_replay_says_identical_or_shows_the_difference(own_server, tmp_path):
    server = own_server().start()
    job = server.ended(
        server.submit({"prompt": "a cat on a red background", "seed": 3, "num_steps": 4})["id"]
    )
    id = job["images"][0]["id"]
    again = server.request("POST", f"/api/images/{id}/replay").json()
    assert again["identical"] is True and again["differences"] == {} and again["image"]["id"] != id
    # A picture that was changed in the history's folder is no longer what its request makes.
    (path,) = [p for p in (tmp_path / "server" / "images").rglob("*.png")]
    picture = Picture.open(path)
    picture.image.putpixel((0, 0), (1, 2, 3))
    path.write_bytes(picture.to_bytes(".png"))
    other = server.request("POST", f"/api/images/{id}/replay").json()
    assert other["identical"] is False and other["differences"]["pixels"]["differing"] == 1
    assert "1 of 16384 pixels" in other["sentences"][0]


def test_what_the_server_says_of_itself(server):
    info = server.get("/api/info").json()
    assert info["default_model"] == "scenes" and info["key_needed"] is False and info["pictures"] >= 0
    models = server.get("/api/models").json()["items"]
    scenes = models[0]
    assert (scenes["name"], scenes["state"], scenes["default"]) == ("scenes", "ready", True)
    details = scenes["details"]
    assert details["sizes"] == {"fixed": [128, 128], "multiple": None}
    assert details["defaults"]["num_steps"] == 12 and "euler" in details["samplers"]
    assert "guidance_scale" in details["parameters"]
    assert "heun" in server.get("/api/samplers").json()["items"]
    assert server.get("/api/loras").json() == {"items": []}
    assert server.request("POST", "/api/models/scenes/load").status_code == 202
    assert server.request("POST", "/api/models/nothing/load").status_code == 404


def test_pictures_that_are_sent(server, made):
    content = server.get(made["images"][0]["url"]).content
    said = server.request("POST", "/api/inspect", content=content).json()
    assert said["source"] == "pictura" and said["request"]["seed"] == 11
    sent = server.request("POST", "/api/attachments", content=content)
    assert sent.status_code == 201 and len(sent.json()["sha256"]) == 64 and set(sent.json()) == {"sha256"}
    for body in (b"", b"no picture", content[:200]):
        assert server.request("POST", "/api/attachments", content=body).status_code == 400
        assert server.request("POST", "/api/inspect", content=body).status_code == 400
    plain = io.BytesIO()
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(plain, "PNG")
    said = server.request("POST", "/api/inspect", content=plain.getvalue()).json()
    assert said["source"] == "none" and said["request"] is None and said["size"] == [5, 4]
