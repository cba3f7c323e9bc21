"""The built-in preset."""

from __future__ import annotations

from pictura.families import Preset

PRESETS = {
    "scenes": Preset(
        name="scenes",
        family="scenes",
        folder="weights",
        description="emoji scenes, 128 px: objects, counts, places and backgrounds, trained by us",
        sha256="2b35183db77362b32547fc7cd6aa5f96e25f1cf24f61de4ff15268b64c449cda",
        score={
            "single object": 0.985,
            "relation": 0.99,
            "held-out relation": 1.0,
            "count": 1.0,
            "background": 1.0,
        },
        licence="Apache-2.0; drawings learnt from Noto Color Emoji (OFL-1.1)",
    ),
}
