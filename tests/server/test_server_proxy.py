"""The reverse proxies of docs/server.md before a real server: what reaches whom, when, and by which name."""

from __future__ import annotations

import base64
import io
import json
import re
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import openai
import pytest
import uvicorn
from PIL import Image
from proxies import NAME, Proxy, missing

from documented import block
from pictura.picture.metadata import metadata_of
from pictura.server.keys import added
from pictura.server.settings import Limits
from serving import Server

CAT = {"prompt": "a cat left of a pizza", "seed": 7, "num_steps": 3}
STEPS = 80
SEEDED = {"seed": 1, "num_steps": 2}
LONG = {"prompt": "two stars", "seed": 8, "num_steps": STEPS}


@pytest.fixture(scope="module", params=["nginx", "caddy"])
def name(request):
    """The programs that are described and installed here."""
    if absent := missing(request.param):
        pytest.skip(f"{' and '.join(absent)} is not installed")
    return request.param


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    file = tmp_path_factory.mktemp("keys") / "keys"
    return file, added(file, "anna", ["read", "generate", "rate"])


@pytest.fixture(scope="module")
def behind(tmp_path_factory, keys):
    """A server with a key, as the unit of docs/server.md starts it."""
    arguments = ["--api-key-file", str(keys[0]), "--log", "json"]
    made = Server(tmp_path_factory.mktemp("behind"), *arguments).start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def keyless(tmp_path_factory):
    made = Server(tmp_path_factory.mktemp("keyless"), "--grace", "0").start(ready=False)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def proxy(name, behind, tmp_path_factory):
    made = Proxy(name, tmp_path_factory.mktemp("proxy") / name, behind).start()
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def known(monkeypatch):
    """The name of the example is this machine's, for clients of this process."""
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *more, **named: real(
            "127.0.0.1" if host in (NAME, NAME.encode()) else host, *more, **named
        ),
    )  # fmt: skip


def client_of(proxy, key="", **more):
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return httpx.Client(base_url=proxy.url, verify=proxy.trusted, headers=headers, timeout=60, **more)


@pytest.fixture
def client(proxy, keys):
    with client_of(proxy, keys[1]) as made:
        yield made


@pytest.fixture
def openai_client(proxy, keys):
    with httpx.Client(verify=proxy.trusted) as http:
        base = f"{proxy.url}/v1"
        yield openai.OpenAI(base_url=base, api_key=keys[1], max_retries=0, http_client=http, timeout=60)


def direct(behind, keys, path):
    """The server's answer without a proxy."""
    return behind.get(path, headers={"authorization": f"Bearer {keys[1]}"}).json()


def noise(size, folder):
    """A PNG of about 3 * size^2 bytes."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8))
    image.save(folder / "noise.png", compress_level=0)
    return folder / "noise.png"


def pixels(content):
    image = Image.open(io.BytesIO(base64.b64decode(content)))
    return image.size, image.tobytes()


def logged(behind, id):
    """The line of the server's log about a request."""

    def found():
        lines = [json.loads(line) for line in behind.log if line.startswith("{")]
        return next((line for line in lines if line.get("request") == id), None)

    return behind.until(found, 10)


def test_a_job_and_its_picture(client, proxy, behind, keys):
    with client_of(proxy) as stranger:
        assert stranger.get("/api/jobs").status_code == 401
        page = stranger.get("/")
    assert page.status_code == 200 and "text/html" in page.headers["content-type"]
    assert page.headers["strict-transport-security"].startswith("max-age=")
    for header in ("content-security-policy", "x-content-type-options", "x-request-id"):
        assert len(page.headers.get_list(header)) == 1
    answer = client.post("/api/jobs", json={"requests": [CAT]})
    assert answer.status_code == 202
    end = time.monotonic() + 60
    while (job := client.get(answer.headers["location"]).json())["status"] != "done":
        assert time.monotonic() < end
        time.sleep(0.05)
    with client_of(proxy) as stranger:
        content = stranger.get(job["images"][0]["url"]).content
    assert content == behind.get(job["images"][0]["url"]).content
    assert metadata_of(content).request.seed == CAT["seed"]


def test_events_come_one_by_one(client, behind, keys):
    """The first steps are read while the server still draws; held back, they would come with the last."""
    id = client.post("/api/jobs", json={"requests": [LONG]}).json()["id"]
    steps, while_drawn = [], 0
    with client.stream("GET", f"/api/jobs/{id}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line == "event: step":
                steps.append(time.monotonic())
                if len(steps) in (1, 3):
                    while_drawn += direct(behind, keys, f"/api/jobs/{id}")["status"] == "running"
    assert while_drawn == 2 and len(steps) > 5


def test_a_stream_for_clients_of_openai(openai_client, behind, keys):
    made = openai_client.images.generate(
        prompt=LONG["prompt"], stream=True, partial_images=3, extra_body={"seed": 9, "num_steps": STEPS}
    )
    kinds, running = [], []
    for event in made:
        kinds.append(event.type.rpartition(".")[2])
        if len(kinds) == 1:
            running = direct(behind, keys, "/api/jobs?status=running")["items"]
    assert kinds == ["partial_image"] * 3 + ["completed"] and len(running) == 1


def test_addresses_are_those_that_were_asked_for(openai_client, proxy):
    made = openai_client.images.generate(prompt="a", response_format="url", extra_body=SEEDED)
    assert made.data[0].url.startswith(f"{proxy.url}/images/")
    with client_of(proxy) as stranger:
        assert stranger.get(made.data[0].url).content.startswith(b"\x89PNG")


def test_the_log_names_the_client_whatever_it_says_of_itself(proxy, behind, keys):
    from_elsewhere = httpx.HTTPTransport(verify=proxy.trusted, local_address="127.0.0.2")
    said = {"x-forwarded-for": "6.6.6.6", "x-forwarded-proto": "http", "forwarded": "for=6.6.6.6"}
    with client_of(proxy, keys[1], transport=from_elsewhere) as client:
        client.get("/api/info", headers={**said, "x-request-id": f"mine-{proxy.name}"})
        body = {"prompt": "a", "response_format": "url", **SEEDED}
        made = client.post("/v1/images/generations", json=body, headers=said).json()
    assert made["data"][0]["url"].startswith("https://")
    assert logged(behind, f"mine-{proxy.name}")["client"] == "127.0.0.2"


def test_other_names_do_not_reach_the_server(client, behind, proxy):
    headers = {"host": "evil.example", "x-request-id": f"evil-{proxy.name}"}
    try:
        answer = client.get("/api/info", headers=headers)
    except httpx.RemoteProtocolError:  # closed without an answer
        pass
    else:
        assert "pictura" not in answer.text and (answer.status_code >= 400 or not answer.content)
    client.get("/api/info", headers={"x-request-id": f"after-{proxy.name}"})
    logged(behind, f"after-{proxy.name}")
    assert not any(f"evil-{proxy.name}" in line for line in behind.log)
    strange = httpx.Client(verify=False)  # nor is another name shown our certificate, or another's
    with strange, pytest.raises(httpx.ConnectError):
        strange.get(f"https://127.0.0.1:{proxy.port}/", extensions={"sni_hostname": "evil.example"})


def test_without_keys_the_server_refuses_what_comes_through_a_proxy(name, keyless, tmp_path):
    proxy = Proxy(name, tmp_path / name, keyless).start()
    try:
        with client_of(proxy) as client:
            answer = client.get("/api/info")
        assert answer.status_code == 403 and "API key" in answer.text
    finally:
        proxy.stop()


def test_a_large_upload(client, tmp_path):
    """More than 32 million bytes, less than the limit of 32 MiB; a form around it would fit too."""
    file = noise(3330, tmp_path)
    assert 33_000_000 < file.stat().st_size < Limits().body - 100_000
    answer = client.post("/api/inspect", content=file.read_bytes())
    assert answer.status_code == 200 and answer.json()["size"] == [3330, 3330], answer.text


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large(client, chunked):
    body = b"\0" * (Limits().body + 1)
    sent = (body[i : i + 65536] for i in range(0, len(body), 65536)) if chunked else body
    answer = client.post("/api/inspect", content=sent)
    assert answer.status_code == 413 and "send less" in answer.json()["error"]["message"]


def test_a_client_understands_that_its_picture_is_too_large(openai_client, tmp_path):
    file = noise(3600, tmp_path)
    with pytest.raises(openai.APIStatusError, match="send less") as caught:
        openai_client.images.edit(image=file, prompt="a cat")
    assert caught.value.status_code == 413


def test_limits_are_the_servers(name):
    """What is read from the numbers: nothing that the server allows is cut off by the proxy."""
    limits = Limits()
    if name == "nginx":
        shown = block("server.md", "proxy_pass")
        assert int(re.search(r"client_max_body_size (\d+)m;", shown)[1]) << 20 == limits.body
        assert int(re.search(r"proxy_read_timeout (\d+)s;", shown)[1]) > limits.wait
    else:
        shown = block("server.md", "reverse_proxy")
        assert "timeout" not in shown and "max_size" not in shown  # there are none, where none are given
        kept = int(re.search(r"keepalive (\d+)s", shown)[1])
        assert kept < uvicorn.Config("x").timeout_keep_alive


def test_a_restart_of_the_server(client, openai_client, behind):
    """Last: it ends the server that the others ask. What was made before is there again."""
    body = {"prompt": "a", "response_format": "url", **SEEDED}
    made = client.post("/v1/images/generations", json=body).json()
    behind.kill()
    assert client.get("/readyz").status_code == 502
    with pytest.raises(openai.InternalServerError):
        openai_client.images.generate(prompt="a", extra_body=SEEDED)
    behind.start()
    assert client.get(made["data"][0]["url"]).content.startswith(b"\x89PNG")
    again = openai_client.images.generate(prompt="a", response_format="url", extra_body=SEEDED)
    assert client.get(again.data[0].url).status_code == 200


# The slower half


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, keys):
    """A server whose model, a very small Stable Diffusion, can start from pictures."""
    from pipelines import pipeline

    folder = tmp_path_factory.mktemp("model")
    pipeline("sd1", 1).save_pretrained(folder)
    arguments = ["--model", f"tiny={folder}", "--api-key-file", str(keys[0])]
    made = Server(tmp_path_factory.mktemp("tiny"), *arguments).start()
    yield made
    made.stop()


@pytest.mark.slow
def test_an_edit_of_a_large_picture(name, tiny, keys, tmp_path):
    """The same pixels through the proxy and without."""
    file = noise(3330, tmp_path)
    more = {"size": "32x32", "extra_body": {"seed": 3, "num_steps": 4, "strength": 0.6}}
    proxy = Proxy(name, tmp_path / name, tiny).start()
    try:
        with httpx.Client(verify=proxy.trusted, timeout=60) as http:
            found = []
            for base in (proxy.url, tiny.url):
                asker = openai.OpenAI(
                    base_url=f"{base}/v1", api_key=keys[1], max_retries=0, http_client=http, timeout=60
                )
                found.append(asker.images.edit(image=file, prompt="a cat", **more).data[0].b64_json)
        assert pixels(found[0]) == pixels(found[1])
    finally:
        proxy.stop()


@pytest.mark.slow
def test_who_waits_gets_their_picture_when_the_server_is_told_to_end(name, keys, own_server, tmp_path):
    server = own_server("--api-key-file", str(keys[0]), "--grace", "30").start()
    proxy = Proxy(name, tmp_path / name, server).start()
    try:
        with client_of(proxy, keys[1]) as client, ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(client.post, "/v1/images/generations", json={"prompt": "a", **LONG})
            running = "/api/jobs?status=running"
            server.until(lambda: direct(server, keys, running)["items"], 60)
            server.process.terminate()
            assert waiting.result(60).json()["data"][0]["seed"] == LONG["seed"]
        assert server.process.wait(30) in (0, -signal.SIGTERM)
    finally:
        proxy.stop()
