"""The native API of a real server: jobs and their events."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from pictura import Picture
from pictures import opened


def picture(server, image):
    answer = server.get(image["url"])
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/png"
    return Image.open(io.BytesIO(answer.content))


def test_pictures_are_those_made_alone(server, scenes, tmp_path):
    wanted = [
        {"prompt": "a cat left of a pizza", "seed": 7},
        {"prompt": "two stars", "seed": 0, "num_steps": 5, "sampler": "heun"},
        {"prompt": "a rocket on a blue background", "seed": 2**40, "guidance_scale": 3.0, "num_steps": 9},
    ]
    jobs = [server.submit(one) for one in wanted]
    for one, job in zip(wanted, jobs, strict=True):
        done = server.ended(job["id"])
        (image,) = done["images"]
        assert (done["status"], image["index"], image["seed"]) == ("done", 0, one["seed"])
        expected = scenes.generate(**{"inputs": one["prompt"], **{k: one[k] for k in one if k != "prompt"}})
        assert np.array_equal(picture(server, image), expected)
        (tmp_path / "made.png").write_bytes(server.get(image["url"]).content)
        made = Picture.open(tmp_path / "made.png")
        assert made.request == expected.request and made.model_digest == expected.model_digest


def test_a_job_of_several_and_the_seeds_that_it_draws(server):
    job = server.submit({"prompt": "a cat", "num_images": 3, "num_steps": 2}, {"prompt": "a dog"})
    assert (job["status"], job["total"]) == ("queued", 4)
    done = server.ended(job["id"])
    seeds = [image["seed"] for image in done["images"]]
    assert [image["index"] for image in done["images"]] == [0, 1, 2, 3]
    assert seeds[1:3] == [seeds[0] + 1, seeds[0] + 2] and seeds[3] not in seeds[:3]


def test_events_tell_steps_previews_and_pictures(server):
    job = server.submit({"prompt": "a cat above a star", "seed": 1, "num_steps": 40})
    events = server.events(job["id"])
    kinds = [kind for kind, _, _ in events]
    assert kinds[0] == "status" and kinds[-2:] == ["picture", "status"]
    assert all((seq is None) == (kind in ("step", "preview")) for kind, _, seq in events)
    steps = [data["step"] for kind, data, _ in events if kind == "step"]
    assert steps and steps == sorted(set(steps)) and all(1 <= step <= 40 for step in steps)
    shown = [data for kind, data, _ in events if kind == "preview"]
    assert opened(shown[-1]["image"]).size == (128, 128)
    middle = events[-2]
    assert server.events(job["id"], after=middle[2]) == events[-1:]
    assert server.events(job["id"], after=events[-1][2]) == server.events(job["id"], after=2**62) == []
    resumed = server.request(
        "GET", f"/api/jobs/{job['id']}/events", headers={"last-event-id": str(middle[2])}
    )
    assert resumed.text.count("event:") == 1


def test_cancelling_keeps_what_is_finished(server):
    job = server.submit(*[{"prompt": "a cat", "seed": seed, "num_steps": 20} for seed in range(40)])
    server.until(lambda: server.job(job["id"])["images"])
    cancelled = server.request("DELETE", f"/api/jobs/{job['id']}").json()
    assert cancelled["status"] == "cancelled" and 1 <= len(cancelled["images"]) < 40
    assert server.events(job["id"])[-1][1] == {"status": "cancelled"}
    later = server.submit({"prompt": "a star", "num_steps": 1})
    assert server.ended(later["id"])["status"] == "done"
    assert server.job(job["id"])["images"] == cancelled["images"]


def test_the_same_idempotency_key_makes_it_once(server):
    one = {"prompt": "a cat", "num_steps": 1}
    first = server.submit(one, **{"Idempotency-Key": "k-1"})
    assert server.submit(one, **{"Idempotency-Key": "k-1"})["id"] == first["id"]
    answer = server.request(
        "POST", "/api/jobs", json={"requests": [{"prompt": "a dog"}]}, headers={"Idempotency-Key": "k-1"}
    )
    assert answer.status_code == 409 and "idempotency key" in answer.json()["error"]["message"]


def test_what_the_model_cannot_do_fails_with_words(server):
    done = server.ended(server.submit({"prompt": "a cat", "size": "96x96"})["id"])
    assert done["status"] == "failed"
    (failure,) = done["failures"]
    assert failure["kind"] == "ParameterError" and "128x128" in failure["error"]


def test_bad_requests(server):
    for body, status, part in [
        ({}, 400, "requests"),
        ({"requests": []}, 400, "requests"),
        ({"requests": [3]}, 400, "object"),
        ({"requests": [{"prompt": "a", "sed": 1}]}, 400, "seed"),
        ({"requests": [{"prompt": "a", "seed": -1}]}, 400, "seed"),
        ({"requests": [{"prompt": "a", "num_images": 0}]}, 400, "num_images"),
        ({"requests": [{"prompt": "a", "model": "nothing"}]}, 404, "scenes"),
        ({"requests": [{"prompt": "a", "options": {"image": {"path": "/etc/passwd"}}}]}, 400, "path"),
        ({"requests": [{"prompt": "a"}], "more": 1}, 400, "more"),
    ]:
        answer = server.request("POST", "/api/jobs", json=body)
        assert answer.status_code == status and part in answer.json()["error"]["message"], answer.text
    assert server.request("POST", "/api/jobs", content=b"{").status_code == 400
    for path in ("/api/jobs/abc", "/api/jobs/" + "0" * 32, "/images/" + "0" * 32 + ".png"):
        assert server.get(path).status_code == 404


def test_pages_of_other_sites_and_foreign_names_are_refused(server):
    body = {"requests": [{"prompt": "a"}]}
    for headers in ({"origin": "http://evil.example"}, {"host": "evil.example"}):
        answer = server.request("POST", "/api/jobs", json=body, headers=headers)
        assert answer.status_code == 403
    own = {"origin": server.url}
    assert server.request("POST", "/api/jobs", json=body, headers=own).status_code == 202


def test_others_need_a_key(own_server, tmp_path):
    import subprocess
    import sys

    command = [sys.executable, "-c", "import sys; from pictura.cli import main; sys.exit(main())"]
    import os

    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("PICTURA_API_KEY", None)
    refused = subprocess.run(
        [*command, "serve", "--host", "0.0.0.0", "--folder", str(tmp_path)],
        capture_output=True, text=True, env=environment, timeout=60,
    )  # fmt: skip
    assert refused.returncode == 2 and "PICTURA_API_KEY" in refused.stderr
    server = own_server(PICTURA_API_KEY="secret-key").start()
    assert server.get("/healthz").status_code == 200
    assert server.get("/api/jobs").status_code == 401
    assert server.get("/api/jobs", headers={"authorization": "Bearer wrong"}).status_code == 401
    assert server.get("/api/jobs", headers={"authorization": "Bearer secret-key"}).status_code == 200
    assert "secret-key" not in "\n".join(server.log)


def test_the_api_process_never_imports_torch():
    import subprocess
    import sys

    code = "import sys, pictura.server.app; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


def test_head_and_slashes(server):
    """HEAD is GET without the body; a slash at the end of a path changes nothing."""
    done = server.ended(server.submit({"prompt": "a cat", "seed": 7.0, "num_steps": 1.0})["id"])
    assert done["images"][0]["seed"] == 7
    for path in ("/healthz", "/", "/api/images", done["images"][0]["url"]):
        got, head = server.get(path), server.request("HEAD", path)
        assert head.status_code == got.status_code == 200 and head.content == b"", path
        assert head.headers["content-type"] == got.headers["content-type"], path
    assert server.request("HEAD", f"/api/jobs/{done['id']}/events").status_code == 405
    assert server.get("/api/jobs/").json() == server.get("/api/jobs").json()
    assert server.get("/sdapi/v1/options/").status_code == 200


def test_routes_that_do_not_exist_say_where_they_are_listed(server):
    texts = {
        "/v1": lambda body: body["error"]["message"],
        "/v1/chat": lambda body: body["error"]["message"],
        "/sdapi/v1/nosuch": lambda body: body["detail"],
        "/api/nosuch": lambda body: body["error"]["message"],
    }
    for path, text in texts.items():
        answer = server.get(path)
        assert answer.status_code == 404 and "/openapi.json" in text(answer.json()), path
    wrong = server.request("PUT", "/v1/images/generations")
    assert wrong.status_code == 405 and "use POST" in wrong.json()["error"]["message"]
    long = server.get("/api/images", params={"query": "x" * 2000})
    assert long.status_code == 422 and long.json()["error"]["parameter"] == "query"
    assert server.get("/api/jobs?status=lost").status_code == 422


def test_guidance_beyond_all_numbers_is_the_callers_fault(server):
    answer = server.request(
        "POST", "/v1/images/generations", json={"prompt": "a cat", "num_steps": 2, "guidance_scale": 1e30}
    )
    assert answer.status_code == 422 and "guidance_scale" in answer.json()["error"]["message"]


def test_a_full_queue_refuses_what_is_new_alone(own_server):
    server = own_server("--limit", "queue=2").start(ready=False)  # nothing is made before a worker is there
    body, key = {"requests": [{"prompt": "a cat", "num_images": 2}]}, {"idempotency-key": "mine"}
    job = server.request("POST", "/api/jobs", json=body, headers=key)
    assert job.status_code == 202
    again = server.request("POST", "/api/jobs", json=body, headers=key)
    assert again.status_code == 202 and again.json()["id"] == job.json()["id"]
    new = server.request("POST", "/api/jobs", json={"requests": [{"prompt": "a dog"}]})
    assert new.status_code == 429 and int(new.headers["retry-after"]) >= 1
    large = server.request("POST", "/api/jobs", json={"requests": [{"prompt": "a dog", "num_images": 3}]})
    assert large.status_code == 400 and "holds 2" in large.json()["error"]["message"]
    assert server.ended(job.json()["id"])["status"] == "done"
