"""Files that diffusers and the original authors write, read as one model and written back bit for bit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pictura import CheckpointError, ParameterError, PresetError, checkpoints
from pictura.converting import convert
from pictura.formats.layout import open_layout
from pictura.formats.safetensors import Entry, fill

Written = Callable[[str], Path]
VERSIONS = {"sd1": "1.x", "sd2": "2.x", "sdxl": "xl", "sd3": "3.5", "flux": "flux-dev"}
FAMILIES = {"sd1": "stable_diffusion", "sd2": "stable_diffusion", "sdxl": "stable_diffusion",
            "sd3": "stable_diffusion_3", "flux": "flux"}  # fmt: skip


def values(entries: Mapping[str, Entry]) -> dict[str, torch.Tensor]:
    """The tensors as a network would get them."""
    tensors = {name: torch.empty(entry.shape) for name, entry in entries.items()}
    fill(entries, tensors)
    return tensors


def pipeline(folder: Path, **more: Any) -> Any:
    from diffusers import DiffusionPipeline

    return DiffusionPipeline.from_pretrained(folder, **more)


def states(pipe: Any) -> dict[str, torch.Tensor]:
    return {
        f"{part}.{name}": tensor
        for part, module in pipe.components.items()
        if isinstance(module, torch.nn.Module)
        for name, tensor in module.state_dict().items()
    }


def same(one: Mapping[str, torch.Tensor], two: Mapping[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, two[name]), name


@pytest.mark.parametrize("name", VERSIONS)
def test_every_way_round_keeps_every_bit(name: str, written: Written, tmp_path: Path) -> None:
    """A folder of diffusers -> preset -> single file -> diffusers' folder, which diffusers loads as the same
    model."""
    folder = written(name)
    convert(folder, tmp_path / "preset")
    single = convert(tmp_path / "preset", tmp_path / "single", "single-file")
    convert(single, tmp_path / "folder", "diffusers", config=folder)
    convert(tmp_path / "preset", tmp_path / "direct", "diffusers")
    convert(single, tmp_path / "again", config=folder)
    assert single.suffix == ".safetensors"
    written_preset = (tmp_path / "preset" / "model.safetensors").read_bytes()
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == written_preset
    theirs = pipeline(folder)
    for way in ("folder", "direct"):
        ours = pipeline(tmp_path / way)
        assert type(ours) is type(theirs)
        same(states(theirs), states(ours))
        assert ours.scheduler.config == theirs.scheduler.config
        for part in ("unet", "transformer", "vae"):
            if part in theirs.components:
                assert (
                    dict(ours.components[part].config).items()
                    >= {
                        key: value
                        for key, value in theirs.components[part].config.items()
                        if not key.startswith("_")
                    }.items()
                )
        assert ours.tokenizer("a red cat").input_ids == theirs.tokenizer("a red cat").input_ids


@pytest.mark.parametrize("name", VERSIONS)
def test_a_model_is_recognised_by_its_tensors(name: str, written: Written, tmp_path: Path) -> None:
    """Family and version from names and shapes; of tiny models only sizes that no tensor tells differ."""
    folder = written(name)
    single = convert(folder, tmp_path / "anything.safetensors", "single-file")
    renamed = single.rename(tmp_path / "model.bin")  # names mean nothing
    guessed, told = (checkpoints.find(place).recipe for place in (renamed, folder))
    assert guessed.family == told.family == FAMILIES[name]
    assert guessed.plan.version == told.plan.version == VERSIONS[name]  # type: ignore[union-attr]
    assert guessed.entries.keys() == told.entries.keys()
    unseen = {"attention_head_dim", "num_attention_heads", "norm_num_groups", "sample_size", "projection_dim",
              "bos_token_id", "eos_token_id", "hidden_act", "axes_dims_rope", "addition_time_embed_dim",
              "scaling_factor", "force_upcast", "clip_sample"}  # fmt: skip
    for component, config in told.architecture.items():
        if isinstance(config, dict):
            known = guessed.architecture[component]
            wrong = {key for key in known if key in config and known[key] != config[key]} - unseen
            assert not wrong - {"out_channels"}, (component, wrong)  # FLUX's folder leaves it out


def test_the_converters_of_diffusers_agree(written: Written, tmp_path: Path) -> None:
    """Single files of ours through diffusers' own converters, where those work without a network."""
    from diffusers.loaders import single_file_utils as theirs

    for name, part in (("sd1", "unet"), ("sdxl", "unet"), ("sd1", "vae"), ("sd3", "transformer")):
        folder = written(name)
        single = tmp_path / f"{name}-{part}.safetensors"
        convert(folder, single, "single-file")
        config = json.loads((folder / part / "config.json").read_text())
        state = load_file(single)
        if part == "unet":
            made = theirs.convert_ldm_unet_checkpoint(state, config)
        elif part == "vae":
            made = theirs.convert_ldm_vae_checkpoint(state, config)
        else:
            head = "model.diffusion_model."
            body = {key.removeprefix(head): value for key, value in state.items() if key.startswith(head)}
            made = theirs.convert_sd3_transformer_checkpoint_to_diffusers(body)
        same(made, load_file(folder / part / "diffusion_pytorch_model.safetensors"))


def test_open_clip_as_diffusers_converts_it(written: Written, tmp_path: Path) -> None:
    from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint

    folder = written("sdxl")
    single = convert(folder, tmp_path / "xl.safetensors", "single-file")
    prefix = "conditioner.embedders.1.model."
    state = load_file(single)
    model = pipeline(folder).text_encoder_2
    # The converter cuts queries, keys and values at the projection's width, so it is given one as wide.
    state[f"{prefix}text_projection"] = torch.zeros(24, 24)
    made = convert_open_clip_checkpoint(model, state, prefix)
    ours = {name.removeprefix("text_encoder_2."): tensor
            for name, tensor in values(checkpoints.find(single, config=folder).recipe.entries).items()
            if name.startswith("text_encoder_2.")}  # fmt: skip
    del made["text_projection.weight"], ours["text_projection.weight"]
    same(made, ours)


def test_flux_from_the_files_it_is_published_as(written: Written, tmp_path: Path) -> None:
    """A transformer, an autoencoder and two encoders, each a file of its own in one folder."""
    folder = written("flux")
    state = load_file(convert(folder, tmp_path / "all.safetensors", "single-file"))
    loose = tmp_path / "loose"
    loose.mkdir()
    for file, head in {"flux1-dev": "model.diffusion_model.", "ae": "vae.",
                       "clip_l": "text_encoders.clip_l.transformer.",
                       "t5xxl": "text_encoders.t5xxl.transformer."}.items():  # fmt: skip
        part = {key.removeprefix(head): value for key, value in state.items() if key.startswith(head)}
        if file == "t5xxl":
            part["encoder.embed_tokens.weight"] = part.pop("shared.weight")
        if file == "clip_l":
            part["text_model.embeddings.position_ids"] = torch.arange(77)
            part["logit_scale"] = torch.tensor(1.0)
        save_file(part, loose / f"{file}.safetensors")
    recipe = checkpoints.find(loose, config=folder).recipe
    same(values(recipe.entries), values(checkpoints.find(folder).recipe.entries))
    assert not recipe.missing
    alone = checkpoints.find(loose / "flux1-dev.safetensors", config=folder).recipe
    same(values(alone.entries), values(recipe.entries))
    assert checkpoints.find(loose / "flux1-dev.safetensors").recipe.missing == (
        "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2",
    )  # fmt: skip
    shutil.copy(loose / "ae.safetensors", loose / "ae-2.safetensors")
    with pytest.raises(CheckpointError, match=r"ae-2\.safetensors' and .* hold a vae; give one"):
        checkpoints.find(loose)


def test_sd3_without_its_largest_encoder(written: Written, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(written("sd3"), tmp_path / "sd3"))
    for name in ("text_encoder_3", "tokenizer_3"):
        shutil.rmtree(folder / name)
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"text_encoder_3": [None, None], "tokenizer_3": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index))
    recipe = checkpoints.find(folder).recipe
    assert recipe.missing == ("text_encoder_3",)
    single = convert(folder, tmp_path / "single", "single-file")
    assert checkpoints.find(single, config=folder).recipe.entries.keys() == recipe.entries.keys()
    convert(single, tmp_path / "back", "diffusers", config=folder)
    back = pipeline(tmp_path / "back", text_encoder_3=None, tokenizer_3=None)
    assert back.components.keys() >= {"transformer", "text_encoder_2", "text_encoder_3"}


def test_sharded_folders_and_variants(written: Written, tmp_path: Path) -> None:
    """As diffusers and transformers spell them: shards with an index, .fp16 beside the full weights."""
    folder = Path(shutil.copytree(written("sd1"), tmp_path / "sd1"))
    pipe = pipeline(folder)
    pipe.unet.save_pretrained(folder / "unet", max_shard_size="1MB")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    pipe.to(torch.float16)
    pipe.unet.save_pretrained(folder / "unet", variant="fp16", max_shard_size="1MB")
    pipe.text_encoder.save_pretrained(folder / "text_encoder", variant="fp16")
    assert len(list((folder / "unet").glob("*-of-*.safetensors"))) > 3
    full, half = (checkpoints.find(folder, variant=variant).recipe.entries for variant in (None, "fp16"))
    same(values(full), values(checkpoints.find(written("sd1")).recipe.entries))
    kinds = {name.partition(".")[0]: entry.dtype for name, entry in half.items()}
    assert kinds == {"unet": "F16", "text_encoder": "F16", "vae": "F32"}  # which has the one spelling only
    assert {entry.dtype for entry in full.values()} == {"F32"}
    with pytest.raises(PresetError, match="no variant 'bf16'; it has: fp16"):
        checkpoints.find(folder, variant="bf16")
    assert checkpoints.find(f"{folder}?variant=fp16").name == f"{folder}?variant=fp16"


def test_older_spellings(written: Written, tmp_path: Path) -> None:
    """CLIP with and without "text_model.", buffers that nobody needs, the first names of the VAE's
    attention."""
    folder = Path(shutil.copytree(written("sd1"), tmp_path / "sd1"))
    path = folder / "text_encoder" / "model.safetensors"
    state = load_file(path)
    head = "text_model."
    assert not any(name.startswith(head) for name in state)  # as transformers 5 writes it
    old = {f"{head}{name}": tensor for name, tensor in state.items()}
    save_file({**old, f"{head}embeddings.position_ids": torch.arange(77)[None]}, path)
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for side in ("encoder", "decoder"):
        for new, older in names.items():
            for kind in ("weight", "bias"):
                place = f"{side}.mid_block.attentions.0"
                tensor = state.pop(f"{place}.{new}.{kind}")
                state[f"{place}.{older}.{kind}"] = (
                    tensor[..., None, None].clone() if tensor.ndim == 2 else tensor
                )
    save_file(state, path)
    same(
        values(checkpoints.find(folder).recipe.entries),
        values(checkpoints.find(written("sd1")).recipe.entries),
    )


def test_what_training_left_in_a_file_is_passed_over(written: Written, tmp_path: Path) -> None:
    folder = written("sd1")
    single = convert(folder, tmp_path / "single.safetensors", "single-file")
    state = load_file(single)
    buffer = "cond_stage_model.transformer.text_model.embeddings.position_ids"
    left = {"alphas_cumprod": torch.ones(9), buffer: torch.arange(77), "model_ema.decay": torch.tensor(0.9)}
    state |= left
    save_file(state, tmp_path / "full.safetensors")
    recipe = checkpoints.find(tmp_path / "full.safetensors", config=folder).recipe
    assert recipe.unused == tuple(left)
    same(values(recipe.entries), values(checkpoints.find(folder).recipe.entries))


def test_sd2_drops_the_layer_that_it_does_not_use(written: Written, tmp_path: Path) -> None:
    folder = written("sd2")
    single = convert(folder, tmp_path / "single.safetensors", "single-file")
    state = load_file(single)
    head = "cond_stage_model.model."
    last = {key.replace("resblocks.2.", "resblocks.3."): value.clone() for key, value in state.items()
            if key.startswith(f"{head}transformer.resblocks.2.")}  # fmt: skip
    save_file({**state, **last, f"{head}text_projection": torch.zeros(32, 24)}, tmp_path / "full.safetensors")
    for config in (None, folder):
        recipe = checkpoints.find(tmp_path / "full.safetensors", config=config).recipe
        assert recipe.architecture["text_encoder"]["num_hidden_layers"] == 3
        same(values(recipe.entries), values(checkpoints.find(folder).recipe.entries))


def test_what_a_file_predicts_can_be_said(written: Written, tmp_path: Path) -> None:
    single = convert(written("sd2"), tmp_path / "sd2", "single-file")
    scheduler = checkpoints.find(single).recipe.architecture["scheduler"]
    assert scheduler["prediction_type"] == "v_prediction"
    found = checkpoints.find(single, prediction_type="epsilon")
    assert found.recipe.architecture["scheduler"]["prediction_type"] == "epsilon"
    assert found.name == f"{single}?prediction_type=epsilon"
    assert checkpoints.find(found.name).recipe.architecture == found.recipe.architecture
    for given, kind in ((written("flux"), "epsilon"), (single, "noise")):
        with pytest.raises(ParameterError, match="does not fit a model of"):
            checkpoints.find(given, prediction_type=kind)
    xl = load_file(convert(written("sdxl"), tmp_path / "xl", "single-file"))
    save_file({**xl, "v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}, tmp_path / "v.safetensors")
    scheduler = checkpoints.find(tmp_path / "v.safetensors").recipe.architecture["scheduler"]
    assert scheduler["prediction_type"] == "v_prediction" and scheduler["rescale_betas_zero_snr"]


def test_converting_to_another_dtype(written: Written, tmp_path: Path) -> None:
    folder = written("flux")
    convert(folder, tmp_path / "half", dtype="bfloat16")
    half = load_file(tmp_path / "half" / "model.safetensors")
    for name, tensor in values(checkpoints.find(folder).recipe.entries).items():
        assert torch.equal(half[name], tensor.bfloat16()), name
    for given, said in (
        ({"to": "ckpt"}, "form 'ckpt' is unknown"),
        ({"dtype": "int3"}, "dtype 'int3' is unknown"),
    ):
        with pytest.raises(ParameterError, match=said):
            convert(folder, tmp_path / "other", **given)
    with pytest.raises(PresetError, match="exist as Pictura presets only"):
        convert("scenes", tmp_path / "other", "diffusers")


def test_a_config_of_another_version_is_refused(written: Written, tmp_path: Path) -> None:
    single = convert(written("sdxl"), tmp_path / "xl", "single-file")
    with pytest.raises(CheckpointError, match="looks like stable_diffusion xl, but .* describes 1.x"):
        checkpoints.find(single, config=written("sd1"))


def test_a_preset_completes_a_file_too(written: Written, tmp_path: Path) -> None:
    convert(written("sdxl"), tmp_path / "preset")
    single = convert(written("sdxl"), tmp_path / "xl", "single-file")
    recipe = checkpoints.find(single, config=tmp_path / "preset").recipe
    assert recipe.architecture == checkpoints.find(tmp_path / "preset").recipe.architecture
    body = load_file(single)
    save_file(
        {name: value for name, value in body.items() if name.startswith("model.")}, tmp_path / "b.safetensors"
    )
    recipe = checkpoints.find(tmp_path / "b.safetensors", config=tmp_path / "preset").recipe
    assert not recipe.missing and recipe.tokenizers.keys() == {"tokenizer", "tokenizer_2"}
    same(values(recipe.entries), values(checkpoints.find(written("sdxl")).recipe.entries))


def test_layouts_are_told_by_what_lies_there(written: Written, tmp_path: Path) -> None:
    convert(written("flux"), tmp_path / "preset")
    single = convert(written("flux"), tmp_path / "single", "single-file")
    kinds = {written("flux"): "diffusers", tmp_path / "preset": "pictura", single: "files"}
    for place, kind in kinds.items():
        assert open_layout(place).kind == kind
    bare = Path(shutil.copytree(written("flux"), tmp_path / "bare"))
    (bare / "model_index.json").unlink()  # components alone will do
    assert (
        checkpoints.find(bare).recipe.entries.keys()
        == checkpoints.find(written("flux")).recipe.entries.keys()
    )
