"""A real server with keys: who may ask what, how much, how fast, and what is written of it."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
import threading
import time

import httpx2

ONE = {"requests": [{"prompt": "a cat", "num_steps": 1}]}


def bearer(key):
    return {"authorization": f"Bearer {key}"}


def basic(user, password):
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def raw(server, sent, *, wait=10.0):
    """What the server answers to bytes, until it closes the connection or says nothing for `wait` seconds."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=wait) as line:
        line.sendall(sent)
        found = b""
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while part := line.recv(65536):
                found += part
        return found


def lines(server):
    """The log so far."""
    return [json.loads(line) for line in server.log if line.startswith("{")]


def test_a_key_in_every_form(keyed):
    server, keys = keyed
    key = keys["all"]
    forms = [
        bearer(key), {"authorization": f"bearer   {key}"}, basic("anybody", key), basic(key, ""),
        {"api-key": key}, bearer(keys["reader"]),
    ]  # fmt: skip
    for headers in forms:
        assert server.get("/api/jobs", headers=headers).status_code == 200, headers
    wrong = [
        {}, bearer("wrong"), {"authorization": "Bearer"}, bearer(key[:-1]), bearer(key + " x"),
        basic(key, "wrong"),
        {"authorization": key}, {"authorization": "Basic !!"}, {"api-key": ""}, {"cookie": f"key={key}"},
        {"authorization": "Bearer " + "x" * 5000}, {"authorization": b"Bearer \xff\xfe"},
    ]  # fmt: skip
    for headers in wrong:
        answer = server.get("/api/jobs", headers=headers)
        assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer", headers
    assert server.get(f"/api/jobs?key={key}&api_key={key}").status_code == 401


def test_every_route_but_the_open_ones_needs_a_key(keyed):
    server, keys = keyed
    found = server.get("/openapi.json", headers=bearer(keys["all"])).json()["paths"]
    kinds = ("png", "jpeg", "webp")
    opened = {"/", "/static/{path}", "/healthz", "/readyz", "/images/{id}/thumbnail"}
    opened |= {f"/images/{{id}}.{kind}" for kind in kinds}
    said = {path for path, methods in found.items() if methods.get("get", {}).get("security") == []}
    assert opened == said and len(found) > 12
    for path, methods in found.items():
        for method in methods:
            told = server.request(method.upper(), path.replace("{", "").replace("}", ""))
            free = method == "get" and path in opened
            assert (told.status_code != 401) == free, (method, path, told.status_code)
    for path in (
        "/openapi.json",
        "/metrics",
        "/docs",
        "/nothing",
        "/v1/models",
        "/images/x/other",
        "/images/",
    ):
        assert server.get(path).status_code == 401
    for path in ("/", "/static/index.html", "/healthz"):
        assert server.get(path).status_code == 200
    assert server.request("POST", "/").status_code == 401
    for path in ("/static/../api/jobs", "/static/%2e%2e/api/jobs", "//api/jobs", "/images/../api/jobs"):
        assert (
            b" 200 " not in raw(server, f"GET {path} HTTP/1.0\r\nHost: x\r\n\r\n".encode()).split(b"\r\n")[0]
        )


def test_scopes(keyed):
    server, keys = keyed
    for name, status in (("reader", 403), ("maker", 202), ("all", 202)):
        assert server.request("POST", "/api/jobs", json=ONE, headers=bearer(keys[name])).status_code == status
    refused = server.request("POST", "/api/jobs", json=ONE, headers=bearer(keys["reader"])).json()
    assert "does not allow to generate" in refused["error"]["message"]
    load = "/api/models/scenes/load"
    assert server.request("POST", load, headers=bearer(keys["maker"])).status_code == 403
    assert server.request("POST", load, headers=bearer(keys["all"])).status_code == 202
    choice = {"winner": "a", "loser": "b"}
    told = server.request("POST", "/api/choices", json=choice, headers=bearer(keys["maker"]))
    assert told.status_code == 403


def test_jobs_are_known_by_the_key_that_made_them(keyed):
    server, keys = keyed
    job = server.request("POST", "/api/jobs", json=ONE, headers=bearer(keys["maker"])).json()["id"]
    mine = server.get("/api/jobs", headers=bearer(keys["maker"])).json()["items"]
    others = server.get("/api/jobs", headers=bearer(keys["reader"])).json()["items"]
    assert job in [one["id"] for one in mine] and job not in [one["id"] for one in others]


def test_rates_of_a_key(keyed):
    server, keys = keyed
    headers = bearer(keys["slow"])
    many = {"requests": [{"prompt": "a cat", "num_steps": 1, "num_images": 3}]}
    assert server.request("POST", "/api/jobs", json=many, headers=headers).status_code == 400
    two = {"requests": [{"prompt": "a cat", "num_steps": 1, "num_images": 2}]}
    assert server.request("POST", "/api/jobs", json=two, headers=headers).status_code == 202
    told = server.request("POST", "/api/jobs", json=ONE, headers=headers)
    assert told.status_code == 429 and 1 <= int(told.headers["retry-after"]) <= 30
    answers = [server.get("/api/samplers", headers=headers) for _ in range(5)]
    assert [answer.status_code for answer in answers][-1] == 429
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 10
    assert server.get("/api/samplers", headers=bearer(keys["all"])).status_code == 200


def test_bodies_too_large_whatever_they_say_of_themselves(keyed):
    server, keys = keyed
    head = f"POST /api/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {keys['all']}\r\n"
    told = raw(server, f"{head}Content-Length: 99999999999\r\n\r\n{{".encode())
    assert b"413" in told.split(b"\r\n")[0] and b"1,000,000 bytes" in told
    chunk = b"2710\r\n" + b" " * 10000 + b"\r\n"
    told = raw(server, f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk * 101 + b"0\r\n\r\n")
    assert b"413" in told.split(b"\r\n")[0]
    for length in ("-1", "1e3", "0x10", "1 2", "٣", "", "9" * 400):
        told = raw(server, f"{head}Content-Length: {length}\r\n\r\n{{}}".encode(), wait=3)
        assert told.split(b" ")[1][:1] == b"4", (length, told[:200])
    many = "".join(f"X-{at}: {'x' * 1000}\r\n" for at in range(60))
    assert b" 400 " in raw(server, f"{head}{many}\r\n".encode()).split(b"\r\n")[0]


def test_slow_heads_and_bodies_are_not_waited_for(keyed):
    server, keys = keyed
    began = time.monotonic()
    assert raw(server, b"GET /heal") == b"" and raw(server, b"") == b""
    head = f"POST /api/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {keys['all']}\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as line:
        line.sendall(f"{head}Content-Length: 100000\r\n\r\n".encode())
        with contextlib.suppress(OSError):
            for _ in range(40):
                line.sendall(b" ")
                time.sleep(0.1)
        assert line.recv(65536).startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - began < 15
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as line:  # kept alive: again
        line.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        told = b""
        while not told.endswith(b'{"status":"ok"}'):
            told += line.recv(65536)
        assert told.startswith(b"HTTP/1.1 200 ")
        began = time.monotonic()
        with contextlib.suppress(OSError):
            for at in range(60):
                line.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow:   "[at : at + 1])
                time.sleep(0.1)
        assert line.recv(65536) == b"" and time.monotonic() - began < 7


def test_streams_of_events_are_limited(keyed):
    server, keys = keyed
    many = {"requests": [{"prompt": "a cat", "num_steps": 50, "num_images": 40}]}
    job = server.request("POST", "/api/jobs", json=many, headers=bearer(keys["all"])).json()["id"]
    path = f"/api/jobs/{job}/events"
    with contextlib.ExitStack() as streams:
        for _ in range(3):
            streams.enter_context(httpx2.stream("GET", server.url + path, headers=bearer(keys["all"])))
        refused = server.get(path, headers=bearer(keys["all"]))
        assert refused.status_code == 429 and refused.headers["retry-after"] == "5"
        assert "pictura_listeners 3.0" in server.get("/metrics", headers=bearer(keys["all"])).text
    server.request("DELETE", f"/api/jobs/{job}", headers=bearer(keys["all"]))
    server.until(lambda: "pictura_listeners 0.0" in server.get("/metrics", headers=bearer(keys["all"])).text)


def test_headers_of_answers(keyed):
    server, keys = keyed
    for path in ("/", "/healthz", "/api/jobs", "/nothing", "/static/nothing"):
        headers = server.get(path, headers=bearer(keys["all"])).headers
        assert headers["x-content-type-options"] == "nosniff" and "server" not in headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"] and headers["x-request-id"]
        assert "unsafe" not in headers["content-security-policy"].replace("style-src 'unsafe-inline'", "")
    assert "'unsafe-inline'" not in server.get("/").headers["content-security-policy"]
    assert server.get("/api/jobs", headers=bearer(keys["all"])).headers["cache-control"] == "no-store"
    named = server.get("/healthz", headers={"x-request-id": "mine-1"})
    assert named.headers["x-request-id"] == "mine-1"
    odd = server.get("/healthz", headers={"x-request-id": "a b"})
    assert odd.headers["x-request-id"] != "a b"


def test_only_named_sites_may_ask_from_their_pages(keyed):
    server, keys = keyed
    ask = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    allowed = server.request("OPTIONS", "/api/jobs", headers={"origin": "https://studio.example", **ask})
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://studio.example"
    assert "access-control-allow-credentials" not in allowed.headers
    others = server.request("OPTIONS", "/api/jobs", headers={"origin": "https://evil.example", **ask})
    assert "access-control-allow-origin" not in others.headers
    told = server.get("/api/jobs", headers={"origin": "https://studio.example", **bearer(keys["all"])})
    assert told.headers["access-control-allow-origin"] == "https://studio.example"


def test_without_keys_only_this_machine(server):
    # More forms are in test_server_origins.
    for headers in (
        {"host": "evil.example"}, {"origin": "null"}, {"origin": "http://evil.example"},
        {"host": "127.0.0.1.evil.example"}, {"sec-fetch-site": "cross-site"},
    ):  # fmt: skip
        answer = server.request("POST", "/api/jobs", json=ONE, headers=headers)
        assert answer.status_code == 403, headers
    assert server.get("/api/jobs", headers={"host": f"evil.example:{server.port}"}).status_code == 403
    assert b" 403 " in raw(server, b"GET /api/jobs HTTP/1.0\r\n\r\n").split(b"\r\n")[0]
    assert b" 400 " in raw(server, b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
    preflight = server.request("OPTIONS", "/api/jobs", headers={"origin": "http://evil.example"})
    assert "access-control-allow-origin" not in preflight.headers


def test_the_log_has_a_line_for_each_request_and_no_secret(keyed):
    server, keys = keyed
    prompt = "an unmistakable zebra"
    sent = {"requests": [{"prompt": prompt, "num_steps": 1, "negative_prompt": prompt}]}
    headers = {**bearer(keys["maker"]), "x-request-id": "find-me"}
    assert server.request("POST", "/api/jobs", json=sent, headers=headers).status_code == 202
    bad = {"requests": [{"prompt": prompt, "seed": prompt}]}
    assert server.request("POST", "/api/jobs", json=bad, headers=headers).status_code == 400
    server.get("/api/images", params={"query": prompt}, headers=headers)
    raw(server, b"nonsense\r\n\r\n")
    server.until(lambda: sum(line.get("request") == "find-me" for line in lines(server)) >= 3)
    mine = [line for line in lines(server) if line.get("request") == "find-me"]
    assert [(one["method"], one["path"], one["status"], one["key"]) for one in mine] == [
        ("POST", "/api/jobs", 202, "maker"),
        ("POST", "/api/jobs", 400, "maker"),
        ("GET", "/api/images", 200, "maker"),
    ]
    assert all(one["ms"] > 0 and one["client"] == "127.0.0.1" and one["process"] == "api" for one in mine)
    assert any(line["logger"].startswith("uvicorn") for line in lines(server))
    log = "\n".join(server.log)
    assert "zebra" not in log and "Traceback" not in log
    assert not any(key in log for key in keys.values())
    others = [line for line in server.log if not line.startswith("{")]
    assert all(line.startswith(("Pictura is at", "warning: an API key")) for line in others), others


def test_figures(keyed):
    server, keys = keyed
    ask = bearer(keys["all"])

    def figures():
        text = server.get("/metrics", headers=ask).text
        return {
            line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1])
            for line in text.splitlines()
            if line[0] != "#"
        }

    def of(name, found):
        return sum(value for key, value in found.items() if key.partition("{")[0] == name)

    def made(found):
        return of("pictura_pictures_total", found)

    server.until(lambda: of("pictura_queue_tasks", figures()) == 0)
    time.sleep(1.5)  # a worker tells of itself once a second
    before = figures()
    sent = {"requests": [{"prompt": "two stars", "num_steps": 3, "num_images": 4}]}
    bad = {"requests": [{"prompt": "two stars", "size": "99x98"}]}
    for body in (sent, bad):
        assert server.request("POST", "/api/jobs", json=body, headers=ask).status_code == 202
    for _ in range(3):
        server.get("/api/jobs/none", headers=ask)
    server.until(lambda: made(figures()) - made(before) == 4)
    after = figures()
    gained = {name: after[name] - before.get(name, 0) for name in after}
    assert of("pictura_failures_total", after) - of("pictura_failures_total", before) == 1
    assert of("pictura_steps_total", gained) == 12
    rows, passes = of("pictura_rows_total", gained), of("pictura_passes_total", gained)
    assert passes > 0 and rows > passes  # four pictures shared passes
    assert gained['pictura_requests_total{method="GET",route="/api/jobs/{id}",status="404"}'] == 3
    assert gained['pictura_requests_total{method="POST",route="/api/jobs",status="202"}'] == 2
    assert gained['pictura_request_seconds_count{method="GET",route="/api/jobs/{id}"}'] == 3
    lags = {name: value for name, value in gained.items() if name.startswith("pictura_picture_seconds_")}
    assert of("pictura_picture_seconds_count", lags) == 4 and 0 < of("pictura_picture_seconds_sum", lags) < 60
    assert of("pictura_models_loaded", after) == 1 and of("pictura_database_up", after) == 1
    assert of("process_resident_memory_bytes", after) > 1e7 < of("pictura_worker_memory_bytes", after)
    assert server.get("/metrics").status_code == 401


def test_several_servers_tell_of_their_own_requests_and_the_same_workers(own_server, tmp_path):
    one = own_server(folder=tmp_path / "shared").start()
    two = own_server(folder=tmp_path / "shared").start()
    one.ended(one.submit({"prompt": "a cat", "num_steps": 1})["id"])
    accepted = 'pictura_requests_total{method="POST",route="/api/jobs",status="202"}'
    assert accepted in one.get("/metrics").text and accepted not in two.get("/metrics").text

    def made(server):
        return re.findall(r"^pictura_pictures_total\{.*\} (?!0)", server.get("/metrics").text, re.M)

    one.until(lambda: made(one))
    assert made(two) == made(one) and len(made(one)) == 1


def test_connections_are_limited_and_freed(own_server):
    server = own_server("--limit", "connections=20", "--limit", "head=3").start()
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(25)]
    assert server.get("/healthz").status_code == 503
    server.until(lambda: server.get("/healthz").status_code == 200, 20)
    for line in idle:
        line.close()


def test_whoever_waits_gets_their_picture_before_the_end(own_server):
    server = own_server("--grace", "40").start()
    answers = []
    body = {"prompt": "a cat", "num_steps": 100, "seed": 3}
    asking = threading.Thread(
        target=lambda: answers.append(server.request("POST", "/v1/images/generations", json=body))
    )
    asking.start()
    server.until(lambda: server.get("/api/jobs?status=running").json()["items"])
    assert server.stop() in (0, -15)
    asking.join(10)
    assert answers[0].status_code == 200 and answers[0].json()["data"][0]["b64_json"]


def test_the_queue_has_an_end_and_says_when_to_come_back(own_server):
    server = own_server("--limit", "queue=30", "--grace", "0").start()
    many = {"prompt": "a cat", "num_steps": 50, "num_images": 30}
    server.submit(many)
    answer = server.request("POST", "/api/jobs", json={"requests": [many]})
    assert answer.status_code == 429 and 1 <= int(answer.headers["retry-after"]) <= 120
    assert "queue is full" in answer.json()["error"]["message"]
    assert "pictura_queue_limit 30.0" in server.get("/metrics").text


def test_a_second_signal_ends_it_at_once(own_server):
    import signal

    server = own_server("--grace", "60").start()
    job = server.submit({"prompt": "a cat", "num_steps": 900, "num_images": 20})
    server.until(lambda: server.job(job["id"])["status"] == "running")
    server.process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert server.process.poll() is None
    began = time.monotonic()
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(5) == 130 and time.monotonic() - began < 2
    log = "\n".join(server.log)
    assert "ended at once" in log and "Traceback" not in log


def test_an_orderly_end_finishes_what_it_can_and_gives_back_the_rest(own_server):
    server = own_server("--grace", "2", "--log", "json").start()
    short = server.submit({"prompt": "a cat", "num_steps": 2})
    long = server.submit({"prompt": "a star", "num_steps": 900, "num_images": 8})
    server.until(lambda: server.job(long["id"])["status"] == "running")
    seen = []
    listening = threading.Thread(target=lambda: seen.extend(server.events(long["id"])))
    listening.start()
    time.sleep(0.3)
    began = time.monotonic()
    assert server.stop() in (0, -15) and time.monotonic() - began < 8
    listening.join(5)
    assert not listening.is_alive() and "Traceback" not in "\n".join(server.log)
    back = [line for line in lines(server) if "given back" in line["message"]]
    assert back and back[0]["process"] == "worker scenes"
    server.start()
    assert server.ended(short["id"])["status"] == "done"
    server.until(lambda: server.job(long["id"])["status"] in ("running", "queued"))
    server.request("DELETE", f"/api/jobs/{long['id']}")
