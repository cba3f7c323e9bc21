"""What a request may ask of every latent diffusion model beyond the common parameters."""

from __future__ import annotations

from pictura.families import Option
from pictura.text.prompts import SYNTAXES

BLOCK_CACHE = Option(
    name="block_cache", type=float, default=0.0,
    help="leave out most blocks of steps whose first block is off by less than this, such as 0.1",
)  # fmt: skip
DEEP_CACHE = Option(
    name="deep_cache", type=int, default=1,
    help="compute the whole network in one step of so many only, such as 3, in between its outermost layers",
)  # fmt: skip
OPTIONS = (
    Option(
        name="eta", type=float, default=None, help="share of fresh noise a step, for samplers that have it"
    ),
    Option(name="guidance_rescale", type=float, default=0.0, help="0 plain to 1: keep the unguided contrast"),
    Option(name="guidance_low", type=float, default=0.0, help="no guidance at or below this noise / signal"),
    Option(name="guidance_high", type=float, default=None, help="no guidance above this noise / signal"),
    Option(
        name="prompt_syntax", type=str, default="a1111", choices=SYNTAXES,
        help="a1111: (word:1.2), [word], BREAK and chunks of 75 tokens; plain: nothing is special",
    ),
    Option(
        name="embeddings", type=list, default=None, attach="file",
        help="textual inversion: a list of {path}, whose words prompts may have then",
    ),
    Option(
        name="lora", type=list, default=None, attach="file",
        help="LoRAs: a list of {path, weight}, applied together; weight is 1 where it is not given",
    ),
    Option(name="aspect", type=str, default=None, help="shape of the picture, such as 3:2, in the best size"),
    Option(name="image", type=dict, default=None, help="picture to start from", attach="picture"),
    Option(name="strength", type=float, default=None, help="how much of it is made anew, above 0 up to 1"),
    Option(name="mask", type=dict, default=None, help="white where it is made anew", attach="picture"),
    Option(name="outpaint", type=str, default=None, help="pixels to add, such as left:64,top:32"),
    Option(
        name="hires", type=float, default=None, help="first make it so many times smaller, then refine it"
    ),
    Option(name="hires_strength", type=float, default=0.5, help="how much the second pass makes anew"),
    Option(name="upscale", type=float, default=None, help="enlarge `image` so many times, tile by tile"),
    Option(name="tile", type=bool, default=False, help="ask the network about overlapping tiles of its size"),
    Option(name="regions", type=list, default=None, help="prompts of their own for boxes of the picture"),
    Option(name="base_weight", type=float, default=0.3, help="how much the prompt counts inside regions"),
)  # fmt: skip
