"""LoRAs in every spelling, live and fused, against diffusers with the same file."""

from __future__ import annotations

import random
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from oracle import off
from pictura.engine import Engine, solve
from pictura.errors import CheckpointError, ParameterError
from pictura.families.latent.loras import Loras
from pictura.formats import lora as files
from pictura.nn.lora import Hadamard, Kronecker, Low, Magnitude
from pipelines import FAMILY, family_of, pipeline, request_for

# peft warns of a second adapter, which is what is wanted here.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft", "ignore::RuntimeWarning:peft")

KINDS = ("sd1", "sdxl", "sd3", "flux-dev")
BODY = {"stable_diffusion": "unet", "stable_diffusion_3": "transformer", "flux": "transformer"}
STEPS = {"num_steps": 2, "seed": 3, "size": (32, 32), "guidance_scale": 3.0}


def quiet(level, x0):
    pass


@pytest.fixture(scope="module", params=KINDS)
def pair(request):
    pipe = pipeline(request.param, 1)
    return request.param, pipe, family_of(pipe, request.param)


def layers_of(module, rng, *, conv=False):
    """Some linear layers of a network, every kind of them, maybe convolutions too."""
    kinds = (torch.nn.Linear, torch.nn.Conv2d) if conv else (torch.nn.Linear,)
    names = [name for name, layer in module.named_modules() if isinstance(layer, kinds)]
    attention = [name for name in names if ".attn" in name or "self_attn" in name]
    return sorted({*rng.sample(names, min(6, len(names))), *attention[:8]})


def low(module, names, rng, rank=3):
    """{name: (down, up)} of random numbers."""
    torch_rng = torch.Generator().manual_seed(rng.randrange(1 << 30))
    found = {}
    for name in names:
        weight = module.get_submodule(name).weight
        shapes = [(rank, *weight.shape[1:]), (weight.shape[0], rank, *[1] * (weight.ndim - 2))]
        found[name] = tuple(torch.randn(shape, generator=torch_rng) * 0.1 for shape in shapes)
    return found


def peft_names(component, pairs):
    state = {}
    for name, (down, up) in pairs.items():
        state[f"{component}.{name}.lora_A.weight"] = down
        state[f"{component}.{name}.lora_B.weight"] = up
    return state


def kohya_names(prefix, pairs, alpha):
    state = {}
    for name, (down, up) in pairs.items():
        key = f"{prefix}{name.replace('.', '_')}"
        state |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
        state[f"{key}.alpha"] = torch.tensor(float(alpha))
    return state


def written(state, path):
    save_file({name: tensor.clone().contiguous() for name, tensor in state.items()}, path)
    return {"path": str(path)}


def ours_with(family, loras, **more):
    from pictura.attachments import attached

    records = attached(loras, "lora", "file")
    return solve(family, family.run(request_for(family, **STEPS, options={"lora": records}, **more), quiet))


def theirs_with(pipe, **more):
    out = pipe(
        prompt="a red cat on a tree", num_inference_steps=2, width=32, height=32, guidance_scale=3.0,
        generator=torch.Generator().manual_seed(3), output_type="pt", **more,
    )  # fmt: skip
    return out.images * 2 - 1


close = partial(off, least=1e-3)


def test_a_picture_with_two_loras_is_that_of_diffusers(pair, tmp_path):
    """One for the network, one for it and the text encoder, with weights of their own."""
    kind, pipe, family = pair
    rng, body = random.Random(kind), BODY[FAMILY[kind]]
    first = peft_names(body, low(family.parts[body], layers_of(family.parts[body], rng), rng))
    second = peft_names(body, low(family.parts[body], layers_of(family.parts[body], rng), rng))
    encoder = family.parts["text_encoder"]
    attention = [name for name in layers_of(encoder, rng) if "self_attn" in name]
    second |= peft_names("text_encoder", low(encoder, attention, rng))
    one, two = written(first, tmp_path / "one.safetensors"), written(second, tmp_path / "two.safetensors")
    plain = theirs_with(pipe)
    try:
        pipe.load_lora_weights(tmp_path, weight_name="one.safetensors", adapter_name="one")
        pipe.load_lora_weights(tmp_path, weight_name="two.safetensors", adapter_name="two")
        pipe.set_adapters(["one", "two"], [0.8, -0.5])
        expected = theirs_with(pipe)
    finally:
        pipe.unload_lora_weights()
    ours = ours_with(family, [{**one, "weight": 0.8}, {**two, "weight": -0.5}])
    assert close(plain, expected) > 1e-2, "the LoRAs change nothing"
    assert close(ours, expected) < 1e-4
    assert close(ours_with(family, None), plain) < 1e-4


def test_kohya_is_the_same_as_peft(pair, tmp_path):
    """With alpha 1 of rank 3, which peft's spelling has to have multiplied in."""
    kind, _, family = pair
    rng, body = random.Random(kind), BODY[FAMILY[kind]]
    pairs = low(family.parts[body], layers_of(family.parts[body], rng, conv=True), rng)
    scaled = {name: (down, up / 3) for name, (down, up) in pairs.items()}
    one = written(kohya_names("lora_unet_", pairs, 1), tmp_path / "one.safetensors")
    two = written(peft_names(body, scaled), tmp_path / "two.safetensors")
    assert close(ours_with(family, [one]), ours_with(family, [two])) < 1e-4


def test_kohya_against_diffusers(tmp_path):
    pipe = pipeline("sd1", 2)
    family = family_of(pipe, "sd1")
    rng = random.Random(5)
    names = [name for name in layers_of(family.parts["unet"], rng) if "attn" in name]
    state = kohya_names("lora_unet_", low(family.parts["unet"], names, rng), 2)
    text = [name for name in layers_of(family.parts["text_encoder"], rng) if "self_attn" in name]
    state |= kohya_names("lora_te_", low(family.parts["text_encoder"], text, rng), 2)
    one = written(state, tmp_path / "one.safetensors")
    pipe.load_lora_weights(tmp_path, weight_name="one.safetensors")
    assert close(ours_with(family, [one]), theirs_with(pipe)) < 1e-4


def test_the_makers_names(tmp_path):
    """XL's numbered blocks and FLUX's joined matrices, by the rules of the single-file format."""
    for kind, theirs in (("sdxl", "input_blocks_"), ("flux-dev", "img_attn_qkv"), ("sd3", "attn_qkv")):
        family = family_of(pipeline(kind, 1), kind)
        body = BODY[family.name]
        known = files.spellings({body: [n for n in _linear(family.parts[body])]}, family.originals())
        key = next(name for name in known if name.startswith("lora_unet_") and theirs in name)
        layers = known[key]
        assert layers[0].name.replace(".", "_") not in key
        rng = torch.Generator().manual_seed(1)
        weights = [family.parts[body].get_submodule(layer.name).weight for layer in layers]
        down = torch.randn(2, weights[0].shape[1], generator=rng)
        up = torch.randn(sum(len(weight) for weight in weights), 2, generator=rng)
        one = written(
            {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}, tmp_path / f"{kind}.safetensors"
        )
        pairs, at = {}, 0
        for layer, weight in zip(layers, weights, strict=True):
            pairs[layer.name] = (down, up[at : at + len(weight)])
            at += len(weight)
        two = written(peft_names(body, pairs), tmp_path / f"{kind}-2.safetensors")
        assert len(layers) == (1 if kind == "sdxl" else 3)
        assert close(ours_with(family, [one]), ours_with(family, [two])) < 1e-4


def _linear(module):
    return [name for name, layer in module.named_modules() if isinstance(layer, torch.nn.Linear)]


@pytest.fixture(scope="module")
def small():
    pipe = pipeline("sd1", 3)
    return family_of(pipe, "sd1")


def test_fused_is_live_and_leaves_every_bit(small, tmp_path):
    rng = random.Random(1)
    pairs = low(small.parts["unet"], layers_of(small.parts["unet"], rng, conv=True), rng)
    records = [{**written(peft_names("unet", pairs), tmp_path / "a.safetensors"), "weight": 0.7}]
    from pictura.attachments import attached

    before = {name: tensor.clone() for name, tensor in small.parts["unet"].state_dict().items()}
    live = ours_with(small, records)
    after = small.parts["unet"].state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before), "live changes no weight"
    with small.loras.fuse(attached(records, "lora", "file")):
        assert close(ours_with(small, None), live) < 1e-4
        changed = [
            name for name, t in small.parts["unet"].state_dict().items() if not torch.equal(before[name], t)
        ]
        assert len(changed) == len(pairs)
    assert all(torch.equal(before[name], tensor) for name, tensor in small.parts["unet"].state_dict().items())


def test_neighbours_with_other_loras_share_an_engine(small, tmp_path):
    from pictura.attachments import attached

    rng = random.Random(2)
    names = layers_of(small.parts["unet"], rng)
    one = written(peft_names("unet", low(small.parts["unet"], names, rng)), tmp_path / "a.safetensors")
    two = written(peft_names("unet", low(small.parts["unet"], names, rng)), tmp_path / "b.safetensors")
    sets = [None, [one], [two], [one, {**two, "weight": 0.3}], [{**one, "weight": 0.0}]]
    requests = [
        request_for(small, **STEPS, options={"lora": attached(records, "lora", "file")} if records else {})
        for records in sets
    ]
    alone = [solve(small, small.run(request, quiet)) for request in requests]
    engine = Engine(small, rows=small.rows)
    tickets = [engine.add(small.run(request, quiet)) for request in requests]
    engine.run()
    for ticket, picture in zip(tickets, alone, strict=True):
        assert torch.equal(ticket.result, picture)
    assert torch.equal(alone[0], alone[4]), "a weight of 0 is none"
    assert not torch.equal(alone[0], alone[1]) and not torch.equal(alone[1], alone[2])


def test_other_kinds_by_their_formulas():
    """W' written out with loops and numpy, not with the code under test."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    def torched(*arrays):
        return tuple(map(torch.from_numpy, arrays))

    w = draw(6, 8)
    a1, b1, a2, b2 = draw(6, 2), draw(2, 8), draw(6, 2), draw(2, 8)
    loha = Hadamard(torched(a1, b1), torched(a2, b2), 0.5)
    np.testing.assert_allclose(loha.full(torch.from_numpy(w)), 0.5 * (a1 @ b1) * (a2 @ b2), rtol=1e-5)
    c, d = draw(2, 4), draw(3, 2)
    kron = np.block([[c[i, j] * d for j in range(4)] for i in range(2)])
    np.testing.assert_allclose(Kronecker(*torched(c, d), 2.0).full(torch.from_numpy(w)), 2 * kron, rtol=1e-5)
    down, up, m = draw(2, 8), draw(6, 2), np.abs(draw(6)) + 1
    moved = w + 0.25 * up @ down
    dora = m[:, None] * moved / np.sqrt((moved**2).sum(1, keepdims=True))
    found = Magnitude(Low(*torched(down, up), 0.25), torch.from_numpy(m)).full(torch.from_numpy(w))
    np.testing.assert_allclose(found, dora - w, rtol=1e-4, atol=1e-5)
    # A convolution's kernel is the two convolutions one after the other.
    layer = torch.nn.Conv2d(3, 5, 3, stride=2, padding=1)
    down, up = torched(draw(2, 3, 3, 3), draw(5, 2, 1, 1))
    change, x = Low(down, up, 0.5), torch.randn(1, 3, 7, 9)
    kernel = 0.5 * torch.einsum("or,rihw->oihw", up[:, :, 0, 0], down)
    torch.testing.assert_close(change.full(layer.weight), kernel)
    whole = torch.nn.functional.conv2d(x, kernel, stride=2, padding=1)
    torch.testing.assert_close(change.answer(layer, x, 1.0), whole, rtol=1e-4, atol=1e-5)


def tucker_by_hand(core, a, b):
    """out and in through r each, element by element."""
    (r, s, high, wide), found = core.shape, np.zeros((a.shape[1], b.shape[1], *core.shape[2:]))
    for o, n, h, w in np.ndindex(a.shape[1], b.shape[1], high, wide):
        found[o, n, h, w] = sum(a[i, o] * b[j, n] * core[i, j, h, w] for i, j in np.ndindex(r, s))
    return found


def test_tucker_forms_of_convolutions(small, tmp_path):
    """Files of all three kinds: the change that each makes of a kernel, by its formula and by peft's."""
    from peft.tuners.lokr.layer import make_weight_cp

    unet = small.parts["unet"]
    name = next(n for n, m in unet.named_modules() if n.endswith("downsamplers.0.conv"))
    layer, rng = unet.get_submodule(name), np.random.default_rng(0)
    out, inner, r, key = *layer.weight.shape[:2], 3, f"lora_unet_{name.replace('.', '_')}"

    def draw(*shape):
        return rng.standard_normal(shape).astype(np.float32) * 0.3

    core, up, down = draw(r, r, 3, 3), draw(out, r), draw(r, inner)
    by_hand = tucker_by_hand(core, up.T, down)
    locon = {"lora_up.weight": up[..., None, None], "lora_down.weight": down[..., None, None],
             "lora_mid.weight": core, "alpha": np.float32(1.5)}  # fmt: skip
    parts = {
        f"hada_w{i}_{part}": draw(r, width) for i in (1, 2) for part, width in (("a", out), ("b", inner))
    }
    loha = parts | {"hada_t1": draw(r, r, 3, 3), "hada_t2": draw(r, r, 3, 3), "alpha": np.float32(6)}
    one, other = (
        tucker_by_hand(loha[f"hada_t{i}"], loha[f"hada_w{i}_a"], loha[f"hada_w{i}_b"]) for i in (1, 2)
    )
    theirs = make_weight_cp(*(torch.from_numpy(loha[f"hada_{n}"]) for n in ("t1", "w1_a", "w1_b")))
    np.testing.assert_allclose(one, theirs, rtol=1e-4, atol=1e-6)
    left = draw(2, 4)
    lokr = {"lokr_w1": left, "lokr_w2_a": draw(r, out // 2), "lokr_w2_b": draw(r, inner // 4),
            "lokr_t2": draw(r, r, 3, 3), "alpha": np.float32(1.5)}  # fmt: skip
    right = tucker_by_hand(lokr["lokr_t2"], lokr["lokr_w2_a"], lokr["lokr_w2_b"])
    kron = np.concatenate([np.concatenate([left[i, j] * right for j in range(4)], 1) for i in range(2)])
    for title, (state, expected) in {
        "locon": (locon, by_hand / 2), "loha": (loha, 2 * one * other), "lokr": (lokr, kron / 2),
    }.items():  # fmt: skip
        file = tmp_path / f"{title}.safetensors"
        written({f"{key}.{n}": torch.from_numpy(np.asarray(value)) for n, value in state.items()}, file)
        loras = Loras(small)
        (change,) = loras._load(file).deltas["unet"]
        assert change[0] == name
        np.testing.assert_allclose(change[1].full(layer.weight), expected, rtol=1e-4, atol=1e-5)
        x = torch.randn(1, inner, 7, 9)
        whole = torch.nn.functional.conv2d(x, torch.from_numpy(expected).float(), stride=2, padding=1)
        torch.testing.assert_close(change[1].answer(layer, x, 1.0), whole, rtol=1e-3, atol=1e-4)
        assert close(ours_with(small, [{"path": str(file)}]), ours_with(small, None)) > 1e-4
    for state in (locon | {"lora_mid.weight": core[:2]}, {n: t for n, t in loha.items() if n != "hada_t2"}):
        wrong = written({f"{key}.{n}": torch.from_numpy(np.asarray(t)) for n, t in state.items()},
                        tmp_path / "wrong.safetensors")  # fmt: skip
        with pytest.raises(CheckpointError, match="not fit"):
            ours_with(small, [wrong])


def test_loha_and_lokr_files(small, tmp_path):
    name = next(name for name in _linear(small.parts["unet"]) if name.endswith("attn1.to_q"))
    rows, columns = small.parts["unet"].get_submodule(name).weight.shape
    key, rng = f"lycoris_{name.replace('.', '_')}", torch.Generator().manual_seed(1)

    def draw(*shape):
        return torch.randn(shape, generator=rng) * 0.3

    loha = {f"{key}.hada_w{i}_{part}": draw(*shape) for i in (1, 2)
            for part, shape in (("a", (rows, 2)), ("b", (2, columns)))}  # fmt: skip
    lokr = {
        f"{key}.lokr_w1": draw(2, 2),
        f"{key}.lokr_w2_a": draw(rows // 2, 2),
        f"{key}.alpha": torch.tensor(1.0),
    }
    lokr[f"{key}.lokr_w2_b"] = draw(2, columns // 2)
    plain = ours_with(small, None)
    for at, state in enumerate((loha, lokr)):
        record = written(state, tmp_path / f"{at}.safetensors")
        assert close(ours_with(small, [record]), plain) > 1e-4


def test_wrong_files_are_refused(small, tmp_path):
    rng = random.Random(3)
    pairs = low(small.parts["unet"], layers_of(small.parts["unet"], rng), rng)
    name = next(iter(pairs))
    down, up = pairs[name]
    flux = {"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": down}
    wrong = {
        "another model": (flux, "no LoRA for this model"),
        "no lora at all": ({"model.weight": down}, "no kind of LoRA"),
        "a half": ({f"unet.{name}.lora_A.weight": down}, "incomplete"),
        "a wrong width": (peft_names("unet", {name: (down[:, :-1], up)}), "does not fit"),
        "a wrong rank": (peft_names("unet", {name: (down[:-1], up)}), "do(es)? not fit"),
        "some of another": (peft_names("unet", pairs) | {"unet.nothing.lora_A.weight": down,
                                                         "unet.nothing.lora_B.weight": up}, "does not have"),
    }  # fmt: skip
    for title, (state, message) in wrong.items():
        with pytest.raises(CheckpointError, match=message):
            ours_with(small, [written(state, tmp_path / "x.safetensors")])
            raise AssertionError(title)
    (tmp_path / "x.bin").write_bytes(b"\x80\x04")
    with pytest.raises(ParameterError, match="can hold programs"):
        ours_with(small, [{"path": str(tmp_path / "x.bin")}])
    good = written(peft_names("unet", pairs), tmp_path / "good.safetensors")
    for records in ([{**good, "weight": "much"}], [{**good, "weight": 1e9}], [{**good, "colour": 1}], 7):
        with pytest.raises(ParameterError, match="lora"):
            ours_with(small, records)


def test_through_the_command_line_and_replayed(tmp_path, monkeypatch, capsys):
    from pictura import TextToImage
    from pictura.cli import main
    from pictura.picture import Picture

    monkeypatch.setenv("PICTURA_CACHE", str(tmp_path / "cache"))
    pipe = pipeline("sd1", 3)
    pipe.save_pretrained(tmp_path / "model")
    rng = random.Random(1)
    unet = family_of(pipe, "sd1").parts["unet"]
    file = tmp_path / "style.safetensors"
    written(peft_names("unet", low(unet, layers_of(unet, rng), rng)), file)
    said = ["generate", "a red cat", "--model", str(tmp_path / "model"), "--steps", "2", "--size", "32x32"]
    said += ["--dtype", "float32", "--seed", "5"]
    assert main([*said, "--out", str(tmp_path / "plain.png")]) == 0
    assert main([*said, "--lora", f"{file}:0.7", "--out", str(tmp_path / "cat.png")]) == 0
    picture = Picture.open(tmp_path / "cat.png")
    assert picture.request.options["lora"][0]["weight"] == 0.7
    assert not np.array_equal(np.asarray(picture), np.asarray(Picture.open(tmp_path / "plain.png")))
    model = TextToImage.from_preset(tmp_path / "model", dtype="float32")
    loras = [{"path": str(file), "weight": 0.7}]
    again = model.generate("a red cat", seed=5, num_steps=2, size="32x32", lora=loras)
    np.testing.assert_array_equal(np.asarray(again), np.asarray(picture))
    assert main(["replay", str(tmp_path / "cat.png"), "--check"]) == 0
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\1")  # another LoRA by the same name
    assert main(["replay", str(tmp_path / "cat.png"), "--check"]) == 2
    assert "lora" in capsys.readouterr().err
