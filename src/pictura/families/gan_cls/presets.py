"""Models of this family that come with the package."""

from __future__ import annotations

from pictura.families import Preset

PRESETS: dict[str, Preset] = {
    "gan-cls": Preset(
        name="gan-cls",
        family="gan_cls",
        folder="weights",
        description="64 px emoji scenes in one step, 3.0 M parameters, trained by recipes/gan_cls.toml",
        licence="Apache-2.0; drawings learnt from Noto Color Emoji (OFL-1.1)",
    ),
}
