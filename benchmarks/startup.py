"""Cold starts: `pictura --help`, and from process start to a PNG against a tiny diffusers pipeline.

Every run is a fresh process. The pipeline that reads text is a StableDiffusionPipeline with random weights
and hardly any parameters, so what it measures is what importing and loading diffusers costs; it makes one
128 px picture with guidance in as many steps as ours. The other, a DDIMPipeline, reads no text and makes 32
px: nothing in diffusers is smaller.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from _common import arguments, fresh, in_turn, machine, spread, write

OURS = "import sys; from pictura.cli import main; sys.exit(main(sys.argv[1:]))"
THEIRS = """
import sys
from diffusers import StableDiffusionPipeline
pipeline = StableDiffusionPipeline.from_pretrained(sys.argv[1])
pipeline.set_progress_bar_config(disable=True)
pipeline("a cat", num_inference_steps=int(sys.argv[2]), guidance_scale=2.0).images[0].save(sys.argv[3])
"""
NO_TEXT = """
import sys
from diffusers import DDIMPipeline
pipeline = DDIMPipeline.from_pretrained(sys.argv[1])
pipeline.set_progress_bar_config(disable=True)
pipeline(num_inference_steps=int(sys.argv[2])).images[0].save(sys.argv[3])
"""
LIGHT = OURS.replace("sys.exit(main(sys.argv[1:]))", "main(sys.argv[1:]); sys.exit('torch' in sys.modules)")


def save_unconditional(folder: Path) -> None:
    from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel

    unet = UNet2DModel(
        sample_size=32, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip
    DDIMPipeline(unet=unet, scheduler=DDIMScheduler()).save_pretrained(str(folder))


def save_pipeline(folder: Path) -> int:
    """Write the pipeline; its number of parameters."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = [*"abcdefghijklmnopqrstuvwxyz", *(f"{c}</w>" for c in "abcdefghijklmnopqrstuvwxyz")]
    words = {token: i for i, token in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\nc a\nca t</w>\n")
    words |= {"ca": len(words), "cat</w>": len(words) + 1}
    (folder / "vocab.json").write_text(json.dumps(words))
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16)
    text = CLIPTextConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=37, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=16, bos_token_id=52, eos_token_id=53, pad_token_id=53,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=16, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        cross_attention_dim=32, attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(4, 8, 8, 8), norm_num_groups=4, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    pipeline = StableDiffusionPipeline(
        vae=vae, text_encoder=CLIPTextModel(text), tokenizer=tokenizer, unet=unet,
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(str(folder / "pipeline"))
    return sum(p.numel() for network in (vae, unet, pipeline.text_encoder) for p in network.parameters())


def main() -> None:
    options, before = arguments(__doc__ or ""), machine()
    runs, steps = (1, 2) if options.quick else (5, 16)
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["PICTURA_HOME"] = str(folder / "home")  # pictures go into a history, as they do for users
        size = save_pipeline(folder)
        save_unconditional(folder / "ddim")
        fresh(LIGHT, "--help")  # fails where torch was imported
        help_runs = in_turn(
            {"help": lambda: fresh(OURS, "--help"), "python": lambda: fresh("pass")},
            runs * (1 if options.quick else 3),
        )
        ours = ("generate", "a cat", "--model", "scenes", "--steps", str(steps), "--seed", "1", "--no-show")
        png = in_turn(
            {
                "pictura": lambda: fresh(OURS, *ours, "--out", str(folder / "a.png"), "--overwrite"),
                "diffusers": lambda: fresh(
                    THEIRS, str(folder / "pipeline"), str(steps), str(folder / "b.png")
                ),
                "diffusers, no text": lambda: fresh(
                    NO_TEXT, str(folder / "ddim"), str(steps), str(folder / "c.png")
                ),
                "import torch": lambda: fresh("import torch"),
            },
            runs,
        )
    told = {name: spread(values, 3) for name, values in png.items()}
    helped = {name: spread(values, 3) for name, values in help_runs.items()}
    results = {
        "help_seconds": helped["help"],
        "bare_python_seconds": helped["python"],
        "torch_in_help": False,
        "steps": steps,
        "png_seconds": told,
        "diffusers_parameters": size,
        "png_ratio": round(told["pictura"]["median"] / told["diffusers"]["median"], 3),
        "png_ratio_no_text": round(told["pictura"]["median"] / told["diffusers, no text"]["median"], 3),
        "targets": {
            "help <= 0.3 s": helped["help"]["median"] <= 0.3,
            "png <= 4 s": told["pictura"]["median"] <= 4,
            "png <= 0.5 x diffusers": told["pictura"]["median"] <= 0.5 * told["diffusers"]["median"],
        },
    }
    write("startup", results, options, before)


if __name__ == "__main__":
    main()
