"""Choices and styles with a remote model: made here, sent as plain words, recorded."""

from __future__ import annotations

from collections import Counter

from loopback import SECRET, Loopback, b64
from pictura import TextToImage


def test_each_choice_is_sent_as_words_and_equal_ones_together():
    def answer(asked):
        return {"created": 1, "data": [{"b64_json": b64()}] * asked.json.get("n", 1)}

    with Loopback(answer) as server:
        model = TextToImage.from_preset("openai://gpt-image-1", base_url=f"{server.url}/v1", api_key=SECRET)
        pictures = model.generate("a {cat|dog}", num_images=8, prompt_syntax="a1111")
        fixed = model.generate("a {cat|dog}", num_images=4, template_seed=1)
        plain = model.generate("a {cat|dog}", prompt_syntax="plain")
    sent = Counter()
    for body in server.bodies():
        assert set(body) <= {"model", "prompt", "n"}
        sent[body["prompt"]] += body.get("n", 1)
    assert sent == Counter(p.request.prompt for p in (*pictures, *fixed, plain))
    assert set(sent) <= {"a cat", "a dog", "a {cat|dog}"} and sent["a {cat|dog}"] == 1
    assert all(p.request.options["template"] == "a {cat|dog}" for p in (*pictures, *fixed))
    assert all(isinstance(p.request.options["template_seed"], int) for p in pictures)
    assert len({p.request.prompt for p in fixed}) == 1
    assert {"n": 4, "prompt": fixed[0].request.prompt, "model": "gpt-image-1"} in server.bodies()
