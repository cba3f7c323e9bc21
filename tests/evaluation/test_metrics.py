"""Distances against torchmetrics and scipy on the same features, intervals against scipy."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy import linalg
from scipy.stats import binomtest

from pictura.errors import FileError, ParameterError
from pictura.evaluation import metrics
from pictura.evaluation.intervals import wilson
from pictura.evaluation.metrics import Sample
from pictura.evaluation.metrics.diversity import vendi_score
from pictura.evaluation.metrics.fid import frechet_distance
from pictura.evaluation.metrics.kid import kernel_distance

torch = pytest.importorskip("torch")
D = 12


@pytest.fixture(scope="module")
def features() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.normal(size=(90, D)) @ rng.normal(size=(D, D)), rng.gamma(2.0, size=(70, D))


class Flat(torch.nn.Module):
    """A feature network for torchmetrics that hands features, disguised as pictures, through."""

    num_features = D

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)


def disguised(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(x)[:, :, None, None]


def test_frechet_distance_is_that_of_torchmetrics_and_scipy(features: tuple[np.ndarray, np.ndarray]) -> None:
    fid = pytest.importorskip("torchmetrics.image.fid")
    one, other = features
    theirs = fid.FrechetInceptionDistance(feature=Flat(), normalize=True, input_img_size=(D, 1, 1))
    theirs.set_dtype(torch.float64)
    theirs.update(disguised(one), real=True)
    theirs.update(disguised(other), real=False)
    ours = frechet_distance(one, other)
    assert ours == pytest.approx(float(theirs.compute()), rel=1e-6)
    s1, s2 = np.cov(one.T), np.cov(other.T)
    crossed = np.trace(linalg.sqrtm(s1 @ s2)).real
    means = ((one.mean(0) - other.mean(0)) ** 2).sum()
    assert ours == pytest.approx(means + np.trace(s1) + np.trace(s2) - 2 * crossed, rel=1e-9)


def test_kernel_distance_is_that_of_torchmetrics(features: tuple[np.ndarray, np.ndarray]) -> None:
    kid = pytest.importorskip("torchmetrics.image.kid")
    one, other = (x[:70] for x in features)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it keeps all features in memory
        theirs = kid.KernelInceptionDistance(feature=Flat(), normalize=True, subsets=1, subset_size=70)
    theirs.update(disguised(one), real=True)
    theirs.update(disguised(other), real=False)
    assert kernel_distance(one, other) == pytest.approx(float(theirs.compute()[0]), rel=1e-5)


def test_kernel_distance_is_unbiased() -> None:
    """Its mean over draws of one distribution is zero, which that of the biased estimate is not."""
    rng = np.random.default_rng(0)
    drawn = [kernel_distance(rng.normal(size=(20, D)), rng.normal(size=(20, D))) for _ in range(300)]
    assert abs(np.mean(drawn)) < 4 * np.std(drawn) / np.sqrt(len(drawn))


def test_vendi_score_counts_different_rows() -> None:
    assert vendi_score(np.eye(7)) == pytest.approx(7)
    assert vendi_score(np.ones((7, 3))) == pytest.approx(1)
    assert vendi_score(np.repeat(np.eye(4), 5, axis=0)) == pytest.approx(4)


@pytest.mark.parametrize("right, total", [(0, 10), (10, 10), (97, 100), (451, 500), (1, 3)])
def test_wilson_is_that_of_scipy(right: int, total: int) -> None:
    theirs = binomtest(right, total).proportion_ci(method="wilson")
    assert wilson(right, total) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_nothing_counted_says_nothing() -> None:
    assert wilson(0, 0) == (0, 1)


def test_metrics_are_found_by_folder() -> None:
    assert {"clipscore", "diversity", "fid", "kid"} <= set(metrics.names())
    for name in metrics.names():
        assert metrics.metric_named(name).help
    with pytest.raises(ParameterError, match="did you mean 'fid'"):
        metrics.metric_named("fidd")


# CLIPScore


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a tiny CLIP model with random weights."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("clip")
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = [*letters, *(f"{x}</w>" for x in letters), "an</w>", "<|startoftext|>", "<|endoftext|>"]
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config={**small, "vocab_size": len(tokens), "max_position_embeddings": 77,
                     "bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1},
        vision_config={**small, "image_size": 32, "patch_size": 8}, projection_dim=8,
    )
    torch.manual_seed(0)
    transformers.CLIPModel(config).save_pretrained(folder)
    tokenizer = transformers.CLIPTokenizer({t: i for i, t in enumerate(tokens)}, [("a", "n</w>")])
    image = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    transformers.CLIPProcessor(image, tokenizer).save_pretrained(folder)
    return folder


class Older:
    """A CLIP model as torchmetrics expects it: features are tensors (transformers 5 wraps them)."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model, self.config = model, model.config

    def to(self, device: object) -> Older:
        return self

    def get_image_features(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.model.get_image_features(*inputs).pooler_output

    def get_text_features(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.model.get_text_features(*inputs).pooler_output


def test_clipscore_is_that_of_torchmetrics(clip: Path) -> None:
    multimodal = pytest.importorskip("torchmetrics.functional.multimodal")
    from transformers import CLIPModel, CLIPProcessor

    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (40, 40, 3), dtype=np.uint8) for _ in range(5)]
    prompts = ["a cat", "two dogs", "a pig", "an apple", "a zebra"]
    metric = metrics.metric_named("clipscore")
    ours = [
        metric.measure(Sample(pictures=[p], prompts=[t], reference=[], settings={"clip": str(clip)}))
        for p, t in zip(pictures, prompts, strict=True)
    ]
    model, processor = Older(CLIPModel.from_pretrained(clip)), CLIPProcessor.from_pretrained(clip)
    with torch.no_grad():
        theirs = [
            float(multimodal.clip_score(torch.from_numpy(p).permute(2, 0, 1), t, lambda: (model, processor)))
            for p, t in zip(pictures, prompts, strict=True)
        ]
    assert ours == pytest.approx(theirs, abs=1e-3)
    assert max(ours) > 0
    both = Sample(pictures=pictures, prompts=prompts, reference=[], settings={"clip": str(clip)})
    assert metric.measure(both) == pytest.approx(np.mean(ours), abs=1e-4)


def test_clipscore_without_a_model_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no folder of a CLIP model"):
        metrics.metric_named("clipscore").measure(
            Sample(pictures=[], prompts=[], reference=[], settings={"clip": str(tmp_path)})
        )
