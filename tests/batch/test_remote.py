"""Batches through a remote model: a real HTTP server on loopback, nothing asked (and paid) for twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loopback import SECRET, Answer, Loopback, b64
from pictura import ParameterError, TextToImage, batch


def model(server: Any) -> Any:
    settings: dict[str, Any] = {"api_key": SECRET, "timeout": (2, 5, 10), "max_retries": 0}
    return TextToImage.from_preset("openai://gpt-image-1", base_url=f"{server.url}/v1", **settings)


def test_refused_rows_fail_alone_and_are_asked_for_again_alone(tmp_path: Path) -> None:
    healed = False

    def answer(asked: Any) -> Any:
        if asked.json["prompt"].startswith("bad") and not healed:
            return Answer(status=400, body={"error": {"message": "no such thing"}})
        return {"created": 1, "data": [{"b64_json": b64((asked.json["seed"], 0, 0))}]}

    prompts = ["cat", "bad dog", "owl", "bad pig", "{red|blue} fox"]
    with Loopback(answer) as server:
        report = batch.run(
            prompts, tmp_path / "out", model=model(server), seed=10, scorers=[lambda p: [1.0] * len(p)]
        )
        assert (report.kept, report.failed) == (3, 2)
        told = [json.loads(line) for line in (tmp_path / "out" / "failures.jsonl").read_text().splitlines()]
        assert [line["prompt"] for line in told] == ["bad dog", "bad pig"]
        assert all("no such thing" in line["reason"] for line in told)
        healed = True
        report = batch.run(
            prompts,
            tmp_path / "out",
            model=model(server),
            retry_failed=True,
            scorers=[lambda p: [1.0] * len(p)],
        )
        assert (report.kept, report.failed, report.made) == (5, 0, 2)
        assert len(server.asked) == 7
    lines = [json.loads(line) for line in (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()]
    assert [line["seed"] for line in lines] == [10, 11, 12, 13, 14]
    assert lines[4]["prompt"] in ("red fox", "blue fox")
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes(), path


def test_the_command_asks_a_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pictura.cli.app import run as command

    monkeypatch.setenv("MY_KEY", SECRET)
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n")
    with Loopback(lambda asked: {"created": 1, "data": [{"b64_json": b64()}]}) as server:
        words = ["batch", str(tmp_path / "prompts.txt"), "--out", str(tmp_path / "out"), "--seed", "1"]
        words += ["--model", "openai://gpt-image-1", "--base-url", f"{server.url}/v1", "--concurrency", "1"]
        assert command([*words, "--api-key-env", "MY_KEY"]) == 0
        assert [asked.headers["authorization"] for asked in server.asked] == [f"Bearer {SECRET}"] * 2
    assert len(list((tmp_path / "out").glob("*.png"))) == 2


def test_a_service_without_seeds(tmp_path: Path) -> None:
    network = TextToImage.from_preset(
        "openai://gpt-image-1", api_key=SECRET
    )  # the real one: never asked here
    with pytest.raises(ParameterError, match="draws without seeds"):
        batch.run(["a"], tmp_path / "out", model=network, seed=1)
    assert not (tmp_path / "out").exists()
