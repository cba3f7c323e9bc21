"""Training through `TextToImage`: it learns, from any kind of data, and tells how it went."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from pictura import FileError, ParameterError, TextToImage, TrainingError
from pictura.training.fitting import Callback, History

COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220)}
ROWS = [{"images": Image.new("RGB", (8, 8), value), "prompts": name} for name, value in COLOURS.items()] * 4


@pytest.fixture
def model() -> TextToImage:
    return TextToImage.from_preset("toy")


def closest(picture: Any) -> str:
    mean = np.asarray(picture).mean((0, 1))
    return min(COLOURS, key=lambda name: float(np.abs(mean - COLOURS[name]).sum()))


def bits(model: TextToImage) -> list[bytes]:
    return [tensor.detach().numpy().tobytes() for tensor in model.backbone.parameters()]


def test_it_learns_what_it_is_shown(model: TextToImage) -> None:
    assert [closest(p) for p in model.generate(list(COLOURS), seed=1)] != list(COLOURS)
    model.compile(learning_rate=0.02)
    before = model.evaluate(ROWS)
    history = model.fit(ROWS, epochs=30, batch_size=6, validation_data=ROWS[:3])
    assert isinstance(history, History) and history.epoch == list(range(30))
    assert set(history.history) == {"loss", "mse", "val_loss", "val_mse"}
    assert history.history["loss"][-1] < 0.1 * history.history["loss"][0]
    assert model.evaluate(ROWS)["loss"] < 0.1 * before["loss"]
    assert [closest(p) for p in model.generate(list(COLOURS), seed=1)] == list(COLOURS)
    assert not any(module.training for module in model.backbone.values())


def test_the_default_loss_and_metric_are_the_mean_squared_error(model: TextToImage) -> None:
    history = model.fit(ROWS, epochs=2)
    assert history.history["loss"] == pytest.approx(history.history["mse"], rel=1e-6)
    found = model.evaluate(ROWS)
    assert found["loss"] == pytest.approx(found["mse"], rel=1e-6) and found == model.evaluate(ROWS)


def test_every_kind_of_data_trains_the_same(model: TextToImage, tmp_path: Path) -> None:
    folder, table = tmp_path / "folder", tmp_path / "table"
    for place in (folder, table):
        place.mkdir()
        for at, row in enumerate(ROWS):
            row["images"].save(place / f"{at:02}.png")  # type: ignore[attr-defined]
    for at, row in enumerate(ROWS):
        (folder / f"{at:02}.txt").write_text(f"{row['prompts']}\n")
    lines = [json.dumps({"file_name": f"{at:02}.png", "text": row["prompts"]}) for at, row in enumerate(ROWS)]
    (table / "metadata.jsonl").write_text("\n".join(lines))
    arrays = [{"image": np.asarray(row["images"]), "caption": row["prompts"]} for row in ROWS]
    floats = [
        {"images": torch.tensor(row["image"]).permute(2, 0, 1) / 255, "prompts": row["caption"]}
        for row in arrays
    ]
    hub = datasets.Dataset.from_list(
        [{"image": row["images"], "text": row["prompts"]} for row in ROWS],
        features=datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")}),
    )
    kinds: list[Any] = [
        ROWS,
        str(folder),
        table,
        arrays,
        hub,
        iter(ROWS),
        (row for row in ROWS),
        hub.to_iterable_dataset(),
        DataLoader(floats, batch_size=5),  # type: ignore[arg-type]
        {"images": [row["images"] for row in ROWS], "prompts": [row["prompts"] for row in ROWS]},
    ]
    results = []
    for kind in kinds:
        fresh = TextToImage.from_preset("toy")
        fresh.fit(kind, batch_size=4, shuffle=False)
        results.append(bits(fresh))
    for kind, result in zip(kinds, results, strict=True):
        assert result == results[0], kind


def test_training_repeats_itself(model: TextToImage) -> None:
    other = TextToImage.from_preset("toy")
    one, two = model.fit(ROWS, epochs=2, seed=3), other.fit(ROWS, epochs=2, seed=3)
    assert one.history == two.history and bits(model) == bits(other)
    third = TextToImage.from_preset("toy")
    third.fit(ROWS, epochs=2, seed=4)
    assert bits(third) != bits(model)


@pytest.mark.parametrize(
    "optimizer",
    ["adam", "SGD", torch.optim.RMSprop, partial(torch.optim.SGD, lr=0.1, momentum=0.9), "auto"],
)
def test_optimizers(model: TextToImage, optimizer: Any) -> None:
    before = bits(model)
    model.compile(optimizer, learning_rate=None if isinstance(optimizer, partial) else 0.01)
    history = model.fit(ROWS, epochs=5)
    assert history.history["loss"][-1] < history.history["loss"][0] and bits(model) != before


def test_an_optimizer_of_ones_own_moves_what_it_was_given(model: TextToImage) -> None:
    text = bits(model)[0]
    optimizer = torch.optim.SGD(model.backbone["denoiser"].parameters(), lr=0.1)
    model.compile(optimizer)
    before = bits(model)
    model.fit(ROWS)
    after = bits(model)
    assert after[0] == text and after[1:] != before[1:]


def test_losses_and_metrics(model: TextToImage) -> None:
    def worst(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (prediction - target).abs().max()

    model.compile(loss="mae", metrics=["mae", worst, torch.nn.HuberLoss()])
    found = model.fit(ROWS).history
    assert set(found) == {"loss", "mae", "worst", "huberloss"}
    assert found["loss"] == pytest.approx(found["mae"])
    model.compile(loss=torch.nn.L1Loss, metrics=None)
    assert model.evaluate(ROWS)["loss"] == pytest.approx(_mean_absolute_error(model), rel=1e-5)


def _mean_absolute_error(model: TextToImage) -> float:
    batch = model.preprocessor(ROWS)
    from pictura.training.trainer import generator

    with torch.no_grad():
        prediction, target = model.family.predict(batch, generator(0, 0))  # type: ignore[attr-defined]
    return float((prediction - target).abs().mean())


def test_callbacks_are_told_and_can_stop(model: TextToImage) -> None:
    class Watch(Callback):
        def __init__(self) -> None:
            self.seen: list[str] = []

        def on_train_begin(self, logs: Any = None) -> None:
            self.seen.append("begin")

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.seen.append(f"batch {batch}")
            assert logs["loss"] > 0

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.seen.append(f"epoch {epoch}")
            self.model.stop_training = epoch == 1

        def on_train_end(self, logs: Any = None) -> None:
            self.seen.append("end")

    class Bare:
        epochs = 0

        def on_epoch_end(self, epoch: int, logs: Any) -> None:
            self.epochs += 1

    watch, bare = Watch(), Bare()
    history = model.fit(ROWS, epochs=5, batch_size=8, callbacks=[watch, bare])
    batches = ["batch 0", "batch 1"]
    assert watch.seen == ["begin", *batches, "epoch 0", *batches, "epoch 1", "end"]
    assert bare.epochs == 2 and len(history.history["loss"]) == 2
    assert len(model.fit(ROWS, epochs=3).history["loss"]) == 3  # stopping is not for ever


def test_random_weights_can_be_trained(capsys: pytest.CaptureFixture[str]) -> None:
    model = TextToImage.from_preset("toy", load_weights=False, width=24)
    model.compile(learning_rate=0.01)
    history = model.fit(ROWS, epochs=20, verbose=True)
    assert history.history["loss"][-1] < history.history["loss"][0]
    assert capsys.readouterr().err.startswith("epoch 1/20  loss ")


def test_a_trained_model_is_saved_and_known_by_its_digest(model: TextToImage, tmp_path: Path) -> None:
    digest = model.digest
    model.fit(ROWS)
    assert model.digest != digest
    model.save_to_preset(tmp_path / "mine")
    again = TextToImage.from_preset(tmp_path / "mine")
    assert again.digest == model.digest and bits(again) == bits(model)
    config = json.loads((tmp_path / "mine" / "config.json").read_text())
    assert config["provenance"]["based_on"] == "toy"


def _endless() -> Iterator[dict[str, Any]]:
    while True:
        yield ROWS[0]


BAD: list[tuple[type[Exception], str, Any, dict[str, Any]]] = [
    (ParameterError, "data", 5, {}),
    (ParameterError, "data", [], {}),
    (ParameterError, "data", iter([]), {}),
    (ParameterError, "data", [3], {}),
    (ParameterError, "data", [{"images": ROWS[0]["images"]}], {}),
    (ParameterError, "data", [*ROWS, {"images": "x"}], {}),
    (ParameterError, "data", [{"images": np.zeros((8, 8)), "prompts": "red"}], {}),
    (ParameterError, "data", [{"images": np.full((8, 8, 3), 7.0), "prompts": "red"}], {}),
    (ParameterError, "data", [{"images": ROWS[0]["images"], "prompts": 5}], {}),
    (ParameterError, "data", [*ROWS, {"images": Image.new("RGB", (9, 8)), "prompts": "red"}], {}),
    (ParameterError, "data", _endless(), {"epochs": 2}),
    (ParameterError, "validation_data", ROWS, {"validation_data": 3}),
    (ParameterError, "epochs", ROWS, {"epochs": 0}),
    (ParameterError, "batch_size", ROWS, {"batch_size": 1.5}),
    (ParameterError, "seed", ROWS, {"seed": -1}),
    (FileError, "no folder", "no/such/folder", {}),
]


@pytest.mark.parametrize(("kind", "said", "data", "more"), BAD)
def test_bad_data(
    model: TextToImage, kind: type[Exception], said: str, data: Any, more: dict[str, Any]
) -> None:
    with pytest.raises(kind) as caught:
        model.fit(data, **more)
    assert said in (getattr(caught.value, "parameter", ""), str(caught.value)) or said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_folders(model: TextToImage, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="has no pictures"):
        model.fit(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    with pytest.raises(FileError, match=r"one\.png' has no caption"):
        model.fit(tmp_path)
    (tmp_path / "one.txt").write_text("red")
    (tmp_path / "one.png").write_bytes(b"not a picture")
    with pytest.raises(FileError, match=r"one\.png' cannot be read"):
        model.fit(tmp_path)
    for line, said in [
        ("{", "line 1"),
        ('{"text": "red"}', "line 1"),
        ('{"file_name": "../x.png", "text": "red"}', "points out"),
        ('{"file_name": "two.png", "text": "red"}', "there is no picture"),
    ]:
        (tmp_path / "metadata.jsonl").write_text(line)
        with pytest.raises(FileError, match=said):
            model.fit(tmp_path)


@pytest.mark.parametrize(
    ("parameter", "arguments"),
    [
        ("optimizer", {"optimizer": "adm"}),
        ("optimizer", {"optimizer": 3}),
        ("loss", {"loss": "msee"}),
        ("loss", {"loss": 3}),
        ("metrics", {"metrics": ["fid"]}),
        ("learning_rate", {"learning_rate": -1}),
        ("learning_rate", {"learning_rate": "fast"}),
        ("clip", {"clip": 0}),
    ],
)
def test_bad_compile(model: TextToImage, parameter: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ParameterError) as caught:
        model.compile(**arguments)
    assert caught.value.parameter == parameter


def test_a_loss_that_explodes_is_an_error(model: TextToImage) -> None:
    model.compile("sgd", learning_rate=50.0, clip=1e30)
    with pytest.raises(TrainingError, match="smaller learning_rate"):
        model.fit(ROWS, epochs=200)


def test_half_precision_is_for_drawing_only() -> None:
    model = TextToImage.from_preset("toy", dtype="bfloat16")
    with pytest.raises(ParameterError, match="cannot be trained"):
        model.fit(ROWS)


def test_pictures_are_made_rgb_on_white(model: TextToImage, tmp_path: Path) -> None:
    from pictura.training.examples import read

    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    (example,) = next(read([{"images": clear, "prompts": "red"}], size=(4, 6)).batches(8))
    assert example["images"].mode == "RGB" and example["images"].size == (4, 6)
    assert example["images"].getpixel((0, 0)) == (255, 255, 255)
