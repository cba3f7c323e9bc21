"""Where the official weights live; nothing is downloaded before someone names one."""

from __future__ import annotations

from pictura.families import Preset

_LICENCE = "Stability AI Community License; accept it on the model's page and log in"
PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            name="stable-diffusion-3-medium",
            family="stable_diffusion_3",
            uri="hf://stabilityai/stable-diffusion-3-medium-diffusers",
            description="1024 px, 2.0 billion parameters in the transformer",
            licence=_LICENCE,
        ),
        Preset(
            name="stable-diffusion-3.5-medium",
            family="stable_diffusion_3",
            uri="hf://stabilityai/stable-diffusion-3.5-medium",
            description="up to 1440 px, 2.2 billion parameters in the transformer",
            licence=_LICENCE,
        ),
        Preset(
            name="stable-diffusion-3.5-large",
            family="stable_diffusion_3",
            uri="hf://stabilityai/stable-diffusion-3.5-large",
            description="1024 px, 8.1 billion parameters in the transformer",
            licence=_LICENCE,
        ),
    )
}
