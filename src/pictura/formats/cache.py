"""Models that were downloaded: what lies in the caches of the hub and of Kaggle, and how to be rid of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pictura.errors import PresetError, did_you_mean
from pictura.formats import hub, kaggle

__all__ = ["Cached", "cached", "remove"]


@dataclass(frozen=True, kw_only=True)
class Cached:
    """A model in a cache. handle: its name without a revision or version. size: in bytes, all revisions."""

    handle: str
    size: int
    folder: Path


def cached() -> list[Cached]:
    """Every model that was downloaded, by Pictura or by another program that shares the hub's cache."""
    return sorted([*_of_hub(), *_of_kaggle()], key=lambda one: one.handle)


def remove(handle: str) -> Cached:
    """Delete every revision of a downloaded model, and nothing else; PresetError where there is none such."""
    known = {one.handle: one for one in cached()}
    name = _plain(handle)
    if name not in known:
        raise PresetError(f"{handle} was not downloaded; {did_you_mean(name, known)}")
    found = known[name]
    shutil.rmtree(found.folder)
    return found


def _plain(handle: str) -> str:
    """The handle without a file, a revision or a version."""
    if handle.startswith("kaggle://"):
        return "kaggle://" + "/".join(kaggle.parse(handle)[:4])
    return f"hf://{hub.parse(handle).repository}"


def _of_hub() -> Iterator[Cached]:
    import huggingface_hub
    from huggingface_hub import errors

    try:
        scanned = huggingface_hub.scan_cache_dir(os.environ.get("HF_HUB_CACHE"))
    except (errors.CacheNotFound, ValueError):
        return
    for repository in scanned.repos:
        if repository.repo_type == "model":
            yield Cached(
                handle=f"hf://{repository.repo_id}",
                size=repository.size_on_disk,
                folder=Path(repository.repo_path),
            )


def _of_kaggle() -> Iterator[Cached]:
    root = kaggle.cache()
    for folder in root.glob("*/*/*/*"):
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        yield Cached(handle=f"kaggle://{folder.relative_to(root).as_posix()}", size=size, folder=folder)
