"""Where the official weights live; nothing is downloaded before someone names one."""

from __future__ import annotations

from pictura.families import Preset

PRESETS = {
    "flux-dev": Preset(
        name="flux-dev",
        family="flux",
        uri="hf://black-forest-labs/FLUX.1-dev",
        description="1024 px, 11.9 billion parameters in the transformer, guidance distilled",
        licence="FLUX.1 [dev] Non-Commercial License; accept it on the model's page and log in",
    ),
    "flux-schnell": Preset(
        name="flux-schnell",
        family="flux",
        uri="hf://black-forest-labs/FLUX.1-schnell",
        description="1024 px, 11.9 billion parameters in the transformer, four steps",
        licence="Apache-2.0",
    ),
}
