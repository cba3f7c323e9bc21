"""What a client may not reach through a real server: its network, its files, other people's browsers."""

from __future__ import annotations

import base64
import json
import socketserver
import threading

import pytest
from fuzzing import bomb, png

HTML = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"


@pytest.fixture
def listener():
    """(address, connections): a server that nobody should ask."""
    seen = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            seen.append(self.client_address)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_address[1]}/a.png", seen
        made.shutdown()


def test_no_route_fetches_an_address(server, listener):
    address, seen = listener
    asked = [
        ("/sdapi/v1/img2img", {"prompt": "a", "init_images": [address], "steps": 1}),
        ("/sdapi/v1/img2img", {"prompt": "a", "init_images": [f"data:image/png;base64,{address}"]}),
        ("/sdapi/v1/png-info", {"image": address}),
        ("/api/jobs", {"requests": [{"prompt": "a", "options": {"image": address}}]}),
        ("/api/jobs", {"requests": [{"prompt": "a", "options": {"image": {"url": address}}}]}),
        ("/api/jobs", {"requests": [{"prompt": "a", "model": address}]}),
        ("/v1/images/generations", {"prompt": "a", "model": address, "image": address}),
        ("/v1/images/generations", {"prompt": "a", "model": f"pictura+{address}#scenes"}),
    ]
    for path, body in asked:
        answer = server.request("POST", path, json=body)
        if answer.status_code == 202:  # what a model cannot use fails with its task
            done = server.ended(answer.json()["id"])
            assert done["status"] == "failed", (body, done)
        else:
            assert 400 <= answer.status_code < 500, (path, answer.text)
    form = {"image": ("a.png", address.encode(), "image/png"), "prompt": (None, "a")}
    assert server.request("POST", "/v1/images/edits", files=form).status_code == 400
    assert not seen


def test_no_option_reaches_a_file(server, tmp_path):
    file = tmp_path / "secret.png"
    file.write_bytes(png())
    for options in (
        {"image": str(file)}, {"image": {"path": str(file)}}, {"control": [{"image": {"path": str(file)}}]},
        {"a": [[{"b": {"path": str(file)}}]]}, {"lora": [{"name": str(file)}]}, {"lora": [str(file)]},
        {"image": {"path": str(file), "sha256": "0" * 64}}, {"image": {"sha256": str(file)}},
    ):  # fmt: skip
        answer = server.request("POST", "/api/jobs", json={"requests": [{"prompt": "a", "options": options}]})
        if answer.status_code == 202:
            done = server.ended(answer.json()["id"])
            assert done["status"] == "failed" and str(file) not in json.dumps(done["failures"]), options
        else:
            assert answer.status_code == 400, (options, answer.text)
    for path in ("..%2f..%2fsettings.py", "%2e%2e/%2e%2e/settings.py", "/etc/passwd", "..\\x", "x%00.js"):
        assert server.get(f"/static/{path}").status_code == 404, path
    for path in ("..%2f" * 9 + "etc%2fpasswd", "%2e%2e"):
        assert server.get(f"/images/{path}.png").status_code == 404


def test_prompts_never_become_html(server):
    job = server.submit({"prompt": HTML, "num_steps": 1, "seed": 3})
    done = server.ended(job["id"])
    id = done["images"][0]["id"]
    server.request("PATCH", f"/api/images/{id}", json={"note": HTML})
    server.request("PUT", f"/api/collections/{HTML.replace('/', '')}/images/{id}")
    answers = [
        server.get(f"/api/images/{id}"), server.get("/api/images", params={"query": "onerror"}),
        server.get("/api/collections"), server.get(f"/api/jobs/{job['id']}"),
        server.get(f"/api/jobs/{job['id']}/events"), server.get(f"/nothing/{HTML}"),
        server.request("POST", "/v1/images/generations", json={"prompt": "a", "model": HTML}),
        server.request("POST", f"/models/{HTML.replace('/', '')}", json={"inputs": "a"}),
        server.request("POST", "/sdapi/v1/txt2img", json={"prompt": "a", "sampler_name": HTML}),
        server.request("POST", "/api/jobs", json={"requests": [{"prompt": "a", "sampler": HTML}]}),
        server.get("/images/" + id + ".png"),
    ]  # fmt: skip
    assert "onerror" in answers[0].text
    for answer in answers:
        kind = answer.headers["content-type"]
        assert kind.startswith(("application/json", "text/event-stream", "image/png")), (answer.url, kind)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert not any("\n" in value or "\r" in value for value in answer.headers.values())


def test_pictures_that_are_bombs_are_refused_unread(server):
    content = bomb()
    assert len(content) < 20_000
    for path, sent in (
        ("/api/attachments", {"content": content}),
        ("/v1/images/edits", {"files": {"image": ("a.png", content, "image/png"), "prompt": (None, "a")}}),
        ("/sdapi/v1/img2img", {"json": {"prompt": "a", "init_images": [base64.b64encode(content).decode()]}}),
    ):  # fmt: skip
        answer = server.request("POST", path, **sent)
        assert answer.status_code == 400 and "at most 16 million" in answer.text, answer.text
    small = base64.b64encode(png()).decode()
    large = {"prompt": "a", "init_images": [small], "width": 8192, "height": 8192}
    assert server.request("POST", "/sdapi/v1/img2img", json=large).status_code == 400


def test_clients_do_not_make_the_server_download(server):
    from pictura import presets

    offered = {one["name"] for one in server.get("/api/models").json()["items"]}
    assert {"scenes", "gan-cls"} <= offered
    far = [name for name, preset in presets.presets().items() if "://" in (preset.uri or "")]
    assert far and not offered & set(far)
    for name in far[:2]:
        answer = server.request("POST", "/api/jobs", json={"requests": [{"prompt": "a", "model": name}]})
        assert answer.status_code == 404 and "not offered here" in answer.text
        assert server.request("POST", f"/api/models/{name}/load").status_code == 404
