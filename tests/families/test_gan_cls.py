"""GAN-CLS: losses against the paper's formulas, blocks against written-out arithmetic, bits, training."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pictura import families
from pictura.datasets.scenes.stream import example
from pictura.engine import Engine, solve
from pictura.errors import ParameterError, PresetError, TrainingError
from pictura.families.gan_cls.family import GanCls
from pictura.families.gan_cls.losses import fooling, matching_aware, steepness
from pictura.families.gan_cls.model import Attention, Discriminator, Down, Text, Up
from pictura.levels import Level
from pictura.request import Request
from pictura.training import recipe, trainer

SMALL = {
    "latent": 4, "width": 16, "heads": 2, "text_blocks": 1, "map_blocks": 1, "up": [8, 8],
    "down": [4, 4, 4, 8], "sentence": 8,
}  # fmt: skip
PROMPTS = ["a cat", "two hot dogs on a red background", "a cat left of a dog", "", "an owl above three"]


@cache
def small() -> GanCls:
    torch.manual_seed(0)
    return GanCls.from_config(SMALL)


@cache
def full() -> GanCls:
    torch.manual_seed(0)
    return GanCls.from_config({})


def batch(family: GanCls, count: int = 6, **more: bool) -> dict[str, Tensor]:
    found = [example(i, fixed_places=True) for i in range(count)]
    return family.prepare(
        [{"images": e.image(), "prompts": e.prompt} | ({"scene": e.scene} if more else {}) for e in found]
    )


def request(prompt: str, seed: int = 7, **options: float) -> Request:
    return Request(prompt=prompt, seed=seed, size=(64, 64), options=options)


def ignore(level: Level, x0: Tensor) -> None: ...


# The losses


def test_losses_are_the_papers() -> None:
    real, wrong, fake = torch.randn(3, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    s_r, s_w, s_f = (1 / (1 + (-x).exp()) for x in (real, wrong, fake))
    discriminator = s_r.log().mean() + ((1 - s_w).log().mean() + (1 - s_f).log().mean()) / 2
    torch.testing.assert_close(matching_aware(real, wrong, fake, torch.ones(50)), -discriminator)
    torch.testing.assert_close(fooling(fake), -s_f.log().mean())


def test_losses_stay_finite_where_the_formula_does_not() -> None:
    far = torch.tensor([1e4], requires_grad=True)
    loss = matching_aware(-far, far, far, torch.ones(1)) + fooling(-far)
    assert torch.isfinite(loss) and torch.isfinite(torch.autograd.grad(loss, far)[0])


def test_a_caption_that_is_right_by_chance_is_no_mismatch() -> None:
    real, wrong, fake = torch.randn(3, 4, generator=torch.Generator().manual_seed(2))
    kept = torch.tensor([1.0, 0.0, 1.0, 0.0])
    alone = matching_aware(real, wrong[::2].repeat_interleave(2), fake, torch.ones(4))
    torch.testing.assert_close(matching_aware(real, wrong, fake, kept), alone)
    assert torch.isfinite(matching_aware(real, wrong, fake, torch.zeros(4)))


def test_steepness_is_the_squared_gradient() -> None:
    rng = torch.Generator().manual_seed(3)
    w = torch.randn(12, generator=rng, dtype=torch.float64)
    x, noise = torch.randn(2, 200_000, 12, generator=rng, dtype=torch.float64)
    measured = steepness((x * w).sum(1), ((x + 0.05 * noise) * w).sum(1), 0.05)
    torch.testing.assert_close(measured, w.square().sum(), rtol=0.02, atol=0)


def test_without_the_extra_terms_the_family_has_the_papers_losses_alone() -> None:
    """The same numbers from the networks' plain forward passes and sigmoids, with the same draws."""
    family, data = small(), batch(small(), 6)
    family.begin_training(
        None, adversarial=1.0, interpolation=1.0, mixed_share=0.5, reconstruction=0, labels=0, steepness=0
    )
    losses = family.loss(data, torch.Generator().manual_seed(5))

    rng = torch.Generator().manual_seed(5)
    x, ids, g, d = data["image"], data["ids"], family.generator, family.discriminator
    z, z_mixed = torch.randn(1, 6, 4, generator=rng)[0], torch.randn(3, 4, generator=rng)
    offset = int(torch.randint(1, 6, (), generator=rng))
    fake = g(z, ids)
    words, sentence = g.text(ids)
    words = words * (ids != 0)[..., None]
    both = (ids[:3] != 0) | (ids[3:] != 0)
    between = g.draw_map((words[:3] + words[3:]) / 2, both)
    mixed = g.paint(g.add_noise(between, (sentence[:3] + sentence[3:]) / 2, z_mixed))
    told = d.text(ids)[1]
    s_f = d(fake, told).sigmoid()
    s_mixed = d(mixed, (told[:3] + told[3:]) / 2).sigmoid()
    s_r, s_w = d(x, told).sigmoid(), d(x, told.roll(offset, 0)).sigmoid()
    assert (ids.roll(offset, 0) != ids).any(1).all()
    torch.testing.assert_close(losses["generator"], -s_f.log().mean() - s_mixed.log().mean())
    expected = s_r.log().mean() + ((1 - s_w).log().mean() + (1 - s_f).log().mean()) / 2
    torch.testing.assert_close(losses["discriminator"], -expected)


@pytest.mark.parametrize("name", ["generator", "discriminator"])
def test_a_loss_moves_its_own_network_only(name: str) -> None:
    family = small()
    family.begin_training(None, adversarial=1.0, reconstruction=1.0, labels=0.2, steepness=0.1)
    family.loss(batch(family, scene=True), torch.Generator().manual_seed(0))[name].backward()
    for net, module in family.networks().items():
        moved = any(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
        assert moved == (net == name)
        module.zero_grad(set_to_none=True)


def test_the_noise_nearest_to_the_picture_is_trained() -> None:
    family, data = small(), batch(small(), 5)
    g, ids = family.generator, data["ids"]
    z = torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        words, sentence = g.text(ids)
        blank = g.draw_map(words, ids != 0)
        goal = F.avg_pool2d(data["image"], 8).flatten(2).transpose(1, 2)
        chosen = family._nearest(blank, sentence, z, goal)
        for row in range(5):
            far = [
                float((g.preview(g.add_noise(blank, sentence, z[k]))[row] - goal[row]).abs().mean())
                for k in range(6)
            ]
            assert torch.equal(chosen[row], z[int(np.argmin(far)), row])


# The blocks


def test_a_step_up_is_zeros_between_pixels_then_a_convolution() -> None:
    torch.manual_seed(0)
    up, x = Up(5, 3), torch.randn(2, 5, 4, 6)
    spread = torch.zeros(2, 5, 2 * 4 - 1, 2 * 6 - 1)
    spread[:, :, ::2, ::2] = x
    kernel = up.conv.weight.flip(2, 3).transpose(0, 1)  # (o, i, 4, 4)
    y = F.conv2d(F.pad(spread, (2, 2, 2, 2)), kernel, up.conv.bias)
    y = y / (y.square().mean(1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(up(x), y.clamp_min(0))


def test_a_step_down_is_a_product_of_4x4_windows() -> None:
    torch.manual_seed(0)
    down, x = Down(3, 5), torch.randn(2, 3, 8, 6)
    windows = F.pad(x, (1, 1, 1, 1)).unfold(2, 4, 2).unfold(3, 4, 2)  # (b, i, h/2, w/2, 4, 4)
    y = torch.einsum("bihwyx,oiyx->bohw", windows, down.conv.weight) + down.conv.bias[:, None, None]
    torch.testing.assert_close(down(x), torch.where(y > 0, y, 0.2 * y))


def test_attention_is_torchs() -> None:
    torch.manual_seed(0)
    attention, x, words = Attention(12, 3), torch.randn(2, 5, 12), torch.randn(2, 4, 12)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    oracle = torch.nn.MultiheadAttention(12, 3, bias=False, batch_first=True)
    with torch.no_grad():
        oracle.in_proj_weight.copy_(torch.cat((attention.query.weight, attention.key_value.weight)))
        oracle.out_proj.weight.copy_(attention.output.weight)
    expected = oracle(x, words, words, key_padding_mask=~mask, need_weights=False)[0]
    torch.testing.assert_close(attention(x, words, mask), expected)


def test_padding_says_nothing() -> None:
    torch.manual_seed(0)
    text = Text(20, 8, 12, 3, 2)
    ids = torch.tensor([[5, 7, 2, 0, 0, 0, 0, 0]])
    _, sentence = text(ids)
    with torch.no_grad():
        text.embedding[0] += 100
    torch.testing.assert_close(text(ids)[1], sentence)


def test_the_discriminator_weighs_words_against_the_picture() -> None:
    """The logit of two captions differs by more than a term that the pictures do not share."""
    torch.manual_seed(0)
    d = Discriminator(small().architecture)
    images, told = torch.randn(2, 3, 64, 64), torch.randn(2, 8)
    with torch.no_grad():
        logits = torch.stack([d(images, told[i].expand(2, -1)) for i in range(2)])
    assert abs(logits[0, 0] - logits[0, 1] - logits[1, 0] + logits[1, 1]) > 1e-4


def test_sizes_of_the_model_that_is_shipped() -> None:
    counts = {name: sum(p.numel() for p in net.parameters()) for name, net in full().networks().items()}
    assert counts == {"generator": 2_546_168, "discriminator": 409_603}
    assert 2 * sum(counts.values()) < 6_000_000  # bytes as bfloat16


# Through the contract


def test_it_is_found_by_its_folder() -> None:
    assert families.load("gan_cls") is GanCls
    assert isinstance(small(), families.Family)


def test_one_question_makes_the_picture() -> None:
    seen: list[Level] = []
    program = small().run(request("a cat"), lambda level, x0: seen.append(level))
    (ask,) = next(program)
    with pytest.raises(StopIteration) as done:
        program.send((small().evaluate(ask.net, ask.variant, **ask.inputs),))
    assert done.value.value.shape == (1, 3, 64, 64) and done.value.value.abs().max() <= 1
    assert seen == [Level(1.0, 0.0)]


def test_the_seed_decides_the_picture() -> None:
    one, again, other = (solve(small(), small().run(request("a cat", s), ignore)) for s in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_no_noise_no_variety() -> None:
    one, other = (solve(small(), small().run(request("a cat", s, truncation=0.0), ignore)) for s in (1, 2))
    assert torch.equal(one, other)


@pytest.mark.parametrize("threads", [1, 3])
def test_alone_or_in_a_batch_the_same_bits(threads: int) -> None:
    before, family, engine = torch.get_num_threads(), full(), Engine(full())
    requests = [request(PROMPTS[i % len(PROMPTS)], seed=i) for i in range(7)]
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([family.words.padded(family.words.encode(p)) for p in PROMPTS[:4]])
    torch.set_num_threads(threads)
    try:
        tickets = [engine.add(family.run(r, ignore)) for r in requests]
        while engine.busy:
            engine.step()
        for ticket, r in zip(tickets, requests, strict=True):
            assert torch.equal(ticket.result, solve(family, family.run(r, ignore)))
        with torch.no_grad():
            together = family.evaluate("discriminator", (), images=images, ids=ids)
            for i in range(4):
                alone = family.evaluate("discriminator", (), images=images[i : i + 1], ids=ids[i : i + 1])
                assert torch.equal(together[i], alone[0])
    finally:
        torch.set_num_threads(before)


def test_config_round_trip() -> None:
    config = json.loads(json.dumps(small().config()))
    again = GanCls.from_config(config)
    assert again.config() == config
    shapes = [{n: p.shape for n, p in f.generator.state_dict().items()} for f in (again, small())]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    "config",
    [
        *({"widht": 16}, {"width": 0}, {"width": "16"}, {"width": True}),
        *({"up": [8]}, {"up": 8}, {"heads": 3}, {"words": 5}),
    ],
)
def test_bad_config(config: dict[str, object]) -> None:
    with pytest.raises(PresetError, match="gan_cls"):
        GanCls.from_config({**SMALL, **config})


def test_bad_requests() -> None:
    with pytest.raises(ParameterError, match="64x64") as caught:
        small().check(Request(prompt="a cat", size=(128, 128)))
    assert caught.value.parameter == "size"
    for value in (-1, 3, "much", True):
        with pytest.raises(ParameterError, match="0..2") as caught:
            small().check(Request(prompt="a cat", options={"truncation": value}))
        assert caught.value.parameter == "truncation"
    small().check(request("a cat", truncation=0.5))


def test_notes() -> None:
    assert small().notes(request("a cat and a zeppelin")) == ("unknown word 'zeppelin' was ignored",)
    assert "unconditional" in small().notes(request(""))[0]


# Training


def test_prepare() -> None:
    data = batch(small(), 3, scene=True)
    assert {n: tuple(v.shape) for n, v in data.items()} == {
        "image": (3, 3, 64, 64), "ids": (3, 8), "kind": (3, 64), "part": (3, 64),
    }  # fmt: skip
    picture = example(0, fixed_places=True).image().astype(float)
    halved = picture.reshape(64, 2, 64, 2, 3).mean((1, 3)).transpose(2, 0, 1)
    assert np.abs((data["image"][0].numpy() + 1) * 127.5 - halved).max() <= 1  # rounded per axis
    assert "kind" not in batch(small(), 3)


def test_a_wide_picture_is_cut_in_the_middle() -> None:
    wide = np.zeros((64, 128, 3), np.uint8)
    wide[:, 32:96] = 255
    assert small().prepare([{"images": wide, "prompts": "a cat"}])["image"].min() == 1


def test_unknown_loss_option() -> None:
    with pytest.raises(TrainingError, match="labels"):
        small().begin_training(None, label=1.0)


def test_trains_through_the_trainer(tmp_path: Path) -> None:
    """Both networks learn: the critic tells right from wrong captions, pictures come nearer to real ones."""
    table = {
        "family": "gan_cls", "data": "scenes", "samples": 8 * 36, "batch": 8, "log_every": 1, "ema": 0.9,
        "architecture": SMALL, "optimizer": {"lr": {"generator": 6e-3, "discriminator": 3e-3}, "warmup": 1},
        "stages": [{"data": {"fixed_places": True}, "loss": {
            "adversarial": 0.02, "reconstruction": 1.0, "labels": 0.2, "steepness": 1e-3, "candidates": 2}}],
    }  # fmt: skip
    trainer.launch(recipe.parse(table), tmp_path)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]

    def mean(name: str, rows: slice) -> float:
        return float(np.mean([entry[name] for entry in log[rows]]))

    assert len(log) == 36 and {"generator", "discriminator"} == set(log[0]["norm"])
    assert mean("reconstruction", slice(-10, None)) < 0.9 * mean("reconstruction", slice(10))
    assert mean("labels", slice(-10, None)) < 0.8 * mean("labels", slice(10))
    assert mean("discriminator", slice(-10, None)) < mean("discriminator", slice(10))
