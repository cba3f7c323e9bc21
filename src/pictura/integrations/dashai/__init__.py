"""Pictura in DashAI: models that its users pick, and its text-to-image task with a store behind it.

    PicturaScenes, PicturaGanCls      the built-in models, "Pictura: scenes" and "Pictura: gan-cls"
    PicturaModel                      "Pictura: any model", whose name is typed into the form
    offer                             a class for one more model, for a package of one's own
    TextToImageGenerationTask         the task, which also keeps parameters and seeds
    run, processes                    the same without DashAI, over `pictura.history`

DashAI finds the models by the entry points `dashai.plugins`. Importing this package imports neither DashAI
nor torch; without DashAI the classes stand on the same interface, see `base`.
"""

from __future__ import annotations

from pictura.lazy import lazy

_HOMES = {
    "PicturaGanCls": ".models",
    "PicturaModel": ".models",
    "PicturaScenes": ".models",
    "Process": ".alone",
    "TextToImageGenerationTask": ".task",
    "offer": ".models",
    "processes": ".alone",
    "run": ".alone",
}
__all__ = sorted(_HOMES)  # noqa: PLE0605
__getattr__, __dir__ = lazy(__name__, _HOMES)
