"""The hub's real client against a hub on the loopback interface."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants

import pictura
from loopback_hub import Hub, Repository, running
from pictura import CheckpointError, PresetError, ProviderError, TextToImage
from pictura.cli.app import run
from pictura.converting import convert
from pictura.formats import hub as handles

TOY = Path(__file__).parents[1] / "toy" / "pictura_toy" / "weights"
FILES = {path.name: path.read_bytes() for path in TOY.iterdir()}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PICTURA_CACHE", str(tmp_path / "ours"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    online(monkeypatch, True)
    with running() as started:
        monkeypatch.setenv("HF_ENDPOINT", started.url)
        yield started


def online(monkeypatch: pytest.MonkeyPatch, yes: bool) -> None:
    """HF_HUB_OFFLINE is read once, when the client is imported."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", not yes)
    huggingface_hub.close_session()


def test_a_model_is_fetched_and_its_commit_recorded(hub: Hub, tmp_path: Path) -> None:
    repository = hub.repositories["me/toy"] = Repository()
    commit = repository.push({**FILES, "pytorch_model.bin": b"a pickle", "code.py": b"a program"})
    model = TextToImage.from_preset("hf://me/toy")
    assert model.name == f"hf://me/toy@{commit}"
    picture = model.generate("red", seed=1)
    assert picture.request.model == model.name and picture.model_digest == model.digest
    assert np.array_equal(picture, TextToImage.from_preset("toy").generate("red", seed=1))
    assert not any(".bin" in line or ".py" in line for line in hub.requests), "only data is downloaded"
    model.save_to_preset(tmp_path / "copy")
    assert commit in (tmp_path / "copy" / "config.json").read_text()


def test_a_revision_is_what_it_says(hub: Hub) -> None:
    repository = hub.repositories["me/toy"] = Repository()
    first = repository.push(FILES, "v1")
    other = FILES["config.json"].replace(b'"num_steps": 5', b'"num_steps": 3')
    second = repository.push({**FILES, "config.json": other})
    assert handles.fetch("hf://me/toy@v1").commit == first
    assert handles.fetch("hf://me/toy").commit == handles.fetch("hf://me/toy@main").commit == second
    assert handles.fetch(f"hf://me/toy@{first}").commit == first
    assert TextToImage.from_preset("hf://me/toy@v1").generate("red").request.num_steps == 5
    assert TextToImage.from_preset("hf://me/toy").generate("red").request.num_steps == 3


def test_nothing_is_fetched_twice(hub: Hub) -> None:
    commit = hub.repositories.setdefault("me/toy", Repository()).push(FILES)
    handles.fetch("hf://me/toy")
    hub.requests.clear()
    handles.fetch("hf://me/toy")
    assert not any("resolve" in line for line in hub.requests)
    hub.requests.clear()
    assert handles.fetch(f"hf://me/toy@{commit}").path.is_dir()
    assert hub.requests == []


def test_offline_uses_the_cache_and_asks_nobody(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = hub.repositories.setdefault("me/toy", Repository()).push(FILES)
    handles.fetch("hf://me/toy")
    online(monkeypatch, False)
    hub.requests.clear()
    assert handles.fetch("hf://me/toy").commit == commit
    with pytest.raises(PresetError, match="not in the cache and the hub is offline"):
        handles.fetch("hf://me/another")
    assert hub.requests == []


def test_a_hub_that_is_down_leaves_the_cache(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = hub.repositories.setdefault("me/toy", Repository()).push(FILES)
    handles.fetch("hf://me/toy")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
        assert handles.fetch("hf://me/toy").commit == commit
        with pytest.raises(ProviderError, match="could not be fetched") as caught:
            handles.fetch("hf://me/another")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("handle", "said"),
    [
        ("hf://me/none", "has no model 'me/none'"),
        ("hf://me/toy@v9", "has no revision 'v9'"),
        ("hf://me/shut", "accept its terms"),
        ("hf://me", "no hub handle"),
        ("hf://me/toy@", "no hub handle"),
        ("hf://me/toy/more", "no hub handle"),
        ("hf://me/..", "no hub handle"),
        ("hf://../../etc", "no hub handle"),
        ("hf://me/--x", "no name a hub model can have"),
        ("ftp://me/toy", "'ftp' is unknown"),
    ],
)
def test_handles_that_lead_nowhere(hub: Hub, handle: str, said: str) -> None:
    hub.repositories["me/toy"] = Repository()
    hub.repositories["me/toy"].push(FILES)
    hub.repositories["me/shut"] = Repository(gated=True)
    hub.repositories["me/shut"].push(FILES)
    with pytest.raises(PresetError, match=said) as caught:
        TextToImage.from_preset(handle)
    assert "\n" not in str(caught.value)


def test_a_damaged_download_is_told(hub: Hub) -> None:
    broken = {**FILES, "model.safetensors": FILES["model.safetensors"][:-8]}
    hub.repositories.setdefault("me/toy", Repository()).push(broken)
    with pytest.raises(CheckpointError, match="not a sound safetensors file"):
        TextToImage.from_preset("hf://me/toy")


def test_a_registered_name_may_be_a_handle(hub: Hub) -> None:
    commit = hub.repositories.setdefault("me/toy", Repository()).push(FILES)
    pictura.presets.register("my-hub-toy", f"hf://me/toy@{commit}")
    assert TextToImage.from_preset("my-hub-toy").name == f"hf://me/toy@{commit}"


def test_of_a_diffusers_folder_only_what_is_needed_is_fetched(
    hub: Hub, written: Callable[[str], Path]
) -> None:
    folder = written("sd1")
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    stem = "unet/diffusion_pytorch_model"
    junk = {f"{stem}.bin": b"a pickle", f"{stem}.fp16.safetensors": files[f"{stem}.safetensors"],
            f"{stem}.non_ema.safetensors": b"x", "v1-5-pruned.safetensors": b"x", "v1-5.ckpt": b"x",
            "safety_checker/model.safetensors": b"x", "safety_checker/config.json": b"{}",
            "unet/pipeline.py": b"x", "vae/other.safetensors": b"x", "LICENSE.md": b"x"}  # fmt: skip
    commit = hub.repositories.setdefault("me/sd", Repository()).push({**files, **junk})
    model = TextToImage.from_preset("hf://me/sd")
    assert model.name == f"hf://me/sd@{commit}"
    fetched = {path.relative_to(handles.fetch(model.name).path).as_posix()
               for path in handles.fetch(model.name).path.rglob("*") if path.is_file()}  # fmt: skip
    assert fetched == {*files, "LICENSE.md"}
    assert np.array_equal(
        model.generate("a cat", num_steps=1, seed=1),
        TextToImage.from_preset(folder).generate("a cat", num_steps=1, seed=1),
    )
    half = handles.fetch("hf://me/sd", variant="fp16").path
    assert (half / f"{stem}.fp16.safetensors").exists()
    hub.requests.clear()
    handles.fetch(model.name)  # whole in its first spelling
    assert hub.requests == []
    with pytest.raises(PresetError, match="no variant 'bf16'"):
        handles.fetch("hf://me/sd", variant="bf16")


def test_one_file_of_a_repository(hub: Hub, written: Callable[[str], Path], tmp_path: Path) -> None:
    single = convert(written("sd1"), tmp_path / "sd", "single-file").read_bytes()
    commit = hub.repositories.setdefault("me/files", Repository()).push(
        {"one.safetensors": single, "sub/two.safetensors": single, "README.md": b"# Two"}
    )
    for file in ("one.safetensors", "sub/two.safetensors"):
        model = TextToImage.from_preset(f"hf://me/files/{file}", config=written("sd1"))
        assert model.name.startswith(f"hf://me/files/{file}@{commit}?config=")
        assert TextToImage.from_preset(model.name).digest == model.digest
    assert (
        TextToImage.from_preset("hf://me/files", config=written("sd1")).digest == model.digest
    )  # one at the top
    hub.repositories["me/files"].push({"one.safetensors": single, "two.safetensors": single})
    with pytest.raises(PresetError, match="holds several models; name one after it: one.safetensors, two"):
        handles.fetch("hf://me/files")
    with pytest.raises(PresetError, match="has no file 'three.safetensors'"):
        handles.fetch("hf://me/files/three.safetensors")
    hub.repositories["me/pickles"] = Repository()
    hub.repositories["me/pickles"].push({"model.ckpt": b"x", "pytorch_model.bin": b"x"})
    with pytest.raises(PresetError, match="holds no model_index.json, no config.json and no .safetensors"):
        handles.fetch("hf://me/pickles")


def test_sharded_repositories() -> None:
    stem = "transformer/diffusion_pytorch_model"
    files = ["model_index.json", "transformer/config.json", f"{stem}.safetensors.index.json",
             f"{stem}-00001-of-00002.safetensors", f"{stem}-00002-of-00002.safetensors",
             f"{stem}.safetensors.index.fp16.json", f"{stem}.fp16-00001-of-00001.safetensors",
             f"{stem}.safetensors.index.old.json", f"{stem}-00001-of-00001.old.safetensors",
             "vae/config.json", "vae/diffusion_pytorch_model.fp16.safetensors"]  # fmt: skip
    vae = "vae/diffusion_pytorch_model.fp16.safetensors"  # the only one there is
    rest = {"model_index.json", "transformer/config.json", "vae/config.json", vae}
    assert set(handles.wanted(files)) == rest | set(files[2:5])
    assert set(handles.wanted(files, "fp16")) == rest | set(files[5:7])
    assert set(handles.wanted(files, "old")) == rest | set(files[7:9])


def test_downloaded_models_are_listed_and_removed(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.repositories.setdefault("me/toy", Repository()).push(FILES)
    assert run(["models", "pull", "hf://me/toy"]) == 0
    name, place = capsys.readouterr().out.splitlines()
    assert name.startswith("hf://me/toy@") and (Path(place) / "config.json").exists()
    assert run(["models", "list", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (row,) = [row for row in rows if row["description"] == "downloaded"]
    assert row["name"] == "hf://me/toy" and row["bytes"] >= len(FILES["model.safetensors"])
    assert {row["name"]: row["bytes"] for row in rows}["scenes"] > 1_000_000
    assert run(["models", "list"]) == 0 and "hf://me/toy" in capsys.readouterr().out
    assert run(["models", "remove", "hf://me/toy", "--yes"]) == 0
    assert "freed" in capsys.readouterr().out and not Path(place).exists()
    assert run(["models", "remove", "hf://me/toy", "--yes"]) == 2
    assert "was not downloaded" in capsys.readouterr().err
