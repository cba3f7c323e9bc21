"""Every form of input, every order of calls: the pictures are those of the oracle, one at a time."""

from __future__ import annotations

import asyncio
import copy
import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import pictura
from crowds import together
from pictura import Failure, ParameterError, Picture, Pictures, Preview, Request, Step, TextToImage
from pictura.engine import solve

SEED = 7


@pytest.fixture(scope="module")
def model() -> TextToImage:
    return TextToImage.from_preset("toy")


def alone(model: TextToImage, request: Request) -> np.ndarray[Any, Any]:
    """What the oracle makes of a completed request."""
    x = solve(model.family, model.family.run(request, lambda level, x0: None))
    return ((x[0].clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()


def same(one: object, two: object) -> bool:
    return np.array_equal(np.asarray(one), np.asarray(two))


def test_a_text_gives_a_picture_with_everything_recorded(model: TextToImage) -> None:
    picture = model.generate("red square", seed=SEED)
    assert isinstance(picture, Picture) and picture.image.mode == "RGB" and picture.image.size == (8, 8)
    assert picture.request == Request(
        prompt="red square",
        seed=SEED,
        num_steps=5,  # the preset's, not the family's 4
        guidance_scale=2.0,
        sampler="euler",
        schedule="own",
        options={"tint": 0.0},
        model="toy",
    )
    assert picture.model_digest == model.digest and len(model.digest) == 64
    assert picture.version == pictura.__version__ and picture.timings["total"] > 0
    assert same(picture, alone(model, picture.request))
    assert same(model.generate(picture.request), picture)


def test_every_form_of_input_gives_the_same_pictures(model: TextToImage) -> None:
    texts, negatives = ["red", "blue square", ""], ["gray", "", "white"]
    plain = model.generate(texts, seed=SEED)
    against = model.generate(texts, seed=SEED, negative_prompts=negatives)
    assert isinstance(plain, Pictures) and [picture.request.prompt for picture in plain] == texts
    assert not same(plain, against)
    rows = [{"prompts": text} for text in texts]
    dataset = datasets.Dataset.from_dict({"prompts": texts, "label": [1, 2, 3]})
    forms: list[Any] = [
        tuple(texts),
        {"prompts": texts},
        [Request(prompt=text) for text in texts],
        (text for text in texts),
        iter(rows),
        rows,
        [{"prompt": text} for text in texts],
        np.array(texts),
        [text.encode() for text in texts],
        ["red", ["blue square", ""]],
        dataset,
        dataset.with_format("torch"),
        dataset.to_iterable_dataset(),
        dataset.iter(2),
        DataLoader(texts, batch_size=2),  # type: ignore[arg-type]
        DataLoader(dataset, batch_size=2),  # type: ignore[arg-type]
        Tensorflow(texts),
    ]
    for form in forms:
        assert same(model.generate(form, seed=SEED), plain), form
    forms = [
        {"prompts": texts, "negative_prompts": negatives},
        [Request(prompt=t, negative_prompt=n) for t, n in zip(texts, negatives, strict=True)],
        [{"prompts": t, "negative_prompts": n} for t, n in zip(texts, negatives, strict=True)],
        datasets.Dataset.from_dict({"prompts": texts, "negative_prompts": negatives}),
    ]
    for form in forms:
        assert same(model.generate(form, seed=SEED), against), form


class Tensorflow:
    """What is seen of a tf.data.Dataset."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts

    def as_numpy_iterator(self) -> Iterator[bytes]:
        return (text.encode() for text in self.texts)


def test_one_or_many(model: TextToImage) -> None:
    assert isinstance(model.generate({"prompts": "red"}), Picture)
    assert isinstance(model.generate(Request(prompt="red")), Picture)
    assert isinstance(model.generate(["red"]), Pictures)
    assert isinstance(model.generate("red", num_images=2), Pictures)
    assert len(model.generate([])) == 0
    assert np.asarray(model.generate("red")).shape == (8, 8, 3)
    assert np.asarray(model.generate(["red", "blue"])).shape == (2, 8, 8, 3)


def test_a_row_may_have_its_own_values(model: TextToImage) -> None:
    rows = datasets.Dataset.from_dict({"prompt": ["red", "blue"], "seed": [5, 6], "num_steps": [2, 3]})
    for form in (rows, rows.with_format("numpy"), DataLoader(rows, batch_size=2)):  # type: ignore[arg-type]
        found = [picture.request for picture in model.generate(form)]
        assert [(r.prompt, r.seed, r.num_steps) for r in found] == [("red", 5, 2), ("blue", 6, 3)]


def test_the_callers_inputs_are_not_changed(model: TextToImage) -> None:
    inputs = {"prompts": ["red", "blue"], "negative_prompts": ["gray", "white"]}
    before = copy.deepcopy(inputs)
    model.generate(inputs, seed=1, num_images=2)
    assert inputs == before
    rows = [{"prompts": "red"}]
    model.generate(rows)
    assert rows == [{"prompts": "red"}]


def test_num_images_are_adjacent_and_seeds_count_up(model: TextToImage) -> None:
    pictures = model.generate(["red", "blue"], num_images=3, seed=10)
    assert [(p.request.prompt, p.request.seed) for p in pictures] == [
        *[("red", seed) for seed in (10, 11, 12)],
        *[("blue", seed) for seed in (13, 14, 15)],
    ]
    assert len({np.asarray(picture).tobytes() for picture in pictures}) == 6
    assert same(model.generate("blue", seed=14), pictures[4])
    own = model.generate([Request(prompt="red", seed=3), Request(prompt="red", seed=3)], num_images=2)
    assert [picture.request.seed for picture in own] == [3, 4, 3, 4]


def test_seed_zero_is_a_seed_and_none_draws_one(model: TextToImage) -> None:
    assert model.generate("red", seed=0).request.seed == 0
    drawn = model.generate(["red"] * 5)
    assert len({picture.request.seed for picture in drawn}) == 5
    assert same(model.generate("red", seed=drawn[2].request.seed), drawn[2])


def test_the_same_picture_alone_and_in_any_company(model: TextToImage) -> None:
    kinds = itertools.product(["euler", "heun", "dpmpp_2m_sde"], [1, 4, 7], [1.0, 3.0])
    requests = [
        Request(prompt=prompt, seed=seed, sampler=sampler, num_steps=steps, guidance_scale=scale)
        for seed, (prompt, (sampler, steps, scale)) in enumerate(itertools.product(["red", ""], kinds))
    ]
    for window in (1, 3, 16, 100):
        for picture in model.generate(requests, batch_size=window):
            assert same(picture, alone(model, picture.request)), (window, picture.request)


def test_any_order_of_calls_works(model: TextToImage) -> None:
    first = model.generate("red", seed=SEED)
    model.generate("red", 2, sampler="heun", seed=SEED)
    model.generate(["blue"] * 3, 9, 5.0, schedule="karras", tint=0.5)
    with pytest.raises(ParameterError):
        model.generate("red", sampler="heum")
    stream = model.stream(["red"] * 4)
    next(stream)
    assert same(model.generate("red", seed=SEED), first)
    stream.close()  # type: ignore[attr-defined]
    assert same(model.generate("red", seed=SEED), first)


def test_data_sets_are_read_no_further_than_needed(model: TextToImage) -> None:
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield "red"

    pictures = (event for event in model.stream(endless(), batch_size=4) if isinstance(event, Picture))
    assert read == 0
    for count in range(1, 20):
        next(pictures)
        assert read <= count + 4
    pictures.close()


def test_stream_tells_what_happens(model: TextToImage) -> None:
    events = list(model.stream(["red", "blue"], num_steps=3, sampler="heun", seed=1, previews=True))
    for index in (0, 1):
        own = [event for event in events if event.index == index]
        steps = [event for event in own if isinstance(event, Step)]
        assert [(step.step, step.total) for step in steps] == [(at, 5) for at in range(1, 6)]
        previews = [event for event in own if isinstance(event, Preview)]
        assert len(previews) == 5 and previews[0].image.size == (8, 8)
        assert isinstance(own[-1], Picture)
        assert same(previews[-1].image, own[-1])  # the last x_0 of an exact last step is the picture
    assert not any(isinstance(event, Preview) for event in model.stream("red"))


def test_on_step_and_progress(model: TextToImage, capsys: pytest.CaptureFixture[str]) -> None:
    steps: list[Step] = []
    model.generate("red", num_steps=4, on_step=steps.append)
    assert [step.step for step in steps] == [1, 2, 3, 4]
    assert capsys.readouterr().err == ""
    model.generate(["red", "blue"], progress=True)
    assert "pictures" in capsys.readouterr().err


def test_one_failure_leaves_its_neighbours_alone(model: TextToImage, monkeypatch: pytest.MonkeyPatch) -> None:
    run = model.family.run

    def failing(request: Request, note: Any) -> Any:
        if request.prompt == "bad":
            raise_later = run(request, note)
            yield next(raise_later)
            raise ZeroDivisionError("as planned")
        return (yield from run(request, note))

    monkeypatch.setattr(model.family, "run", failing)
    ends = [event for event in model.stream(["red", "bad", "blue"], seed=1) if not isinstance(event, Step)]
    failures = [end for end in ends if isinstance(end, Failure)]
    assert [end.index for end in failures] == [1] and len(ends) == 3
    assert isinstance(failures[0].error, pictura.EngineError) and "as planned" in str(failures[0].error)
    with pytest.raises(pictura.EngineError, match="as planned"):
        model.generate(["red", "bad"])


def test_a_picture_of_no_numbers_is_an_error(model: TextToImage) -> None:
    broken = TextToImage.from_preset("toy")
    with torch.no_grad():
        broken.backbone["denoiser"].leave.bias.fill_(float("nan"))  # type: ignore[union-attr]
    with pytest.raises(pictura.EngineError, match="no numbers"):
        broken.generate("red")


def test_changed_weights_change_pictures_and_digest() -> None:
    model = TextToImage.from_preset("toy")
    before, digest = model.generate("red", seed=1), model.digest
    with torch.no_grad():
        model.backbone["text"].weight.mul_(3)  # type: ignore[operator,union-attr]
    after = model.generate("red", seed=1)
    assert not same(before, after) and after.model_digest != digest
    assert same(after, alone(model, after.request))  # and no remembered text


def test_bad_rows_of_a_lazy_source_come_after_the_good_ones(model: TextToImage) -> None:
    rows = iter(["red", "blue", 3.5])
    got = []
    with pytest.raises(ParameterError, match=r"prompt is 3\.5"):
        for event in model.stream(rows):
            got += [event] if isinstance(event, Picture) else []
    assert len(got) == 2


def test_threads_share_one_model(model: TextToImage) -> None:
    expected = [model.generate("red", seed=seed, num_steps=6) for seed in range(4)]
    found = together(lambda seed: model.generate("red", seed=seed, num_steps=6), range(4))
    assert all(map(same, found, expected))


def test_async(model: TextToImage) -> None:
    async def main() -> None:
        one, many = await asyncio.gather(
            model.agenerate("red", seed=1), model.agenerate(["red", "blue"], seed=1, num_steps=9)
        )
        assert same(one, model.generate("red", seed=1))
        assert same(many, model.generate(["red", "blue"], seed=1, num_steps=9))
        steps: list[Step] = []
        await model.agenerate("red", num_steps=3, on_step=steps.append)
        assert len(steps) == 3
        kinds = [type(event) async for event in model.astream("red", num_steps=2)]
        assert kinds == [Step, Step, Picture]
        with pytest.raises(ParameterError):
            await model.agenerate("red", seed=-1)

    asyncio.run(main())


def test_async_leaves_the_loop_free_and_can_be_cancelled(model: TextToImage) -> None:
    read, before = 0, set(threading.enumerate())

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield "red"

    async def main() -> None:
        ticks = 0
        async with aclosing(model.astream(endless(), batch_size=2)) as events:
            async for event in events:
                ticks += 1
                await asyncio.sleep(0)
                if isinstance(event, Picture):
                    break
        task = asyncio.create_task(model.agenerate(endless(), batch_size=2))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    settled = -1
    for _ in range(100):  # the thread stops within one step
        if settled == read:
            break
        settled = read
        time.sleep(0.05)
    assert settled == read
    assert not [t for t in threading.enumerate() if t.name.startswith("pictura") and t not in before]


def test_best_of(model: TextToImage) -> None:
    def brightness(pictures: Any) -> list[float]:
        return [float(np.asarray(picture).mean()) for picture in pictures]

    rivals = model.generate(["red", "blue"], num_images=4, seed=1)
    best = model.generate(["red", "blue"], best_of=4, scorer=brightness, seed=1)
    assert len(best) == 2
    for at in range(2):
        group = list(rivals[at * 4 : at * 4 + 4])
        winner = max(group, key=lambda picture: float(np.asarray(picture).mean()))
        assert same(best[at], winner) and best[at].request == winner.request and best[at].index == at
        assert "best of 4" in best[at].notes[-1]
        assert same(model.generate(best[at].request), best[at])
    with pytest.raises(ParameterError, match="did you mean 'scene_detector'"):
        model.generate("red", best_of=2, scorer="scene_detectr")
    with pytest.raises(pictura.EngineError, match="'red' is not one object of the vocabulary"):
        model.generate("red", best_of=2)  # what scores by default knows scenes only
    assert "best of 2" in model.generate("a cat", best_of=2, strict=False).notes[-1]
    with pytest.raises(pictura.EngineError, match="scorer failed"):
        model.generate("red", best_of=2, scorer=lambda pictures: [])


def test_pictures_are_images(model: TextToImage) -> None:
    pictures = model.generate(["red", "blue"], seed=1)
    assert isinstance(pictures.grid(), Image.Image)
    assert pictures[0]._repr_png_().startswith(b"\x89PNG")
