"""The built-in preset."""

from __future__ import annotations

from pictura.families import Preset

PRESETS = {
    "scenes": Preset(
        name="scenes",
        family="scenes",
        folder="weights",
        description="emoji scenes, 128 px: objects, counts, places and backgrounds, trained by us",
        licence="Apache-2.0",
    ),
}
