"""Random small pipelines of diffusers and the same models as our families: what is compared with what."""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path

import diffusers
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from oracle import fill, near
from pictura import families
from pictura.request import Request
from pictura.text.tokenizer_files import from_files
from small_pipelines import merges_of

WORDS = ["a", "cat", "dog", "red", "blue", "sky", "tree", "on", "two", "of"]
SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
KINDS = ("sd1", "sd2", "sdxl", "sd3", "flux-dev", "flux-schnell")
FAMILY = {"sd1": "stable_diffusion", "sd2": "stable_diffusion", "sdxl": "stable_diffusion"}
FAMILY |= {"sd3": "stable_diffusion_3", "flux-dev": "flux", "flux-schnell": "flux"}


def redrawn(module, rng):
    """`module` with every parameter drawn anew: those that libraries set to zero would hide mistakes."""
    fill(module, rng.randrange(1 << 30), 0.07)
    return module.eval()


def clip_files(pad="<|endoftext|>"):
    """A CLIP tokenizer that knows letters and a few words."""
    settings = {"pad_token": pad, "model_max_length": 77}
    return {**merges_of(WORDS), "tokenizer_config.json": json.dumps(settings).encode()}


def clip_tokenizer(files):
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            (Path(folder) / name).write_bytes(data)
        pad = json.loads(files["tokenizer_config.json"])["pad_token"]
        return transformers.CLIPTokenizer.from_pretrained(folder, pad_token=pad, model_max_length=77)


def t5_tokenizer():
    letters = [chr(code) for code in range(97, 123)]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(f"▁{word}", -1.0) for word in WORDS] + [(letter, -4.0) for letter in letters]
    core = Tokenizer(models.Unigram(pieces, unk_id=2))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return transformers.T5TokenizerFast(
        tokenizer_object=core, extra_ids=0, eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


def clip(rng, projected, **config):
    values = {
        "vocab_size": 90,
        "num_hidden_layers": rng.choice([3, 4]),
        "num_attention_heads": 2,
        "intermediate_size": rng.choice([24, 40]),
        "max_position_embeddings": 77,
        "hidden_size": rng.choice([16, 32]),
        "projection_dim": rng.choice([16, 24]),
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
        **config,
    }
    kind = transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
    return redrawn(kind(transformers.CLIPTextConfig(**values)), rng)


def t5(rng):
    config = transformers.T5Config(
        vocab_size=60,
        d_model=rng.choice([16, 24]),
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    return redrawn(transformers.T5EncoderModel(config), rng)


def vae(rng, channels, **config):
    widths = rng.choice([(16, 32), (32, 32)])
    return redrawn(
        diffusers.AutoencoderKL(
            block_out_channels=widths,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            layers_per_block=1,
            latent_channels=channels,
            norm_num_groups=8,
            sample_size=32,
            **config,
        ),
        rng,
    )


def unet(rng, context, **config):
    deep = rng.choice([True, False])
    widths, heads = ((32, 64, 64), (2, 4, 4)) if deep else ((32, 64), (2, 4))
    down = ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D")[-len(widths) :]
    up = ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D")[: len(widths)]
    return redrawn(
        diffusers.UNet2DConditionModel(
            **{
                "sample_size": 16,
                "block_out_channels": widths,
                "down_block_types": down,
                "up_block_types": up,
                "layers_per_block": rng.choice([1, 2]),
                "cross_attention_dim": context,
                "norm_num_groups": 8,
                "attention_head_dim": rng.choice([4, heads]),
                **config,
            }
        ),
        rng,
    )


def scheduler(rng, v=False):
    kind = rng.choice(["PNDMScheduler", "DDIMScheduler", "EulerDiscreteScheduler"])
    more = {"skip_prk_steps": True} if kind == "PNDMScheduler" else {}
    more |= {"clip_sample": False} if kind == "DDIMScheduler" else {}
    prediction = "v_prediction" if v else "epsilon"
    made = getattr(diffusers, kind)(**SD, prediction_type=prediction, timestep_spacing="leading", **more)
    if v:
        made.register_to_config(skip_prk_steps=True)
    return made


def sd1(rng, v=False, channels=4):
    encoder = clip(rng, False)
    return diffusers.StableDiffusionPipeline(
        vae=vae(rng, 4),
        text_encoder=encoder,
        tokenizer=clip_tokenizer(clip_files("!" if v else "<|endoftext|>")),
        unet=unet(rng, encoder.config.hidden_size, use_linear_projection=v, in_channels=channels),
        scheduler=scheduler(rng, v),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl(rng, channels=4):
    first, second = clip(rng, False), clip(rng, True)
    pooled = second.config.projection_dim
    body = unet(
        rng,
        first.config.hidden_size + second.config.hidden_size,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        in_channels=channels,
        projection_class_embeddings_input_dim=pooled + 6 * 8,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        attention_head_dim=(2, 4),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
    )
    return diffusers.StableDiffusionXLPipeline(
        vae=vae(rng, 4, scaling_factor=0.13025),
        text_encoder=first,
        text_encoder_2=second,
        unet=body,
        tokenizer=clip_tokenizer(clip_files()),
        tokenizer_2=clip_tokenizer(clip_files("!")),
        scheduler=diffusers.EulerDiscreteScheduler(**SD, timestep_spacing="leading"),
        force_zeros_for_empty_prompt=rng.choice([True, False]),
        add_watermarker=False,
    )


def sd3(rng, with_t5=None):
    first, second = clip(rng, True), clip(rng, True)
    third = t5(rng) if (rng.random() < 0.6 if with_t5 is None else with_t5) else None
    context = third.config.d_model if third is not None else 40
    context = max(context, first.config.hidden_size + second.config.hidden_size)
    if third is not None and third.config.d_model != context:
        config = third.config.to_dict() | {"d_model": context}
        third = redrawn(transformers.T5EncoderModel(transformers.T5Config(**config)), rng)
    layers, heads = rng.choice([2, 3]), rng.choice([2, 3])
    body = diffusers.SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=16,
        num_layers=layers,
        attention_head_dim=8,
        num_attention_heads=heads,
        joint_attention_dim=context,
        caption_projection_dim=8 * heads,
        pooled_projection_dim=first.config.projection_dim + second.config.projection_dim,
        out_channels=16,
        pos_embed_max_size=rng.choice([16, 24]),
        qk_norm=rng.choice([None, "rms_norm"]),
        dual_attention_layers=rng.choice([(), (0,)]),
    )
    return diffusers.StableDiffusion3Pipeline(
        transformer=redrawn(body, rng),
        text_encoder=first,
        text_encoder_2=second,
        text_encoder_3=third,
        vae=vae(
            rng,
            16,
            scaling_factor=1.5305,
            shift_factor=0.0609,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        tokenizer=clip_tokenizer(clip_files()),
        tokenizer_2=clip_tokenizer(clip_files("!")),
        tokenizer_3=None if third is None else t5_tokenizer(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=rng.choice([1.0, 3.0])),
    )


def flux(rng, dev=True):
    first, second = clip(rng, False), t5(rng)
    axes = rng.choice([(4, 6, 6), (4, 4, 8)])
    body = diffusers.FluxTransformer2DModel(
        in_channels=16,
        num_layers=rng.choice([1, 2]),
        num_single_layers=rng.choice([1, 2]),
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=second.config.d_model,
        axes_dims_rope=axes,
        pooled_projection_dim=first.config.hidden_size,
        guidance_embeds=dev,
    )
    return diffusers.FluxPipeline(
        transformer=redrawn(body, rng),
        text_encoder=first,
        text_encoder_2=second,
        vae=vae(rng, 4, scaling_factor=0.3611, shift_factor=0.1159),
        tokenizer=clip_tokenizer(clip_files()),
        tokenizer_2=t5_tokenizer(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=dev,
            shift=3.0 if dev else 1.0,
            base_image_seq_len=256,
            max_image_seq_len=4096,
        ),
    )


def pipeline(kind, seed=0):
    """A random pipeline of a kind; the same for the same seed."""
    rng = random.Random(f"{kind}/{seed}")
    makers = {"sd1": sd1, "sd2": lambda r: sd1(r, True), "sdxl": sdxl, "sd3": sd3}
    makers |= {"flux-dev": flux, "flux-schnell": lambda r: flux(r, False)}
    pipe = makers[kind](rng)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def configs_of(pipe):
    """What the folder that `pipe` would be saved to says, by component."""
    found = {}
    for name, part in pipe.components.items():
        if name.startswith("tokenizer") or part is None or not hasattr(part, "config"):
            continue
        config = part.config.to_dict() if hasattr(part.config, "to_dict") else dict(part.config)
        found[name] = json.loads(json.dumps(config, default=str))
        found[name]["_class_name"] = type(part).__name__
        found[name].pop("_use_default_values", None)
    if hasattr(pipe.config, "force_zeros_for_empty_prompt"):
        found["force_zeros_for_empty_prompt"] = pipe.config.force_zeros_for_empty_prompt
    return found


def family_of(pipe, kind):
    """The same model, same weights, as ours."""
    config = configs_of(pipe)
    ours = families.load(FAMILY[kind]).from_config({**config, "size": 32})
    for name, module in ours.networks().items():
        state = getattr(pipe, name).state_dict()
        if name.startswith("text_encoder") and any(key.startswith("embeddings.") for key in state):
            state = {f"text_model.{key}": value for key, value in state.items()}
        kept = {key: value for key, value in state.items() if not key.endswith("position_ids")}
        if "encoder.embed_tokens.weight" in kept:
            kept.pop("encoder.embed_tokens.weight")
        module.load_state_dict(kept, strict=True)
        module.eval()
    for name, part in pipe.components.items():
        if name.startswith("tokenizer") and part is not None:
            if isinstance(part, transformers.CLIPTokenizer):
                ours.assets[name] = from_files(clip_files(part.pad_token))
            else:
                rules = part.backend_tokenizer.to_str().encode()
                ours.assets[name] = from_files({"tokenizer.json": rules, "tokenizer_config.json": b"{}"})
    return ours


def close(ours, theirs, tolerance=1e-4):
    """The same picture, and one that shows something."""
    assert torch.isfinite(theirs).all() and theirs.std() > 0.02
    near(ours, theirs, tolerance)


def request_for(ours, prompt="a red cat on a tree", **values):
    request = Request(prompt=prompt, **values)
    return ours.resolve(request).completed(ours.defaults())
