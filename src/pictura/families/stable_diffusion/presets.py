"""Where the official weights live; nothing is downloaded before someone names one."""

from __future__ import annotations

from pictura.families import Preset

PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            name="stable-diffusion-1.5",
            family="stable_diffusion",
            uri="hf://stable-diffusion-v1-5/stable-diffusion-v1-5",
            description="512 px, CLIP-L, 0.86 billion parameters in the U-Net",
            licence="CreativeML Open RAIL-M",
        ),
        Preset(
            name="stable-diffusion-2.1",
            family="stable_diffusion",
            uri="hf://stabilityai/stable-diffusion-2-1",
            description="768 px, OpenCLIP-H, 0.87 billion parameters in the U-Net, predicts velocities",
            licence="CreativeML Open RAIL++-M",
        ),
        Preset(
            name="stable-diffusion-xl",
            family="stable_diffusion",
            uri="hf://stabilityai/stable-diffusion-xl-base-1.0",
            description="1024 px, CLIP-L and OpenCLIP-bigG, 2.6 billion parameters in the U-Net",
            licence="CreativeML Open RAIL++-M",
        ),
    )
}
