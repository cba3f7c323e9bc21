"""Models on the Hugging Face hub: `hf://org/name[/file.safetensors][@revision]`, through the hub's own client
and its cache."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from pictura.errors import PicturaError, PresetError, ProviderError, shown
from pictura.formats.layout import COMPONENTS, CONFIG, INDEX, STEMS, TOKENIZERS, open_layout
from pictura.formats.safetensors import names as spellings

__all__ = ["Handle", "Snapshot", "fetch", "parse", "wanted"]

# What describes weights. Never pickles, never code.
_DESCRIBES = (".json", ".md", ".txt", ".model")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HANDLE = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:/([\w./-]+\.safetensors))?(?:@([\w./-]+))?", re.ASCII)


class Handle(NamedTuple):
    """What a handle names: `file` is None for the whole model, `revision` for the branch main."""

    repository: str
    file: str | None
    revision: str | None


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A repository as it was at `commit`, or one file of it. Links in it stay within `root`, its part of the
    cache."""

    repository: str
    commit: str
    path: Path
    root: Path
    file: str | None = None

    @property
    def handle(self) -> str:
        """Where exactly it comes from; fetching this gives the same bytes for ever."""
        file = f"/{self.file}" if self.file else ""
        return f"hf://{self.repository}{file}@{self.commit}"


def parse(handle: str) -> Handle:
    """The parts of `hf://org/name[/file.safetensors][@revision]`; PresetError for anything else."""
    match = _HANDLE.fullmatch(handle)
    if match is None or ".." in handle:
        raise PresetError(
            f"preset {shown(handle)} is no hub handle; write hf://org/name or hf://org/name@revision"
        )
    return Handle(match[1], match[2], match[3])


def fetch(handle: str, *, variant: str | None = None) -> Snapshot:
    """Download what is not in the cache yet: of a model in several spellings only the one that is asked for.

    A branch or tag is resolved to its commit first; where the hub cannot be reached, the commit that the
    cache last saw under that name is used. With HF_HUB_OFFLINE=1 nothing is asked of the network.
    PresetError where the hub has no such model, ProviderError where it does not answer.
    """
    from huggingface_hub import constants

    asked = parse(handle)
    offline = bool(constants.HF_HUB_OFFLINE)
    cached = _cached(asked, variant) if asked.revision and _COMMIT.fullmatch(asked.revision) else None
    try:
        folder = cached or (_local(asked) if offline else _download(asked, variant))
    except PicturaError:
        raise
    except Exception as error:
        _explain(error, handle, offline)
    if not _COMMIT.fullmatch(folder.name):
        raise ProviderError(f"the hub named no commit for {handle}; try again later")
    path = folder / asked.file if asked.file else folder
    if not path.exists():
        raise PresetError(f"{handle} is not in the cache and the hub is offline; unset HF_HUB_OFFLINE once")
    return Snapshot(
        repository=asked.repository, commit=folder.name, path=path, root=folder.parents[1], file=asked.file
    )


def wanted(files: Sequence[str], variant: str | None = None) -> list[str]:
    """Which of a repository's files a model needs; PresetError where it holds none, or too many to guess."""
    top = [name for name in files if "/" not in name]
    words = [name for name in top if name.endswith(_DESCRIBES)]
    if INDEX in top:
        kept = [name for name in files if _describes_part(name)]
        found = [_spelled(files, component, variant) for component in COMPONENTS]
        if variant is not None and not any(f".{variant}." in name for names in found for name in names):
            raise PresetError(f"the model has no variant {shown(variant)}; leave it out or choose another")
        return sorted({*words, *kept, *(name for names in found for name in names)})
    if CONFIG in top:
        assets = [name for name in files if name.startswith("assets/") and name.endswith(_DESCRIBES)]
        return sorted({*words, *assets, *(name for name in top if name.endswith((".safetensors", ".h5")))})
    single = [name for name in top if name.endswith(".safetensors")]
    if len(single) == 1:
        return sorted({*words, *single})
    if single:
        raise PresetError(f"it holds several models; name one after it: {', '.join(single[:8])}")
    raise PresetError(f"it holds no {INDEX}, no {CONFIG} and no .safetensors file; choose another model")


def _spelled(files: Sequence[str], component: str, variant: str | None) -> list[str]:
    """The weights of one component: of the variant, or where it has none of the usual ones, or of any."""
    stem = f"{component}/{STEMS[component]}"
    found = {name[len(stem) + 1 :].partition(".safetensors")[0].partition("-")[0] for name in files
             if name.startswith(f"{stem}.") and name.endswith(".safetensors")}  # fmt: skip
    for kind in (variant, None, *sorted(found)):
        single, index = spellings(stem, kind)
        if single in files:
            return [single]
        if index in files:
            shard = re.compile(re.escape(stem) + _shards(kind))
            return [index, *(name for name in files if shard.fullmatch(name))]
    return []


def _shards(variant: str | None) -> str:
    """How shards are called after their stem; older ones have the variant behind their number."""
    number, kind = r"-\d{5}-of-\d{5}", rf"\.{re.escape(variant)}" if variant else ""
    return rf"(?:{kind}{number}|{number}{kind})\.safetensors"


def _describes_part(name: str) -> bool:
    folder, _, file = name.partition("/")
    known = folder in (*COMPONENTS, *TOKENIZERS, "scheduler") and "/" not in file
    return known and file.endswith(_DESCRIBES) and ".safetensors.index." not in file


def _download(asked: Handle, variant: str | None) -> Path:
    import huggingface_hub

    api = huggingface_hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name="pictura")
    try:
        info = api.model_info(asked.repository, revision=asked.revision)
    except Exception as error:
        if not _unreachable(error):
            raise
        try:
            return _local(asked)
        except Exception:
            raise error from None
    files = [entry.rfilename for entry in info.siblings or ()]
    if asked.file is not None and asked.file not in files:
        raise PresetError(
            f"the hub's {asked.repository!r} has no file {asked.file!r}; look at its list of files"
        )
    try:
        chosen = [asked.file] if asked.file else wanted(files, variant)
    except PresetError as error:
        raise PresetError(f"hf://{asked.repository} cannot be used: {error}") from None
    return _snapshot(asked, allow_patterns=[_literal(name) for name in chosen])


def _unreachable(error: Exception) -> bool:
    from huggingface_hub import errors

    return not isinstance(error, (errors.HfHubHTTPError, errors.HFValidationError))


def _local(asked: Handle) -> Path:
    """The snapshot in the cache, which need not have every file of the repository, since few are needed."""
    from huggingface_hub import constants, errors

    cache = Path(os.environ.get("HF_HUB_CACHE") or constants.HF_HUB_CACHE)
    store = cache / f"models--{asked.repository.replace('/', '--')}"
    revision = asked.revision or "main"
    try:
        commit = revision if _COMMIT.fullmatch(revision) else (store / "refs" / revision).read_text().strip()
    except OSError:
        commit = ""
    folder = store / "snapshots" / commit
    if not _COMMIT.fullmatch(commit) or not folder.is_dir():
        raise errors.LocalEntryNotFoundError(f"{asked.repository} is not in the cache")
    return folder


def _cached(asked: Handle, variant: str | None) -> Path | None:
    """The snapshot of a commit if all that is needed of it is in the cache: nobody has to be asked then."""
    try:
        folder = _local(asked)
        if asked.file is None and not open_layout(folder, root=folder.parents[1]).whole(variant):
            return None
    except Exception:  # not there, or not whole
        return None
    return folder if asked.file is None or (folder / asked.file).exists() else None


def _snapshot(asked: Handle, **more: Any) -> Path:
    import huggingface_hub

    return Path(
        huggingface_hub.snapshot_download(
            asked.repository,
            revision=asked.revision,
            endpoint=os.environ.get("HF_ENDPOINT"),
            cache_dir=os.environ.get("HF_HUB_CACHE"),
            library_name="pictura",
            **more,
        )
    )


def _literal(name: str) -> str:
    """`name` as a pattern that means nothing else."""
    return re.sub(r"([\[*?])", r"[\1]", name)


def _explain(error: Exception, handle: str, offline: bool) -> NoReturn:
    """Raise what `error` means for the user, in one sentence."""
    from huggingface_hub import errors

    repository, _, revision = parse(handle)
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
