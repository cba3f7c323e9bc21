"""Write docs/models.md from what tests and benchmarks measured: python scripts/make_models_page.py [--check]

Parity comes from benchmarks/results/parity.json, which the tests write:

    F=benchmarks/results/parity.json
    pytest tests/families/test_forms.py tests/families/test_keras_sd3.py --figures $F

Speed and memory come from the section "models" of every other result in that folder: by version of a model
{"speed": ratio, "memory": ratio, "load": ratio, "load_memory": ratio}, each against diffusers in the same
run. No figure on the page is typed. With --check nothing is written; the exit status is 1 if the page is
not current.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results", ROOT / "docs" / "models.md"
MODELS = {
    "1.x": ("Stable Diffusion 1.x", "families/stable-diffusion.md"),
    "2.x": ("Stable Diffusion 2.x", "families/stable-diffusion.md"),
    "xl": ("Stable Diffusion XL", "families/stable-diffusion.md"),
    "3": ("Stable Diffusion 3", "families/stable-diffusion-3.md"),
    "3.5": ("Stable Diffusion 3.5", "families/stable-diffusion-3.md"),
    "flux-dev": ("FLUX.1 dev", "families/flux.md"),
    "flux-schnell": ("FLUX.1 schnell", "families/flux.md"),
}
HEAD = """# Models

<!-- Written by scripts/make_models_page.py from what tests and benchmarks measured; do not edit. -->

`pictura models list` names what is built in and what was downloaded, `pictura models show MODEL` says what is
known of any other. Which files are read, and what to do with them, is on [formats.md](formats.md).

Parity: the largest difference between our picture and that of diffusers (KerasHub's loop for its presets),
relative to the largest value, over all tests of that row: random weights, small sizes, float32, the same
seed, 8 steps (4 for KerasHub), guidance and a negative prompt. Speed (more is faster) and memory: against
diffusers in the same run, where a benchmark has measured them; the machine is in
[performance.md](performance.md).

| model | form | parity | test | speed | memory | loading | memory of loading |
|---|---|---|---|---|---|---|---|
"""


def page() -> str:
    parity = json.loads((RESULTS / "parity.json").read_text())
    measured = benchmarks()
    lines = []
    for version, (title, about) in MODELS.items():
        speed = measured.get(version, {})
        for form, found in sorted(parity.get(version, {}).items()):
            test = str(found["test"])
            name = f"[`{test.rpartition('::')[2]}`](../{test.partition('::')[0]})"
            cells = [f"[{title}]({about})", form, f"{found['difference']:.1e}", name]
            cells += [ratio(speed, what) for what in ("speed", "memory", "load", "load_memory")]
            lines.append("| " + " | ".join(cells) + " |")
    return HEAD + "\n".join(lines) + "\n"


def benchmarks() -> dict[str, dict[str, Any]]:
    """Ratios by version of a model, from every result that has some."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(RESULTS.glob("*.json")):
        models = json.loads(path.read_text()).get("results", {})
        models = models.get("models", {}) if isinstance(models, dict) else {}
        for version in models.keys() & MODELS.keys() if isinstance(models, dict) else ():
            found.setdefault(version, {}).update(models[version])
    return found


def ratio(facts: dict[str, Any], name: str) -> str:
    return f"{facts[name]:.2f} x" if name in facts else "not measured"


if __name__ == "__main__":
    written = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(written)
    elif not PAGE.exists() or PAGE.read_text() != written:
        sys.exit(f"{PAGE} is not current: run python scripts/make_models_page.py")
