"""Servers that tests share, and those of their own; a real PostgreSQL."""

from __future__ import annotations

import secrets
import signal
from pathlib import Path

import pytest

from postgresql import Postgres
from serving import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A server with the built-in model that tests share: they look only at what they made themselves."""
    made = Server(tmp_path_factory.mktemp("server")).start()
    yield made
    assert made.stop() in (0, -signal.SIGTERM)


@pytest.fixture
def own_server(tmp_path):
    """A function that makes servers which only this test uses; they are ended after it."""
    made: list[Server] = []

    def make(*arguments: str, folder: Path | None = None, first: str = "", **environment: str) -> Server:
        made.append(Server(folder or tmp_path / "server", *arguments, first=first, **environment))
        return made[-1]

    yield make
    for one in made:
        if one.process is not None and one.process.poll() is None:
            one.stop()


@pytest.fixture(scope="session")
def postgres():
    """A real PostgreSQL server."""
    if not Postgres.installed():
        pytest.skip("PostgreSQL is not installed")
    made = Postgres().start()
    yield made
    made.stop()


@pytest.fixture
def pg(postgres):
    """(server, name of a new database in it)."""
    name = f"t{secrets.token_hex(6)}"
    postgres.create(name)
    return postgres, name


@pytest.fixture(scope="session")
def keyed(tmp_path_factory):
    """A server with keys, and the keys by name: all, reader, maker, slow (6 requests a minute)."""
    from pictura.server.keys import added

    file = tmp_path_factory.mktemp("keys") / "keys"
    keys = {
        "reader": added(file, "reader", ["read"]),
        "maker": added(file, "maker", ["read", "generate"]),
        "slow": added(file, "slow", ["read", "generate"], requests=6, pictures=2),
    }
    arguments = ["--api-key-file", str(file), "--cors", "https://studio.example", "--limit", "body=1000000"]
    arguments += ["--limit", "slow=2", "--limit", "head=2", "--limit", "listeners=3", "--log", "json"]
    secret = "the-key-of-everything"
    made = Server(tmp_path_factory.mktemp("keyed"), *arguments, PICTURA_API_KEY=secret).start()
    yield made, {**keys, "all": secret}
    assert made.stop() in (0, -signal.SIGTERM)


@pytest.fixture(scope="session")
def scenes():
    """The same model, here."""
    from pictura import TextToImage

    return TextToImage.from_preset("scenes")


@pytest.fixture
def online(monkeypatch):
    """Hugging Face's clients refuse to ask anybody otherwise, loopback included."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.fixture
def conditioned(own_server, tmp_path, monkeypatch):
    """A server whose "scenes" is a small Stable Diffusion, that model here, and a request with pictures."""
    from PIL import Image

    from pictura import TextToImage
    from pipelines import pipeline  # torch and diffusers

    folder, source, mask = tmp_path / "sd1", tmp_path / "in.png", tmp_path / "mask.png"
    pipeline("sd1", 1).save_pretrained(folder)
    Image.effect_noise((48, 32), 90).convert("RGB").save(source)
    Image.linear_gradient("L").resize((48, 32)).save(mask)
    monkeypatch.setenv("PICTURA_CACHE", str(tmp_path / "here"))
    server = own_server("--model", f"scenes={folder}", PICTURA_CACHE=str(tmp_path / "there")).start()
    wanted = {"image": source, "mask": mask, "strength": 0.6, "seed": 3}
    return server, TextToImage.from_preset(folder), wanted
