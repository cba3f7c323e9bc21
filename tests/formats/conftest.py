"""Tiny pipelines, written once by diffusers itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

import small_pipelines


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder that diffusers wrote of a pipeline, by the pipeline's name; not to be changed."""

    @cache
    def write(name: str) -> Path:
        folder = tmp_path_factory.mktemp("pipelines") / name
        pipeline = small_pipelines.PIPELINES[name](folder.with_name("tokenizers"))
        pipeline.save_pretrained(folder)
        return folder

    return write
