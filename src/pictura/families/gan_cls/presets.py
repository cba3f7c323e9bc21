"""Models of this family that come with the package."""

from __future__ import annotations

from pictura.families import Preset

PRESETS: dict[str, Preset] = {
    "gan-cls": Preset(
        name="gan-cls",
        family="gan_cls",
        folder="weights",
        description="64 px emoji scenes in one step, 3.0 M parameters, trained by recipes/gan_cls.toml",
        sha256="26f6b4f9f54286148ad3db8c44605cfe9d05092142d67dc65e54f2a3ccc99cae",
        score={
            "single object": 0.98,
            "relation": 0.953,
            "held-out relation": 0.973,
            "count": 0.973,
            "background": 1.0,
        },
        licence="Apache-2.0; drawings learnt from Noto Color Emoji (OFL-1.1)",
    ),
}
