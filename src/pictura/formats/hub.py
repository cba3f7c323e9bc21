"""Models on the Hugging Face hub: `hf://org/name[@revision]`, through the hub's own client and its cache."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from pictura.errors import PicturaError, PresetError, ProviderError, shown

__all__ = ["Snapshot", "fetch", "parse"]

# Weights and what describes them. Never pickles, never code.
_WANTED = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.md", "*.txt", "*.model"]
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HANDLE = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A repository as it was at `commit`. Links in `folder` stay within `root`, its part of the cache."""

    repository: str
    commit: str
    folder: Path
    root: Path

    @property
    def handle(self) -> str:
        """Where exactly it comes from; fetching this gives the same bytes for ever."""
        return f"hf://{self.repository}@{self.commit}"


def parse(handle: str) -> tuple[str, str | None]:
    """(repository, revision or None) of `hf://org/name[@revision]`; PresetError for anything else."""
    match = _HANDLE.fullmatch(handle)
    if match is None or ".." in handle:
        raise PresetError(
            f"preset {shown(handle)} is no hub handle; write hf://org/name or hf://org/name@revision"
        )
    return match[1], match[2]


def fetch(handle: str) -> Snapshot:
    """Download what is not in the cache yet.

    A branch or tag is resolved to its commit first; where the hub cannot be reached, the commit that the
    cache last saw under that name is used. With HF_HUB_OFFLINE=1 nothing is asked of the network.
    PresetError where the hub has no such model, ProviderError where it does not answer.
    """
    import huggingface_hub
    from huggingface_hub import constants

    repository, revision = parse(handle)
    offline = bool(constants.HF_HUB_OFFLINE)
    try:
        folder = huggingface_hub.snapshot_download(
            repository,
            revision=revision,
            allow_patterns=_WANTED,
            endpoint=os.environ.get("HF_ENDPOINT"),
            cache_dir=os.environ.get("HF_HUB_CACHE"),
            local_files_only=offline,
            library_name="pictura",
        )
    except Exception as error:
        _explain(error, handle, offline)
    path = Path(folder)
    if not _COMMIT.fullmatch(path.name):
        raise ProviderError(f"the hub named no commit for {handle}; try again later")
    return Snapshot(repository=repository, commit=path.name, folder=path, root=path.parents[1])


def _explain(error: Exception, handle: str, offline: bool) -> NoReturn:
    """Raise what `error` means for the user, in one sentence."""
    from huggingface_hub import errors

    repository, revision = parse(handle)
    explained: PicturaError
    if isinstance(error, errors.GatedRepoError):
        explained = PresetError(f"{handle} wants you to accept its terms; do so on its page and set HF_TOKEN")
    elif isinstance(error, errors.RepositoryNotFoundError):
        explained = PresetError(
            f"the hub has no model {repository!r}, or it is private; check it, or set HF_TOKEN"
        )
    elif isinstance(error, errors.RevisionNotFoundError):
        explained = PresetError(
            f"model {repository!r} has no revision {revision!r}; name a branch, tag or commit"
        )
    elif isinstance(error, errors.HFValidationError):
        explained = PresetError(f"{shown(handle)} is no name a hub model can have; write hf://org/name")
    elif isinstance(error, errors.LocalEntryNotFoundError) and offline:
        explained = PresetError(
            f"{handle} is not in the cache and the hub is offline; unset HF_HUB_OFFLINE once"
        )
    else:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        explained = ProviderError(f"{handle} could not be fetched ({reason}); try again later")
    raise explained from error
