"""One history for server, command line and Python; copied while all of them write, and served again."""

from __future__ import annotations

import threading

from pictura import TextToImage
from pictura.cli.app import run
from pictura.history import History
from pictura.history.backup import backup, restore
from pictura.history.checking import check


def test_the_server_shows_what_others_drew(own_server, monkeypatch, capsys, tmp_path):
    server = own_server().start()
    monkeypatch.delenv("PICTURA_HISTORY")
    monkeypatch.setenv("PICTURA_HOME", str(server.folder))
    assert run(["generate", "a red apple", "--seed=1", "--steps=2", "--out", str(tmp_path / "a.png")]) == 0
    TextToImage.from_preset("scenes").generate("a green apple", seed=2, num_steps=2)
    job = server.ended(server.submit({"prompt": "a blue apple", "seed": 3, "num_steps": 2})["id"])
    found = server.get("/api/images", params={"query": "apple"}).json()["items"]
    assert [item["request"]["seed"] for item in found] == [3, 2, 1]
    assert [item["job"] for item in found] == [job["id"], None, None]  # and once each
    assert server.get(found[2]["url"]).content == (tmp_path / "a.png").read_bytes()
    again = server.request("POST", f"/api/images/{found[2]['id']}/replay").json()
    assert again["identical"], again
    capsys.readouterr()
    assert run(["history", "replay", job["images"][0]["id"]]) == 0  # made by a worker, made again here
    assert capsys.readouterr().out.startswith("identical")


def test_a_backup_beside_a_server_is_served_again(own_server, tmp_path):
    server = own_server().start()
    prompts = [{"prompt": "a cat", "seed": seed, "num_steps": 1} for seed in range(40)]
    job, copies = server.submit(*prompts), []
    done = threading.Event()

    def copy():
        with History(None, server.folder) as history:
            while not done.is_set():
                copies.append(backup(history, tmp_path / "saved").pictures)

    thread = threading.Thread(target=copy)
    thread.start()
    ended = server.ended(job["id"])
    done.set()
    thread.join()
    assert ended["status"] == "done" and len(ended["images"]) == 40 and copies == sorted(copies)
    with History(None, tmp_path / "saved") as saved:
        assert check(saved).sound
    with History(None, server.folder) as history:
        backup(history, tmp_path / "saved")
    server.kill()
    restore(tmp_path / "saved", tmp_path / "new")
    other = own_server(folder=tmp_path / "new").start()
    assert other.job(job["id"]) == ended
    for image in ended["images"]:
        assert other.get(image["url"]).status_code == 200
