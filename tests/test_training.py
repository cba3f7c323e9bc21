"""The trainer: resumes after a kill, averages over processes, updates each network from its own loss."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pictura.errors import TrainingError
from pictura.formats import preset
from pictura.training import recipe as recipes
from pictura.training import trainer
from pictura.training.data import named
from tiny_runs import killed, log, weights

TINY = """
family = "scenes"
data = "scenes"
samples = {samples}
batch = 4
processes = {processes}
log_every = 1
save_minutes = 0.00001
grid_minutes = 999
grid = ["a cat"]
[architecture]
coefficients = 16
width = 32
heads = 2
hidden = 48
depth = 2
text_depth = 1
[optimizer]
warmup = 2
scale = {{ "text.words" = 4.0 }}
[[stages]]
start = 0
data = {{ fixed_places = true }}
[[stages]]
start = 12
data = {{ fixed_places = false }}
loss = {{ drop_caption = 0.2 }}
"""


def write(folder: Path, samples: int, processes: int = 1) -> Path:
    path = folder / f"tiny-{samples}-{processes}.toml"
    path.write_text(TINY.format(samples=samples, processes=processes))
    return path


def test_a_killed_run_goes_on_to_the_same_losses_and_weights(tmp_path: Path) -> None:
    path = write(tmp_path, 24)
    trainer.train(path, tmp_path / "whole")
    killed(path, tmp_path / "killed")
    trainer.train(path, tmp_path / "killed")
    whole, resumed = log(tmp_path / "whole"), log(tmp_path / "killed")
    assert set(whole) == set(resumed) == set(range(1, 7))
    for step, entry in whole.items():
        assert entry["flow"] == pytest.approx(resumed[step]["flow"], rel=1e-4)
    ours, theirs = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, atol=1e-5, rtol=1e-4)


def test_two_processes_do_what_one_would_with_the_mean_of_their_gradients(tmp_path: Path) -> None:
    path = write(tmp_path, 12, processes=2)
    trainer.train(path, tmp_path / "two")
    recipe = recipes.read(path)
    family, networks = trainer.build(recipe)
    own = list(trainer.parameters(networks, "text+denoiser+labels").values())
    groups = [[p for n, p in trainer.parameters(networks, "text+denoiser+labels").items() if fast(n)], []]
    groups[1] = [p for p in own if all(p is not q for q in groups[0])]
    lr = recipe.optimizer.lr
    assert isinstance(lr, float)
    adam = torch.optim.AdamW([{"params": g} for g in groups], lr=lr, betas=(0.9, 0.98), weight_decay=0.0)
    for step in range(3):
        data, loss = recipe.stage(step * 4)
        family.begin_training(None, **loss)
        source = named("scenes", **data)
        total: list[Tensor] = [torch.zeros_like(p) for p in own]
        for rank in range(2):
            batch = family.prepare([source(step * 4 + rank * 2 + i) for i in range(2)])
            losses = family.loss(batch, trainer.generator(recipe.seed, step, rank))
            for t, g in zip(total, torch.autograd.grad(sum(losses.values()), own), strict=True):
                t += g / 2
        norm = torch.cat([t.flatten() for t in total]).norm()
        for p, t in zip(own, total, strict=True):
            p.grad = t * min(1.0, 1.0 / (norm.item() + 1e-6))
        for group, factor in zip(adam.param_groups, (4.0, 1.0), strict=True):
            group["lr"] = lr * factor * min(1.0, (step + 1) / 2) * min(1.0, (12 - step * 4) / (12 * 0.35))
        adam.step()
    saved = weights(tmp_path / "two")
    for name, value in trainer.state(networks).items():
        torch.testing.assert_close(saved[f"weights/{name}"], value, atol=2e-5, rtol=1e-3)


def fast(name: str) -> bool:
    return name.startswith("text.words")


def test_the_average_is_the_exponential_one() -> None:
    net = nn.Linear(2, 2)
    ema = trainer.Ema({"net": net}, 0.9)
    expected = net.weight.detach().clone()
    for step in range(30):
        net.weight.data += torch.randn(2, 2)
        ema.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * net.weight.detach()
    torch.testing.assert_close(ema.average["net.weight"], expected)


class Duel:
    """Two players: each pulls its own number to the other's."""

    def __init__(self) -> None:
        self.nets = {"a": nn.Linear(1, 1, bias=False), "b": nn.Linear(1, 1, bias=False)}

    def loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> dict[str, Tensor]:
        a, b = self.nets["a"].weight, self.nets["b"].weight
        return {"a": (a - 2 * b).square().sum(), "b": (b - 3 * a).square().sum()}


def test_each_loss_moves_its_own_network_only_and_all_at_once() -> None:
    duel = Duel()
    a, b = (duel.nets[n].weight for n in "ab")
    a.data.fill_(1.0)
    b.data.fill_(1.0)
    sgd = {key: torch.optim.SGD(net.parameters(), lr=0.1) for key, net in duel.nets.items()}
    trainer.update(duel, duel.nets, sgd, {}, torch.Generator())  # type: ignore[arg-type]
    assert a.item() == pytest.approx(1 - 0.1 * 2 * (1 - 2))
    assert b.item() == pytest.approx(1 - 0.1 * 2 * (1 - 3))


def test_the_run_leaves_a_preset_a_grid_and_a_log(tmp_path: Path) -> None:
    out = tmp_path / "run"
    trainer.train(write(tmp_path, 8), out)
    config = preset.read(out / "preset")
    assert config.family == "scenes" and config.provenance["samples"] == 8
    assert sorted(p.name for p in out.glob("samples-*.png")) == ["samples-000000008.png"]
    with pytest.raises(TrainingError, match="holds a run already"):
        trainer.train(write(tmp_path, 8), out, resume=False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("family = 3", "family"),
        ('family = "scenes"\ndata = "scenes"\nsamples = 8\nbatch = 4\nbacth = 2', "bacth"),
        ("samples = = 3", "not TOML"),
    ],
)
def test_a_wrong_recipe_is_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "r.toml"
    path.write_text(text)
    with pytest.raises(TrainingError, match=words) as caught:
        recipes.read(path)
    assert "\n" not in str(caught.value)


def test_the_rate_rises_stays_and_falls_to_zero() -> None:
    recipe = recipes.parse(
        {"family": "x", "data": "y", "samples": 1000, "batch": 10, "optimizer": {"warmup": 10, "decay": 0.5}}
    )
    assert recipe.rate(0, 0) == pytest.approx(0.1)
    assert recipe.rate(40, 400) == 1.0
    assert recipe.rate(75, 750) == pytest.approx(0.5)
    assert recipe.rate(100, 1000) == 0.0


def test_the_recipes_in_the_repository_are_valid() -> None:
    found = list((Path(__file__).parents[1] / "recipes").glob("*.toml"))
    assert found
    for path in found:
        recipes.read(path)
