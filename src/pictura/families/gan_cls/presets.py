"""Models of this family that come with the package."""

from __future__ import annotations

from pictura.families import Preset

PRESETS: dict[str, Preset] = {
    "gan-cls": Preset(
        name="gan-cls",
        family="gan_cls",
        folder="weights",
        description="64 px emoji scenes in one step, 3.0 M parameters, trained by recipes/gan_cls.toml",
        score={
            "single object": 0.993,
            "relation": 0.98,
            "held-out relation": 0.993,
            "count": 0.987,
            "background": 1.0,
        },
        licence="Apache-2.0; drawings learnt from Noto Color Emoji (OFL-1.1)",
    ),
}
