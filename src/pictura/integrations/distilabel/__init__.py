"""Pictura in distilabel pipelines; importing this package imports neither distilabel nor torch.

    PicturaImageGeneration, AsyncPicturaImageGeneration      any model of Pictura, local or remote
    OpenAIImageGeneration, InferenceEndpointsImageGeneration  distilabel's gallery, with its faults mended
    ImageGeneration                                          the task, which can be saved, loaded and resumed
    to_pictures                                              their pictures as a column of `datasets.Image`

The models need no distilabel: without it they stand on the same interface, see `base`. The task does.
"""

from __future__ import annotations

from pictura.lazy import lazy

_HOMES = {
    "AsyncPicturaImageGeneration": ".models",
    "PicturaImageGeneration": ".models",
    "InferenceEndpointsImageGeneration": ".gallery",
    "OpenAIImageGeneration": ".gallery",
    "ImageGeneration": ".task",
    "to_pictures": ".pictures",
}
__all__ = sorted(_HOMES)  # noqa: PLE0605
__getattr__, __dir__ = lazy(__name__, _HOMES)
