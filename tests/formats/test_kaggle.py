"""Kaggle's handles against a stand-in on the loopback interface."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from loopback_kaggle import Kaggle, running
from pictura import PresetError, ProviderError, TextToImage
from pictura.formats import cache
from pictura.formats import kaggle as handles

TOY = Path(__file__).parents[1] / "toy" / "pictura_toy" / "weights"
FILES = {path.name: path.read_bytes() for path in TOY.iterdir()}
NAME = "me/toy/pictura/small"


@pytest.fixture
def kaggle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kaggle]:
    monkeypatch.setenv("PICTURA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("HF_HUB_OFFLINE", "KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name, raising=False)
    with running() as started:
        monkeypatch.setenv("KAGGLE_API_ENDPOINT", started.url)
        yield started


def test_a_model_is_fetched_once_and_its_version_recorded(kaggle: Kaggle, tmp_path: Path) -> None:
    more = {"assets/words.txt": b"a", "model.bin": b"a pickle", "code.py": b"a program"}
    kaggle.models[NAME] = [{**FILES, **more}]
    model = TextToImage.from_preset(f"kaggle://{NAME}")
    assert model.name == f"kaggle://{NAME}/1"
    assert np.array_equal(
        model.generate("red", seed=1), TextToImage.from_preset("toy").generate("red", seed=1)
    )
    assert not any(".bin" in line or ".py" in line for line in kaggle.requests), "only data is downloaded"
    assert (tmp_path / "cache/kaggle" / NAME / "1/assets/words.txt").read_bytes() == b"a"
    kaggle.requests.clear()
    assert TextToImage.from_preset(model.name).digest == model.digest
    assert kaggle.requests == []
    model.save_to_preset(tmp_path / "copy")
    (found,) = cache.cached()
    assert found.handle == f"kaggle://{NAME}" and found.size > sum(map(len, FILES.values())) - 1
    cache.remove(model.name)
    assert cache.cached() == []
    with pytest.raises(PresetError, match="was not downloaded"):
        cache.remove(model.name)


def test_versions(kaggle: Kaggle, monkeypatch: pytest.MonkeyPatch) -> None:
    other = FILES["config.json"].replace(b'"num_steps": 5', b'"num_steps": 3')
    kaggle.models[NAME] = [FILES, {**FILES, "config.json": other}]
    assert TextToImage.from_preset(f"kaggle://{NAME}/1").generate("red").request.num_steps == 5
    assert TextToImage.from_preset(f"kaggle://{NAME}").generate("red").request.num_steps == 3
    with pytest.raises(PresetError, match="Kaggle has no"):
        handles.fetch(f"kaggle://{NAME}/3")
    monkeypatch.setenv("PICTURA_OFFLINE", "1")
    kaggle.requests.clear()
    assert handles.fetch(f"kaggle://{NAME}").handle == f"kaggle://{NAME}/2"
    with pytest.raises(PresetError, match="not in the cache and Pictura is offline"):
        handles.fetch("kaggle://me/toy/pictura/large")
    assert kaggle.requests == []


def test_a_download_that_breaks_off_is_taken_up_again(kaggle: Kaggle) -> None:
    kaggle.models[NAME] = [{**FILES, "zz.json": b"{}"}]
    (missing,) = kaggle.models[NAME]
    kaggle.models[NAME] = [_Forgetful(missing, "zz.json")]
    with pytest.raises(PresetError, match="Kaggle has no"):
        handles.fetch(f"kaggle://{NAME}")
    kaggle.models[NAME] = [missing]
    kaggle.requests.clear()
    assert handles.fetch(f"kaggle://{NAME}").folder.is_dir()
    downloads = [line for line in kaggle.requests if "/download/" in line]
    assert len(downloads) == 1 and "zz.json" in downloads[0]


class _Forgetful(dict[str, bytes]):
    """Lists a file and does not have it."""

    def __init__(self, files: object, lost: str) -> None:
        super().__init__(files)  # type: ignore[call-overload]
        self.lost = lost

    def __contains__(self, name: object) -> bool:
        return name != self.lost and super().__contains__(name)


def test_tokens_are_sent_and_never_told(kaggle: Kaggle, monkeypatch: pytest.MonkeyPatch) -> None:
    kaggle.models[NAME], kaggle.token = [FILES], "s3cret"
    with pytest.raises(PresetError, match="wants you to accept its terms") as caught:
        handles.fetch(f"kaggle://{NAME}")
    monkeypatch.setenv("KAGGLE_API_TOKEN", "wr0ng")
    with pytest.raises(PresetError, match="KAGGLE_API_TOKEN") as caught:
        handles.fetch(f"kaggle://{NAME}")
    assert "wr0ng" not in str(caught.value)
    monkeypatch.setenv("KAGGLE_API_TOKEN", "s3cret")
    assert handles.fetch(f"kaggle://{NAME}").handle == f"kaggle://{NAME}/1"


def test_where_kaggle_is_down_the_cache_is_left(kaggle: Kaggle, monkeypatch: pytest.MonkeyPatch) -> None:
    kaggle.models[NAME] = [FILES]
    handles.fetch(f"kaggle://{NAME}")
    kaggle.broken = True
    assert handles.fetch(f"kaggle://{NAME}").handle == f"kaggle://{NAME}/1"
    with pytest.raises(ProviderError, match="status 500"):
        handles.fetch("kaggle://me/other/pictura/small")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("KAGGLE_API_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
        with pytest.raises(ProviderError, match="could not be fetched"):
            handles.fetch("kaggle://me/other/pictura/small")


@pytest.mark.parametrize(
    "handle",
    ["kaggle://me/toy", "kaggle://me/toy/pictura/small/new", "kaggle://../x/y/z", "kaggle://a/b/../d"],
)
def test_handles_that_are_none(handle: str) -> None:
    with pytest.raises(PresetError, match="is no Kaggle handle"):
        handles.fetch(handle)


@pytest.mark.parametrize("name", ["../outside.json", "/etc/passwd.json", "a/../../b.json", "a\\b.json"])
def test_names_that_leave_the_folder_are_not_written(kaggle: Kaggle, name: str) -> None:
    kaggle.models[NAME] = [{name: b"{}"}]
    with pytest.raises(ProviderError, match="which Pictura does not write"):
        handles.fetch(f"kaggle://{NAME}")
