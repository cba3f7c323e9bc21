"""What prompts become, against transformers' encoders and the formula of weights; textual inversion against
diffusers."""

from __future__ import annotations

import copy

import pytest
import safetensors.torch
import torch

from oracle import near
from pictura.attachments import recorded
from pictura.engine import Engine, solve
from pictura.errors import ParameterError, PresetError
from pictura.families.latent import embeddings, timing
from pipelines import WORDS, family_of, pipeline, request_for

MADE = {}


@torch.no_grad()
def off_centre(encoder):
    """Give CLIP's states a mean, as real ones have; what is scaled by it would else be noise."""
    for name, parameter in encoder.named_parameters():
        if name.endswith("position_embedding.weight"):
            parameter += 0.3
        if name.endswith("final_layer_norm.bias"):
            parameter += 0.2


def pair(kind, seed=0):
    if (kind, seed) not in MADE:
        pipe = pipeline(kind, seed)
        for name, part in pipe.components.items():
            if name.startswith("text_encoder") and part is not None:
                off_centre(part)
        MADE[kind, seed] = pipe, family_of(pipe, kind)
    return MADE[kind, seed]


@torch.no_grad()
def answered(family, program):
    """What a program without an engine returns, of whatever type."""
    answers = None
    while True:
        try:
            asks = program.send(answers)
        except StopIteration as done:
            return done.value
        answers = tuple(family.evaluate(ask.net, ask.variant, **ask.inputs) for ask in asks)


def conditions(family, prompt, **values):
    request = request_for(family, prompt, num_steps=2, size=(32, 32), **values)
    family.check(request)
    yes, no = answered(family, timing.conditions(family, request))
    return [one.at(1) for one in yes], None if no is None else no.at(1)


def ids(tokenizer, text, length):
    return tokenizer(
        text, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids


def weighed(z, weights, back=torch.mean):
    """AUTOMATIC1111's rule, in its own words: multiply, then bring the mean back."""
    if not weights:
        return z
    factors = torch.ones(z.shape[1], dtype=torch.float64)
    for at, weight in weights.items():
        factors[at] = weight
    changed = z.double() * factors[None, :, None]
    return (changed * (back(z.double()) / back(changed))).float()


def strength(z):
    return z.square().mean().sqrt()


def hidden(encoder, tokenizer, text, layer=-2):
    output = encoder(ids(tokenizer, text, 77), output_hidden_states=True)
    return output.hidden_states[layer]


WRITTEN = "a (red:1.5) cat [on] (a ((tree)))"
PLAIN = "a red cat on a tree"
WEIGHTS = {"red": 1.5, "cat": 1.0, "on": 1 / 1.1, "a": 1.1, "tree": 1.1**3}


def by_token(tokenizer, wanted, start=1):
    """{place: weight} for the tokens of PLAIN; its first word, "a", has none."""
    found, at = {}, start
    for n, word in enumerate(PLAIN.split()):
        count = len(tokenizer(word, add_special_tokens=False).input_ids)
        if wanted and n:
            found |= dict.fromkeys(range(at, at + count), WEIGHTS[word])
        at += count
    return found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("weights", [True, False])
@torch.no_grad()
def test_conditions_of_unets(seed, weights):
    written = WRITTEN if weights else PLAIN
    pipe, ours = pair("sd1", seed)
    (yes,), no = conditions(ours, written, guidance_scale=3.0, negative_prompt="two (dogs:0.5)")
    near(
        yes.context,
        weighed(pipe.text_encoder(ids(pipe.tokenizer, PLAIN, 77))[0], by_token(pipe.tokenizer, weights)),
    )
    dogs = {2 + i: 0.5 for i in range(len(pipe.tokenizer("dogs", add_special_tokens=False).input_ids))}
    near(no.context, weighed(pipe.text_encoder(ids(pipe.tokenizer, "two dogs", 77))[0], dogs))

    pipe, ours = pair("sdxl", seed)
    (yes,), no = conditions(ours, written, guidance_scale=3.0)
    encoders = [(pipe.text_encoder, pipe.tokenizer), (pipe.text_encoder_2, pipe.tokenizer_2)]
    near(
        yes.context,
        torch.cat([weighed(hidden(*two, PLAIN), by_token(two[1], weights)) for two in encoders], -1),
    )
    near(yes.pooled, pipe.text_encoder_2(ids(pipe.tokenizer_2, PLAIN, 77)).text_embeds)
    if pipe.config.force_zeros_for_empty_prompt:
        assert not no.context.any() and not no.pooled.any()


@pytest.mark.parametrize("weights", [True, False])
@torch.no_grad()
def test_conditions_of_transformers(weights):
    written = WRITTEN if weights else PLAIN
    pipe, ours = pair("sd3", 1)
    (yes,), _ = conditions(ours, written, guidance_scale=3.0, options={"max_sequence_length": 33})
    clips = [(pipe.text_encoder, pipe.tokenizer), (pipe.text_encoder_2, pipe.tokenizer_2)]
    short = torch.cat([weighed(hidden(*two, PLAIN), by_token(two[1], weights)) for two in clips], -1)
    by_piece = by_token(pipe.tokenizer_3, weights, start=0)
    long = weighed(pipe.text_encoder_3(ids(pipe.tokenizer_3, PLAIN, 33))[0], by_piece, strength)
    near(
        yes.context,
        torch.cat([torch.nn.functional.pad(short, (0, long.shape[-1] - short.shape[-1])), long], 1),
    )
    vectors = [encoder(ids(tokenizer, PLAIN, 77)).text_embeds for encoder, tokenizer in clips]
    near(yes.pooled, torch.cat(vectors, -1))

    pipe, ours = pair("flux-dev", 1)
    (yes,), no = conditions(ours, written, options={"max_sequence_length": 21})
    by_piece = by_token(pipe.tokenizer_2, weights, start=0)
    near(yes.context, weighed(pipe.text_encoder_2(ids(pipe.tokenizer_2, PLAIN, 21))[0], by_piece, strength))
    near(yes.pooled, pipe.text_encoder(ids(pipe.tokenizer, PLAIN, 77)).pooler_output)
    assert no is None


@torch.no_grad()
def test_long_prompts_are_read_in_chunks():
    """Both prompts in as many chunks as the longer has; the vector is the first chunk's."""
    pipe, ours = pair("sdxl", 1)
    single = [word for word in WORDS if len(pipe.tokenizer(word, add_special_tokens=False).input_ids) == 1]
    words = (single * 60)[:180]
    (yes,), no = conditions(ours, " ".join(words), guidance_scale=3.0, negative_prompt="blue dog")
    encoders = [(pipe.text_encoder, pipe.tokenizer), (pipe.text_encoder_2, pipe.tokenizer_2)]

    def read(texts):
        return torch.cat([torch.cat([hidden(*two, text) for text in texts], 1) for two in encoders], -1)

    cuts = [" ".join(words[at : at + 75]) for at in (0, 75, 150)]
    assert yes.context.shape[1] == 3 * 77 == no.context.shape[1]
    near(yes.context, read(cuts))
    near(no.context, read(["blue dog", "", ""]))
    near(yes.pooled, pipe.text_encoder_2(ids(pipe.tokenizer_2, cuts[0], 77)).text_embeds)

    (yes,), _ = conditions(ours, "red BREAK (cat:2)", guidance_scale=3.0)
    second = torch.cat([weighed(hidden(*two, "cat"), {1: 2.0}) for two in encoders], -1)
    near(yes.context, torch.cat([read(["red"]), second], 1))


@torch.no_grad()
def test_plain_prompts_are_cut_as_diffusers_does():
    pipe, ours = pair("sd1")
    text = "a (red:1.5) cat [on " * 12
    (yes,), _ = conditions(ours, text, guidance_scale=3.0, options={"prompt_syntax": "plain"})
    near(yes.context, pipe.text_encoder(ids(pipe.tokenizer, text, 77))[0])
    request = request_for(ours, "a red cat " * 40, options={"prompt_syntax": "plain"})
    (note,) = ours.notes(request)
    assert note.startswith("text_encoder reads 77 tokens; left out: 'a red cat")
    assert ours.notes(request_for(ours, "a red cat " * 40)) == ()


def test_what_t5_does_not_read_is_noted():
    _, ours = pair("flux-schnell")
    request = request_for(ours, "a red cat on", options={"max_sequence_length": 4})
    assert ours.notes(request) == ("text_encoder_2 reads 4 tokens; left out: 'on'",)


def test_prompts_are_encoded_once_for_all_who_ask():
    """Equal texts and chunks of a request, its neighbours and its other steps share an answer."""
    _, ours = pair("sd1")
    asked = []

    class Counted:
        def evaluate(self, net, variant, **inputs):
            if net == "text_encoder":
                asked.extend(inputs["ids"].tolist())
            return ours.evaluate(net, variant, **inputs)

    engine = Engine(Counted(), rows=1)
    for prompt in ("red BREAK (cat:2)", "cat", "red"):
        request = request_for(ours, prompt, num_steps=2, size=(32, 32), guidance_scale=3.0)
        engine.add(ours.run(request, lambda level, x0: None))
    engine.run()
    assert len(asked) == len({tuple(row) for row in asked}) == 3  # red, cat and the empty chunk


@pytest.mark.parametrize("kind", ["sd1", "sd3"])
def test_bad_prompts_are_told_before_any_work(kind):
    _, ours = pair(kind, 1)
    for values, message in [
        ({"prompt": "(a:1e999)"}, "weight"),
        ({"prompt": "a", "negative_prompt": "(a:-500)", "guidance_scale": 3.0}, "weight"),
    ]:
        with pytest.raises(ParameterError, match=message):
            ours.check(request_for(ours, values.pop("prompt"), **values))


def test_a_tokenizer_of_another_model_is_told():
    pipe, ours = pair("sd1", 2)
    other = family_of(pipe, "sd1")
    from pictura.text.tokenizer_files import clip

    other.assets["tokenizer"] = clip()
    with pytest.raises(PresetError, match="more words"):
        other.check(request_for(other, "a photo"))


# Textual inversion


def drawn(ours, prompt, **values):
    request = request_for(ours, prompt, num_steps=3, size=(48, 32), seed=5, **values)
    ours.check(request)
    return solve(ours, ours.run(request, lambda level, x0: None)) / 2 + 0.5


def theirs(pipe, prompt, **values):
    generator = torch.Generator().manual_seed(5)
    shape = {"width": 48, "height": 32, "num_inference_steps": 3, "output_type": "pt"}
    return pipe(prompt, generator=generator, **shape, **values).images


@pytest.mark.parametrize("vectors", [1, 3])
@pytest.mark.parametrize("form", ["diffusers", "a1111"])
def test_textual_inversion_as_diffusers_does_it(tmp_path, vectors, form):
    pipe, ours = copy.deepcopy(pair("sd1", 1)[0]), pair("sd1", 1)[1]
    width = pipe.text_encoder.config.hidden_size
    tensor = 0.3 * torch.randn(vectors, width, generator=torch.Generator().manual_seed(1))
    file = tmp_path / "my-style.safetensors"
    word = "<my-cat>" if form == "diffusers" else "my-style"
    safetensors.torch.save_file({word if form == "diffusers" else "emb_params": tensor}, file)
    pipe.load_textual_inversion(tmp_path, weight_name=file.name, token=word)
    options = {"embeddings": [recorded(file, "embeddings", "file")]}
    prompt, negative = f"a red {word} on a tree", f"two {word}"
    both = {"guidance_scale": 4.0, "negative_prompt": negative}
    mine = drawn(ours, prompt, options=options, **both)
    near(mine, theirs(pipe, prompt, **both), 1e-4)
    assert (mine - drawn(ours, prompt, **both)).abs().max() > 1e-3


def test_textual_inversion_of_two_encoders(tmp_path):
    for seed in range(20):
        pipe = pipeline("sdxl", seed)
        widths = [pipe.text_encoder.config.hidden_size, pipe.text_encoder_2.config.hidden_size]
        if widths[0] != widths[1]:  # which is how they are told apart
            break
    ours, rng = family_of(pipe, "sdxl"), torch.Generator().manual_seed(2)
    parts = [0.3 * torch.randn(2, width, generator=rng) for width in widths]
    file = tmp_path / "Style.safetensors"
    safetensors.torch.save_file({"clip_l": parts[0], "clip_g": parts[1]}, file)
    pipe.load_textual_inversion(
        parts[0], token="style", text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer
    )
    pipe.load_textual_inversion(
        parts[1], token="style", text_encoder=pipe.text_encoder_2, tokenizer=pipe.tokenizer_2
    )
    # By the old rule of configurations the end is the largest id, which an added word would be.
    end = ours.parts["text_encoder_2"].end = pipe.tokenizer_2.eos_token_id
    pipe.text_encoder_2.text_model.eos_token_id = end
    options = {"embeddings": [recorded(file, "embeddings", "file")]}
    mine = drawn(ours, "a red style on a tree", options=options, guidance_scale=4.0)
    near(mine, theirs(pipe, "a red style on a tree", guidance_scale=4.0), 1e-4)


def test_a_word_may_be_chosen_and_must_be_one(tmp_path):
    _, ours = pair("sd1")
    width = ours.parts["text_encoder"].text_model.final_layer_norm.normalized_shape[0]
    for name in ("one", "two"):
        safetensors.torch.save_file({"emb_params": torch.ones(1, width)}, tmp_path / f"{name}.safetensors")
    records = [recorded(tmp_path / f"{name}.safetensors", "embeddings", "file") for name in ("one", "two")]
    found = embeddings.load([{**records[0], "token": "mine"}, records[1]])
    assert [one.word for one in found] == ["mine", "two"]
    with pytest.raises(ParameterError, match="two embeddings"):
        embeddings.load([{**records[0], "token": "TWO"}, records[1]])
    for bad in (["x"], 3, [{"path": "x"}], [{**records[0], "weight": 2}]):
        with pytest.raises(ParameterError, match="embeddings"):
            embeddings.load(bad)


@pytest.mark.parametrize(
    "tensors",
    [
        {}, {"a": torch.ones(2, 5), "b": torch.ones(2, 5)}, {"emb_params": torch.ones(2, 3, 4)},
        {"emb_params": torch.ones(80, 16)}, {"a": torch.ones(1, 16, dtype=torch.int32)},
        {"a": torch.full((1, 16), float("nan"))}, {"clip_l": torch.ones(1, 8), "clip_g": torch.ones(1, 8)},
    ],
)  # fmt: skip
def test_files_without_embeddings_are_told(tmp_path, tensors):
    file = tmp_path / "bad.safetensors"
    safetensors.torch.save_file(tensors, file)
    with pytest.raises(ParameterError, match="bad.safetensors"):
        embeddings.load([recorded(file, "embeddings", "file")])


def test_embeddings_of_another_width_and_pickles_are_told(tmp_path):
    _, ours = pair("sd1")
    file = tmp_path / "wide.safetensors"
    safetensors.torch.save_file({"emb_params": torch.ones(1, 7)}, file)
    options = {"embeddings": [recorded(file, "embeddings", "file")]}
    with pytest.raises(ParameterError, match="width 7"):
        ours.check(request_for(ours, "a cat", options=options))
    (tmp_path / "old.pt").write_bytes(b"\x80\x02")
    with pytest.raises(ParameterError, match="safetensors"):
        embeddings.load([recorded(tmp_path / "old.pt", "embeddings", "file")])


# Prompts that change


@pytest.mark.parametrize("sampler", ["euler", "heun", "ddim"])
@torch.no_grad()
def test_prompts_change_at_their_step(sampler):
    """Every question to the network has the context of the prompt that its step has."""
    pipe, ours = pair("sd1", 1)
    values = {"num_steps": 4, "size": (32, 32), "sampler": sampler, "guidance_scale": 3.0}
    request = request_for(ours, "a [red:(blue:1.2):0.5] cat", negative_prompt="[two|dog]", **values)
    ours.check(request)
    seen = []

    class Watched:
        def evaluate(self, net, variant, **inputs):
            if net == "unet":
                seen.append((float(inputs["time"]), inputs["context"]))
            return ours.evaluate(net, variant, **inputs)

    solve(Watched(), ours.run(request, lambda level, x0: None))
    steps = {time: n for n, time in enumerate(sorted({time for time, _ in seen}, reverse=True))}
    blue = {1 + 1 + i: 1.2 for i in range(len(pipe.tokenizer("blue", add_special_tokens=False).input_ids))}
    for n, (time, context) in enumerate(seen):
        text, weights = ("a red cat", {}) if steps[time] < 2 else ("a blue cat", blue)
        if n % 2 == 0:  # the negative prompt is asked about first
            text, weights = ("two", "dog")[steps[time] % 2], {}
        near(context, weighed(pipe.text_encoder(ids(pipe.tokenizer, text, 77))[0], weights))
    assert len(steps) == 4


def test_a_prompt_that_does_not_change_asks_as_before():
    _, ours = pair("sd1", 1)
    request = request_for(ours, "a [red] cat", num_steps=2, size=(32, 32), seed=1)
    plain = request_for(
        ours, "a [red:blue:0.5]", num_steps=2, size=(32, 32), seed=1, options={"prompt_syntax": "plain"}
    )
    assert timing.texts(request, guided=False) == ["a [red] cat"]
    assert timing.texts(plain, guided=True) == ["a [red:blue:0.5]", ""]
