"""Clients that lose patience or the line and ask again: every picture is made once."""

from __future__ import annotations

import socket
import threading
import time

import httpx2
import openai
import pytest

from crowds import together


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    """The client's pauses grow to eight seconds otherwise."""
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.3)


def made(server, prompt):
    """How many pictures of a prompt there are."""
    answer = server.get("/api/images", params={"query": prompt, "limit": 500}).json()
    return len(answer["items"])


def settle(server):
    """Until nothing is on its way any more."""

    def quiet():
        jobs = server.get("/api/jobs", params={"limit": 100}).json()["items"]
        return all(job["status"] in ("done", "failed", "cancelled") for job in jobs)

    server.until(quiet)


def client(server, **more):
    return openai.OpenAI(
        base_url=f"{server.url}/v1", api_key="none", **{"max_retries": 5, "timeout": 60, **more}
    )


@pytest.fixture(scope="module")
def patience(server):
    """Seconds that are too few for a picture of 60 steps on this machine now."""
    began = time.monotonic()
    with client(server) as patient:
        patient.images.generate(prompt="measured", extra_body={"num_steps": 60})
    return (time.monotonic() - began) / 3


def test_a_server_too_slow_for_the_clients_patience(server, patience):
    body = {"num_steps": 60}
    with client(server, timeout=patience, max_retries=200) as impatient:
        answer = impatient.images.generate(prompt="impatience", n=2, extra_body=body)
    assert len(answer.data) == 2
    settle(server)
    assert made(server, "impatience") == 2
    with client(server) as patient:  # another call is another call
        patient.images.generate(prompt="impatience", n=2, extra_body=body)
    assert made(server, "impatience") == 4


def test_patience_lost_for_good_loses_no_picture(server, patience):
    with (
        client(server, timeout=patience / 2, max_retries=1) as impatient,
        pytest.raises(openai.APITimeoutError),
    ):
        impatient.images.generate(prompt="abandoned", extra_body={"num_steps": 120})
    settle(server)
    assert made(server, "abandoned") == 1


def test_equal_calls_at_the_same_time_that_are_all_repeated(server, patience):
    def ask(_):
        with client(server, timeout=patience, max_retries=200) as impatient:
            return impatient.images.generate(prompt="crowd", extra_body={"num_steps": 60}).data[0].seed

    seeds = together(ask, range(4))
    settle(server)
    assert len(set(seeds)) == 4 and made(server, "crowd") == 4


class Cutting:
    """A proxy that loses the line: it passes requests on and hangs up when the first answer would come."""

    def __init__(self, port: int, cuts: int) -> None:
        self._port, self.cuts = port, cuts
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                line, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(line,), daemon=True).start()

    def _serve(self, line: socket.socket) -> None:
        with line, socket.create_connection(("127.0.0.1", self._port)) as there:
            data = b""
            while b"\r\n\r\n" not in data or not data.endswith(b"}"):
                if not (more := line.recv(65536)):
                    return
                data += more
            host = f"host: 127.0.0.1:{self.port}".encode()
            head, _, body = data.partition(b"\r\n\r\n")
            lines = [
                b"connection: close" if one.lower().startswith(b"connection:") else one
                for one in head.split(b"\r\n")
            ]
            assert any(one.lower() == host for one in lines)
            there.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)
            if self.cuts:
                self.cuts -= 1
                threading.Event().wait(0.3)
                return
            while more := there.recv(65536):
                line.sendall(more)

    def close(self) -> None:
        self._socket.close()


def test_a_line_that_breaks(server):
    proxy = Cutting(server.port, cuts=2)
    try:
        with openai.OpenAI(
            base_url=f"http://127.0.0.1:{proxy.port}/v1", api_key="none", max_retries=3
        ) as asking:
            answer = asking.images.generate(prompt="broken line", n=3, extra_body={"num_steps": 20})
    finally:
        proxy.close()
    settle(server)
    assert proxy.cuts == 0 and len(answer.data) == 3 and made(server, "broken line") == 3


def test_a_server_that_dies_while_a_client_waits(own_server):
    server = own_server().start()
    answers = []

    def ask():
        with client(server, max_retries=20) as waiting:
            answers.append(waiting.images.generate(prompt="survivor", n=2, extra_body={"num_steps": 60}))

    thread = threading.Thread(target=ask)
    thread.start()
    server.until(lambda: server.get("/api/jobs").json()["items"])
    server.kill()
    server.start()
    thread.join(60)
    assert len(answers[0].data) == 2
    settle(server)
    assert made(server, "survivor") == 2


@pytest.mark.slow
def test_an_answer_that_is_not_ready_in_time(own_server):
    server = own_server("--limit", "wait=1").start()
    heads = []
    with httpx2.Client(event_hooks={"response": [lambda answer: heads.append(answer)]}, timeout=60) as line:
        asking = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", http_client=line, max_retries=100)
        asking.images.generate(prompt="late", n=2, extra_body={"num_steps": 300})
    assert [answer.status_code for answer in heads[:-1]] == [503] * (len(heads) - 1) and len(heads) > 1
    assert heads[0].headers["retry-after"] == "1" and made(server, "late") == 2


@pytest.mark.slow
def test_a_full_queue_is_waited_for(own_server):
    server = own_server("--limit", "queue=2").start()
    with client(server) as asking:
        first = asking.images.generate(prompt="queue", extra_body={"num_steps": 1})
        server.submit(*[{"prompt": "a slow cat", "num_steps": 60}] * 2)
        tried = []
        server.until(lambda: server.get("/api/jobs").json()["items"][0]["status"] == "running")
        while not tried or tried[-1].status_code != 429:  # until both places of the queue are taken
            tried.append(server.request("POST", "/api/jobs", json={"requests": [{"prompt": "more"}] * 2}))
        assert int(tried[-1].headers["retry-after"]) >= 1
        again = asking.images.generate(prompt="queue", extra_body={"num_steps": 1})
    assert again.data[0].id != first.data[0].id and made(server, "queue") == 2


def test_an_idempotency_key(server):
    with client(server) as asking:
        asks = [
            asking.images.generate(
                prompt="keyed", extra_body={"num_steps": 1}, extra_headers={"Idempotency-Key": "wire-1"}
            )
            for _ in range(2)
        ]
        assert asks[0].data[0].id == asks[1].data[0].id
        with pytest.raises(openai.ConflictError, match="idempotency key"):
            asking.images.generate(prompt="other", extra_headers={"Idempotency-Key": "wire-1"})
    assert made(server, "keyed") == 1


def test_failures_are_told_once_and_not_tried_again(server):
    asked = []
    with httpx2.Client(event_hooks={"request": [asked.append]}) as line:
        asking = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", http_client=line)
        with pytest.raises(openai.BadRequestError):
            asking.images.generate(prompt="a cat", size="96x96")
    assert len(asked) == 1
