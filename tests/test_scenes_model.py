"""The networks of scenes against formulas and torch's own layers, and the family through the engine."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pictura.datasets.scenes.stream import example
from pictura.engine import Engine, solve
from pictura.errors import ParameterError, PresetError
from pictura.families.scenes.family import Scenes
from pictura.nn.transformer import Attention, SwiGLU, rms_norm, time_features
from pictura.request import Request

TINY = {"coefficients": 24, "width": 32, "heads": 2, "hidden": 48, "depth": 2, "text_depth": 1}


def family(seed: int = 0, noise: float = 0.1, **architecture: object) -> Scenes:
    torch.manual_seed(seed)
    made = Scenes.from_config({**TINY, **architecture})
    made.begin_training(batch(made, 40))
    for module in made.networks().values():
        for p in module.parameters():
            p.data += noise * torch.randn_like(p)
    return made


def batch(made: Scenes, count: int, start: int = 0) -> dict[str, torch.Tensor]:
    drawn = [example(start + i) for i in range(count)]
    return made.prepare([{"images": e.image(), "prompts": e.prompt, "scene": e.scene} for e in drawn])


def test_attention_is_scaled_dot_product_attention_of_normalised_queries_and_keys() -> None:
    torch.manual_seed(1)
    net, x = Attention(32, 4), torch.randn(3, 7, 32)
    bias = torch.where(torch.rand(3, 1, 1, 7) < 0.3, -1e9, 0.0)
    q, k, v = net.qkv(x).chunk(3, -1)
    split = [part.unflatten(-1, (4, 8)).transpose(1, 2) for part in (q, k, v)]
    norm = nn.RMSNorm(8, eps=1e-6)
    out = F.scaled_dot_product_attention(norm(split[0]), norm(split[1]), split[2], attn_mask=bias)
    torch.testing.assert_close(net(x, bias), net.out(out.transpose(1, 2).flatten(2)), atol=1e-6, rtol=1e-5)


def test_feed_forward_and_norm_are_their_formulas() -> None:
    torch.manual_seed(2)
    net, x = SwiGLU(8, 12), torch.randn(5, 8)
    a, b = net.up.weight[:12], net.up.weight[12:]
    gate = x @ a.T
    torch.testing.assert_close(net(x), (gate / (1 + (-gate).exp()) * (x @ b.T)) @ net.down.weight.T)
    torch.testing.assert_close(rms_norm(x), x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt())


def test_time_features_are_cosines_and_sines_of_geometric_frequencies() -> None:
    row = time_features(torch.tensor([0.37]))[0]
    for k in (0, 5, 63):
        angle = 370 * 1000 ** (-k / 64)
        assert row[k].item() == pytest.approx(math.cos(angle), abs=2e-4)
        assert row[64 + k].item() == pytest.approx(math.sin(angle), abs=2e-4)


def test_an_untrained_denoiser_is_the_best_linear_one() -> None:
    """Posterior mean of Gaussian patches, solved with the full covariance, not with the PCA."""
    made = family(noise=0.0, coefficients=768)
    images = batch(made, 40)["image"]
    patches = made.denoiser.encode(images).flatten(0, 1).double()
    mean = patches.mean(0)
    covariance = torch.cov(patches.T, correction=0) + 0
    values, vectors = torch.linalg.eigh(covariance)
    covariance = vectors @ torch.diag(values.clamp_min(1e-5)) @ vectors.T
    t = 0.4
    noisy = t * images[:2] + (1 - t) * torch.randn(2, 3, 128, 128)
    text = made.evaluate("text", (), ids=torch.tensor([made.words.padded(made.words.encode("a cat"))] * 2))
    got = made.evaluate("denoiser", (), x=noisy, t=torch.full((2,), t), text=text)
    z = made.denoiser.encode(noisy).double() - t * mean
    total = t * t * covariance + (1 - t) ** 2 * torch.eye(768, dtype=torch.float64)
    wanted = mean + t * torch.linalg.solve(total, z.flatten(0, 1).T).T @ covariance
    torch.testing.assert_close(made.denoiser.encode(got).flatten(0, 1).double(), wanted, atol=2e-3, rtol=0)


def test_patches_go_to_coefficients_and_back() -> None:
    made = family(coefficients=768)
    image = batch(made, 2)["image"]
    denoiser = made.denoiser
    back = denoiser.decode((denoiser.encode(image) - denoiser.mean) @ denoiser.basis)
    torch.testing.assert_close(back, image, atol=1e-4, rtol=0)


def test_the_loss_is_the_velocity_error_of_the_prediction() -> None:
    """With x-prediction and time t, velocity error = (x_0 prediction error) / (1 - t), Li and He 2025."""
    made = family(coefficients=768)
    made.begin_training(None, times=[[1.0, -1.0, 0.5]], drop_caption=0.0)
    examples = batch(made, 3)
    flow = made.loss(examples, torch.Generator().manual_seed(5))
    rng = torch.Generator().manual_seed(5)
    torch.multinomial(torch.tensor([1.0]), 3, replacement=True, generator=rng)
    t = torch.sigmoid(-1.0 + 0.5 * torch.randn(3, generator=rng))
    noise = made.denoiser.decode(torch.randn(3, 64, 768, generator=rng)) - made.denoiser.decode(
        torch.zeros(1, 64, 768)
    )
    x, share = examples["image"], t[:, None, None, None]
    z = share * x + (1 - share) * noise
    text = made.evaluate("text", (), ids=examples["tokens"])
    guess = made.evaluate("denoiser", (), x=z, t=t, text=text)
    velocity, wanted = (guess - z) / (1 - share), (x - z) / (1 - share)
    expected = (velocity - wanted).square().mean()
    assert made.logs["flow"].item() == pytest.approx(expected.item(), rel=1e-3)
    assert set(flow) == {"text+denoiser+labels"}


def test_labels_are_learnt_but_not_part_of_the_model() -> None:
    made = family()
    assert set(made.begin_training(None)) == {"text", "denoiser", "labels"}
    assert set(made.networks()) == {"text", "denoiser"}
    bare = {name: value for name, value in batch(made, 2).items() if name in ("image", "tokens")}
    made.loss(bare, torch.Generator().manual_seed(0))
    assert set(made.logs) == {"flow"}


@pytest.mark.parametrize("rows", [1, 2, 3, 6, 11])
def test_a_picture_has_the_same_bits_in_any_batch(rows: int) -> None:
    made = family()
    prompts = [example(i, "validation").prompt for i in range(rows)]
    requests = [
        Request(prompt=p, seed=i, num_steps=2 + i % 2, guidance_scale=1 + i / 2).completed(made.defaults())
        for i, p in enumerate(prompts)
    ]
    engine = Engine(made, rows=made.rows)
    tickets = [engine.add(made.run(request, lambda level, x0: None)) for request in requests]
    engine.run()
    for request, ticket in zip(requests, tickets, strict=True):
        assert ticket.result is not None
        assert torch.equal(ticket.result, solve(made, made.run(request, lambda level, x0: None)))


def test_prompts_that_say_less_or_more_than_it_knows_are_told() -> None:
    made = family()
    assert made.notes(Request(prompt="a cat left of a dog")) == ()
    assert "zeppelin" in made.notes(Request(prompt="a zeppelin"))[0]
    assert "unconditional" in made.notes(Request(prompt=""))[-1]
    assert "left of" in made.notes(Request(prompt="a cat and a dog"))[0]


def test_what_it_cannot_do_is_an_error_before_any_work() -> None:
    made = family()
    with pytest.raises(ParameterError, match="128x128"):
        made.check(Request(prompt="a cat", size=(256, 256)))
    with pytest.raises(ParameterError, match="guidance_scale above 1"):
        made.check(Request(prompt="a cat", negative_prompt="a dog", guidance_scale=1.0))
    made.check(Request(prompt="a cat", negative_prompt="a dog", guidance_scale=2.0))
    with pytest.raises(PresetError, match="depht"):
        Scenes.from_config({"depht": 3})


def test_new_words_take_spare_rows() -> None:
    made = family()
    assert made.adapt(["a blorb left of a cat", "a blorb"]) == ("blorb",)
    assert made.notes(Request(prompt="a blorb")) == ()
    again = Scenes.from_config(made.config())
    assert again.words.encode("a blorb").ids == made.words.encode("a blorb").ids
    with pytest.raises(ParameterError, match="room"):
        made.adapt([f"w{i}" for i in range(60)])
