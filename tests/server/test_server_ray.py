"""Workers on a Ray cluster of several nodes over PostgreSQL; one node is killed under load."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from PIL import Image

from pictura import TextToImage
from pipelines import pipeline


@pytest.fixture
def cluster(monkeypatch):
    """A cluster of three nodes on this machine; the first one runs no workers."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    store = {"object_store_memory": 100 << 20, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **store})
    made.nodes_of_workers = [made.add_node(num_cpus=1, object_store_memory=100 << 20) for _ in range(2)]
    made.wait_for_nodes()
    yield made
    made.shutdown()


@pytest.mark.slow
def test_a_node_that_is_killed_loses_nothing(own_server, cluster, pg, tmp_path):
    postgres, name = pg
    TextToImage.from_preset("toy", load_weights=False).save_to_preset(tmp_path / "toy")
    server = own_server(
        "--database", postgres.url(name), "--engine", "ray", "--address", cluster.address,
        "--workers", "2", "--model", f"toy={tmp_path / 'toy'}",
    ).start()  # fmt: skip
    server.until(lambda: "ready" == server.get("/api/models").json()["items"][0]["state"])
    steps = 150
    jobs = [
        server.submit(*[{"prompt": "red", "seed": 100 * k + i, "num_steps": steps} for i in range(10)])
        for k in range(4)
    ]
    server.until(lambda: postgres.count(name, "pictures") >= 5)
    assert postgres.count(name, "pictures") < 40, "the load is over too early to kill under it"
    cluster.remove_node(cluster.nodes_of_workers[0], allow_graceful=False)
    model = TextToImage.from_preset(tmp_path / "toy")
    for k, job in enumerate(jobs):
        done = server.ended(job["id"], 120)
        assert done["status"] == "done" and not done["failures"]
        assert [image["index"] for image in done["images"]] == list(range(10))
        expected = model.generate("red", seed=100 * k, num_steps=steps)
        first = Image.open(io.BytesIO(server.get(done["images"][0]["url"]).content))
        assert np.array_equal(first, expected)
    assert postgres.count(name, "pictures") == 40


@pytest.mark.slow
def test_pictures_that_were_sent_reach_the_nodes(own_server, cluster, pg, tmp_path):
    """The server's cache is not the one that the nodes were started with."""
    postgres, name = pg
    pipe = pipeline("sd1", 1)
    pipe.save_pretrained(tmp_path / "tiny")
    server = own_server(
        "--database", postgres.url(name), "--engine", "ray", "--address", cluster.address,
        "--model", f"tiny={tmp_path / 'tiny'}", PICTURA_CACHE=str(tmp_path / "cache"),
    ).start(ready=False)  # fmt: skip
    image = Image.new("RGB", (32, 32), "teal")
    file = io.BytesIO()
    image.save(file, "PNG")
    sent = server.until(lambda: server.request("POST", "/api/attachments", content=file.getvalue())).json()
    wanted = {"prompt": "a cat", "seed": 3, "num_steps": 4, "guidance_scale": 2.0, "model": "tiny"}
    job = server.submit({**wanted, "options": {"image": sent, "strength": 0.5}})
    done = server.ended(job["id"])
    assert done["status"] == "done", done["failures"]
    found = Image.open(io.BytesIO(server.get(done["images"][0]["url"]).content))
    model = TextToImage.from_preset(tmp_path / "tiny")
    del wanted["model"], wanted["prompt"]
    expected = model.generate("a cat", **wanted, image=image, strength=0.5)
    assert np.array_equal(found, expected)


def test_what_it_needs_is_said(own_server):
    for arguments, words in [
        (["--engine", "ray"], "--database postgresql"),
        (["--engine", "slurm"], "local or ray"),
    ]:
        server = own_server(*arguments)
        with pytest.raises(RuntimeError, match=words):
            server.start()
