"""Preference tuning: the loss against its formula, its gradient, `fit` and the trainer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from pictura import FileError, ParameterError, TextToImage, TrainingError, evaluation
from pictura.cli.app import run
from pictura.datasets.scenes.stream import example
from pictura.families import Family
from pictura.families.scenes.family import Scenes
from pictura.training import recipe as recipes
from pictura.training import trainer
from pictura.training.preference import DPO, Preferring
from tiny_runs import killed, log, weights

SMALL = {"coefficients": 24, "width": 32, "heads": 2, "hidden": 48, "depth": 2, "text_depth": 1}


@pytest.fixture(scope="module")
def small() -> Iterator[Scenes]:
    torch.manual_seed(0)
    family = Scenes.from_config(SMALL)
    sample = family.prepare([{"images": example(i).image(), "prompts": "a cat"} for i in range(20)])
    for module in family.begin_training(sample, drop_caption=0.3).values():
        for value in module.parameters():
            torch.nn.init.normal_(value, std=0.1)
    yield family


def pairs(count: int) -> list[dict[str, Any]]:
    scenes = [example(index) for index in range(2 * count)]
    return [
        {"images": a.image(), "losers": b.image(), "prompts": a.prompt}
        for a, b in zip(scenes[::2], scenes[1::2], strict=True)
    ]


def disturbed(family: Preferring, std: float = 0.01) -> None:
    """The model is no longer its reference."""
    rng = torch.Generator().manual_seed(9)
    for module in family.family.networks().values():
        for value in module.parameters():
            value.data += std * torch.randn(value.shape, generator=rng)


def velocity_errors(family: Scenes, rows: list[dict[str, Any]], side: str, seed: int) -> Any:
    """Mean over all pixels of |v_predicted - v|^2 for each row, in numpy but for the networks themselves.

    z = t x + (1 - t) n in PCA coefficients; v = x - n, and predicted (x_predicted - z) / (1 - t).
    """
    rng, b = torch.Generator().manual_seed(seed), len(rows)
    shares = family.recipe["times"]
    which = torch.multinomial(torch.tensor([s for s, _, _ in shares]), b, replacement=True, generator=rng)
    mean, spread = np.array([shares[int(i)][1:] for i in which]).T
    t = 1 / (1 + np.exp(-(mean + spread * torch.randn(b, generator=rng).numpy())))
    noise = torch.randn(b, 64, SMALL["coefficients"], generator=rng).numpy()
    dropped = torch.rand(b, generator=rng).numpy() < 0.3
    pixels = np.stack([row[side] for row in rows]).astype(np.float64) / 127.5 - 1
    patches = pixels.reshape(b, 8, 16, 8, 16, 3).transpose(0, 1, 3, 5, 2, 4).reshape(b, 64, 768)
    net = family.denoiser
    x = (patches - net.mean.numpy()) @ net.basis.numpy()
    t, away = t[:, None, None], 1 - t[:, None, None]
    z = t * x + away * noise
    prompts = ["" if gone else row["prompts"] for row, gone in zip(rows, dropped, strict=True)]
    ids = torch.tensor([family.words.padded(family.words.encode(prompt)) for prompt in prompts])
    with torch.no_grad():
        clean, _ = net(
            torch.tensor(z, dtype=torch.float32),
            torch.tensor(t[:, 0, 0], dtype=torch.float32),
            family.text(ids),
            ids != 0,
        )
    wrong = (clean.numpy() - z) / away - (x - noise)
    wrong = wrong * away / np.maximum(away, 0.05)  # very late times count no more than t = 0.95
    return (wrong**2).sum((1, 2)) / (3 * 128 * 128)


def test_the_loss_is_the_formula_of_the_paper(small: Scenes) -> None:
    tuned, votes = Preferring(cast(Family, small), DPO(beta=30.0)), np.array([1, 3, 1, 2, 1])
    rows = [{**row, "votes": int(count)} for row, count in zip(pairs(5), votes, strict=True)]
    tuned.begin_training(None)
    disturbed(tuned)
    (loss,) = tuned.loss(tuned.prepare(rows), torch.Generator().manual_seed(3)).values()
    reference = cast(Scenes, tuned.reference)
    e_w, e_l = (velocity_errors(small, rows, side, 3) for side in ("images", "losers"))
    r_w, r_l = (velocity_errors(reference, rows, side, 3) for side in ("images", "losers"))
    inside = -30.0 / 2 * ((e_w - r_w) - (e_l - r_l))
    assert np.abs(inside).min() > 1e-3
    expected = np.average(np.log1p(np.exp(-inside)), weights=votes)
    assert loss.item() == pytest.approx(float(expected), rel=1e-4)
    assert abs(expected - np.mean(np.log1p(np.exp(-inside)))) > 1e-3 * expected  # votes matter here
    assert float(tuned.logs["accuracy"]) == pytest.approx(np.average(inside > 0, weights=votes))
    assert float(tuned.logs["margin"]) == pytest.approx(
        float(np.average(inside, weights=votes)) / 15, rel=1e-3
    )


def test_the_first_step_goes_towards_winners_and_away_from_losers(small: Scenes) -> None:
    """At the reference the gradient is beta / 4 times that of the winners' loss less that of the losers'."""
    tuned, rows = Preferring(cast(Family, small), DPO(beta=8.0)), pairs(4)
    networks = tuned.begin_training(None)
    own = list(trainer.parameters(networks, "text+denoiser").values())
    batch = tuned.prepare(rows)
    (loss,) = tuned.loss(batch, torch.Generator().manual_seed(5)).values()
    assert loss.item() == pytest.approx(np.log(2), rel=1e-6) and float(tuned.logs["margin"]) == 0
    found = torch.autograd.grad(loss, own)
    expected = [torch.zeros_like(p) for p in own]
    for sign, side in ((1, "images"), (-1, "losers")):
        plain = small.prepare([{"images": row[side], "prompts": row["prompts"]} for row in rows])
        (alone,) = small.loss(plain, torch.Generator().manual_seed(5)).values()
        for total, part in zip(expected, torch.autograd.grad(alone, own), strict=True):
            total += sign * 8.0 / 4 * part
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max() + 1e-9))
    # A small step along it: the errors of winners fall, compared with those of losers.
    with torch.no_grad():
        for p, g in zip(own, found, strict=True):
            p -= 1e-3 * g / torch.stack([v.norm() for v in found]).norm()
        (after,) = tuned.loss(batch, torch.Generator().manual_seed(5)).values()
    assert after.item() < np.log(2) and float(tuned.logs["margin"]) > 0


def red_or_blue(count: int = 12) -> list[dict[str, Any]]:
    """Squares: red ones are liked."""
    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ((220, 20, 20), (20, 20, 220)))
    return [{"images": red, "losers": blue, "prompts": "square"}] * count


def redness(model: TextToImage) -> float:
    pictures = np.asarray(model.generate(["square"] * 16, seed=1)).astype(float)
    return float((pictures[..., 0] - pictures[..., 2]).mean())


def test_fit_learns_what_people_like(tmp_path: Path) -> None:
    model = TextToImage.from_preset("toy")
    before = redness(model)
    model.compile(loss="dpo", learning_rate=3e-3)
    assert model.evaluate(red_or_blue())["loss"] == pytest.approx(np.log(2), rel=1e-6)
    history = model.fit(red_or_blue(), epochs=20, batch_size=6)
    assert set(history.history) == {"loss", "accuracy", "margin"}
    assert history.history["loss"][-1] < 0.3 and history.history["accuracy"][-1] > 0.9
    assert redness(model) > before + 10
    # What it was stays the reference for a second fit, and a new compile begins anew.
    assert model.fit(red_or_blue(), batch_size=6).history["loss"][0] < 0.3
    model.compile(loss="dpo")
    assert model.evaluate(red_or_blue())["loss"] == pytest.approx(np.log(2), rel=1e-6)
    model.save_to_preset(tmp_path / "red")
    assert redness(TextToImage.from_preset(str(tmp_path / "red"))) == pytest.approx(redness(model))


def test_every_form_of_pairs_trains_the_same(tmp_path: Path) -> None:
    rows = red_or_blue(4)
    folder = tmp_path / "pairs"
    folder.mkdir()
    rows[0]["images"].save(folder / "w.png")
    rows[0]["losers"].save(folder / "l.png")
    line = json.dumps({"winner_file_name": "w.png", "loser_file_name": "l.png", "prompt": "square"})
    (folder / "metadata.jsonl").write_text("\n".join([line] * 4))
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(folder), split="train", cache_dir=str(tmp_path / "cache")
    )
    results = []
    for kind in (rows, str(folder), loaded):
        model = TextToImage.from_preset("toy")
        model.compile(loss=DPO(beta=50))
        model.fit(kind, batch_size=2)
        results.append([value.detach().numpy().tobytes() for value in model.backbone.parameters()])
    assert results[0] == results[1] == results[2]
    alone = TextToImage.from_preset("toy")
    assert set(alone.fit(folder).history) == {"loss", "mse"}  # of the winners


def test_what_cannot_learn_from_pairs_says_so(tmp_path: Path) -> None:
    model = TextToImage.from_preset("toy")
    for bad in (0, -1, float("nan"), float("inf"), True, "big"):
        with pytest.raises(ParameterError, match="beta"):
            DPO(beta=cast(Any, bad))
    with pytest.raises(ParameterError, match="metrics='auto'"):
        model.compile(loss="dpo", metrics="mae")
    with pytest.raises(ParameterError, match="did you mean 'dpo'"):
        model.compile(loss="dop")
    model.compile(loss="dpo")
    with pytest.raises(ParameterError, match="no 'losers'"):
        model.fit([{"images": red_or_blue()[0]["images"], "prompts": "square"}])
    with pytest.raises(ParameterError, match="votes"):
        model.fit([{**row, "votes": 0} for row in red_or_blue(2)])
    larger = [{**row, "losers": row["losers"].resize((9, 9))} for row in red_or_blue(2)]
    with pytest.raises(ParameterError, match="different sizes"):
        model.fit(larger)
    red_or_blue()[0]["images"].save(tmp_path / "one.png")
    (tmp_path / "one.txt").write_text("square")
    with pytest.raises(FileError, match="no preferences"):
        model.fit(tmp_path)
    players = TextToImage.from_preset("gan-cls", load_weights=False)
    players.compile(loss="dpo")
    with pytest.raises(ParameterError, match="cannot learn from preferences"):
        players.fit(red_or_blue())


RECIPE = """
start = "{start}"
data = "folder"
samples = 24
batch = 4
beta = 40
ema = 0.5
log_every = 1
save_minutes = 0.00001
grid_minutes = 999
[optimizer]
lr = 1e-3
warmup = 1
[[stages]]
data = {{ path = "{pairs}", pairs = true, size = [128, 128] }}
"""


def written(small: Scenes, folder: Path) -> Path:
    """A recipe on the pairs and the small model that are put beside it."""
    from pictura.training.results import export

    export(cast(Family, small), folder / "start", {}, half=False)
    (folder / "pairs").mkdir()
    lines = []
    for at, row in enumerate(pairs(6)):
        for name, side in (("w", "images"), ("l", "losers")):
            Image.fromarray(row[side]).save(folder / "pairs" / f"{name}{at}.png")
        said = {"winner_file_name": f"w{at}.png", "loser_file_name": f"l{at}.png", "prompt": row["prompts"]}
        lines.append(json.dumps(said))
    (folder / "pairs" / "metadata.jsonl").write_text("\n".join(lines))
    path = folder / "tuning.toml"
    path.write_text(RECIPE.format(start=folder / "start", pairs=folder / "pairs"))
    return path


def test_a_killed_run_on_pairs_goes_on_to_the_same_losses(small: Scenes, tmp_path: Path) -> None:
    path = written(small, tmp_path)
    trainer.train(path, tmp_path / "whole")
    killed(path, tmp_path / "killed")
    trainer.train(path, tmp_path / "killed")
    whole, resumed = log(tmp_path / "whole"), log(tmp_path / "killed")
    assert set(whole) == set(resumed) == set(range(1, 7))
    assert whole[1]["dpo"] == pytest.approx(np.log(2), abs=1e-5) and whole[6]["margin"] != 0
    for step, entry in whole.items():
        assert entry["dpo"] == pytest.approx(resumed[step]["dpo"], rel=1e-4)
    ours, theirs = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, atol=1e-5, rtol=1e-4)
    tuned = TextToImage.from_preset(str(tmp_path / "whole" / "preset"))
    average = ours["average/denoiser.head.weight"]
    torch.testing.assert_close(tuned.backbone["denoiser"].head.weight, average, atol=0, rtol=0)


def test_a_recipe_begins_somewhere(small: Scenes, tmp_path: Path) -> None:
    path = written(small, tmp_path)
    recipe = recipes.read(path)
    with pytest.raises(TrainingError, match="family or start"):
        recipes.parse({"data": "scenes", "samples": 4, "batch": 2})
    with pytest.raises(TrainingError, match="architecture is that of start"):
        recipes.parse({**recipe.model_dump(exclude={"family"}), "architecture": {"width": 64}})
    with pytest.raises(TrainingError, match="beta"):
        recipes.parse({**recipe.model_dump(exclude={"family"}), "beta": 0})
    with pytest.raises(TrainingError, match="no built-in name"):
        trainer.build(recipe.model_copy(update={"start": "nowhere"}))
    (tmp_path / "start" / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(TrainingError, match="cannot be used"):
        trainer.build(recipe)
    family, _ = trainer.build(recipe.model_copy(update={"start": "scenes"}))
    assert isinstance(family, Preferring) and family.name == "scenes"


def test_the_command_tunes_and_goes_on(
    small: Scenes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(small, tmp_path)
    command = ["train", "--preferences", str(tmp_path / "pairs"), "--model", str(tmp_path / "start")]
    command += ["--out", str(tmp_path / "run"), "--rate", "1e-3"]
    assert run([*command, "--samples", "12"]) == 0
    assert f"the model is in {tmp_path / 'run' / 'preset'}" in capsys.readouterr().err
    assert [entry["samples"] for entry in log(tmp_path / "run").values()] == [6, 12]
    assert run([*command, "--samples", "24"]) == 0
    assert [entry["samples"] for entry in log(tmp_path / "run").values()] == [6, 12, 18, 24]
    tuned = TextToImage.from_preset(str(tmp_path / "run" / "preset"))
    told = json.loads((tmp_path / "run" / "preset" / "config.json").read_text())["provenance"]["recipe"]
    assert told["start"] == str(tmp_path / "start") and told["beta"] == 200
    assert tuned.generate("a cat", seed=1, num_steps=2).image.size == (128, 128)


def test_the_command_learns_a_reward(
    small: Scenes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(small, tmp_path)
    table = tmp_path / "pairs" / "metadata.jsonl"
    table.write_text("\n".join(table.read_text().splitlines() * 2))
    command = [
        "train",
        "--reward",
        "--preferences",
        str(tmp_path / "pairs"),
        "--out",
        str(tmp_path / "liking"),
    ]
    assert run(command) == 0
    assert "held-out accuracy" in capsys.readouterr().err
    model = TextToImage.from_preset("scenes")
    told = evaluation.evaluate(
        model, count=1, settings={"num_steps": 1}, reward=tmp_path / "liking", measure=["reward"]
    )
    assert np.isfinite(told.metrics["reward"][0])
    assert run(command) == 2
    assert "not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, reason",
    [
        ([], "nothing says what to learn"),
        (["recipe.toml", "--preferences", "x"], "or two things do"),
        (["recipe.toml", "--reward"], "add --preferences"),
        (["--preferences", "nowhere"], "there is no folder 'nowhere'"),
        (["--preferences", "{pairs}", "--beta", "0"], "beta"),
        (["--preferences", "{pairs}", "--model", "scene"], "did you mean 'scenes'"),
        (["--preferences", "{pairs}", "--samples", "0"], "samples"),
        (["--preferences", "{pairs}", "--rate", "fast"], "rate"),
    ],
)
def test_the_command_says_what_is_wrong(
    small: Scenes, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    written(small, tmp_path)
    given = [argument.format(pairs=tmp_path / "pairs") for argument in arguments]
    assert run(["train", *given, "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert reason in said and "Traceback" not in said and not (tmp_path / "run").exists()
