"""Models on Kaggle: `kaggle://owner/model/framework/variation[/version]`, as KerasHub publishes them.

Spoken here is the small part of Kaggle's interface that downloading needs: the list of files of a version,
then each file. What is there already is not asked for again. KAGGLE_API_TOKEN, or KAGGLE_USERNAME and
KAGGLE_KEY, are sent where they are set, for models whose licence has to be accepted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pictura.errors import PresetError, ProviderError, shown

if TYPE_CHECKING:
    import httpx2

__all__ = ["Place", "cache", "fetch", "parse"]

_HANDLE = re.compile(r"kaggle://([\w-]+)/([\w.-]+)/([\w.-]+)/([\w.-]+)(?:/(\d{1,9}))?", re.ASCII)
_WANTED = (".json", ".txt", ".h5", ".safetensors", ".md", ".model")
_PAGE = 200
_DONE = ".complete"  # lies where no file is missing
_NAME = re.compile(r"[\w.+-]+(?:/[\w.+-]+)*", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Place:
    """A version of a model in the cache; fetching `handle` gives the same bytes for ever."""

    handle: str
    folder: Path


def parse(handle: str) -> tuple[str, str, str, str, int | None]:
    """(owner, model, framework, variation, version or None); PresetError for anything else."""
    match = _HANDLE.fullmatch(handle)
    if match is None or ".." in handle:
        raise PresetError(
            f"preset {shown(handle)} is no Kaggle handle; write kaggle://owner/model/framework/variation[/version]"
        )
    owner, model, framework, variation, version = match.groups()
    return owner, model, framework, variation, None if version is None else int(version)


def fetch(handle: str) -> Place:
    """Download what is not in the cache yet, without a version the newest.

    With HF_HUB_OFFLINE=1 or PICTURA_OFFLINE=1, and where Kaggle cannot be reached, the newest version in the
    cache is used. PresetError where Kaggle has no such model, ProviderError where it does not answer.
    """
    owner, model, framework, variation, version = parse(handle)
    base = f"{owner}/{model}/{framework}/{variation}"
    store = cache() / base
    known = _newest(store) if version is None else version if _done(store / str(version)) else None
    if known is not None and (version is not None or _offline()):
        return Place(handle=f"kaggle://{base}/{known}", folder=store / str(known))
    if _offline():
        raise PresetError(f"{handle} is not in the cache and Pictura is offline; unset PICTURA_OFFLINE once")
    try:
        with _client() as client:
            number = version if version is not None else _current(client, base, handle)
            if not _done(store / str(number)):
                _fill(client, f"{base}/{number}", store / str(number), handle)
    except ProviderError:
        if known is None:
            raise
        number = known
    return Place(handle=f"kaggle://{base}/{number}", folder=store / str(number))


def cache() -> Path:
    """Where downloads are kept: owner/model/framework/variation/version."""
    import platformdirs

    own = os.environ.get("PICTURA_CACHE")
    return (Path(own) if own else platformdirs.user_cache_path("pictura")) / "kaggle"


def _offline() -> bool:
    return any(os.environ.get(name, "").lower() in ("1", "true", "yes", "on")
               for name in ("PICTURA_OFFLINE", "HF_HUB_OFFLINE"))  # fmt: skip


def _newest(store: Path) -> int | None:
    return max(
        (int(path.name) for path in store.glob("*") if path.name.isdigit() and _done(path)), default=None
    )


def _done(folder: Path) -> bool:
    """Whether every file of a version has been fetched."""
    return (folder / _DONE).exists()


@contextmanager
def _client() -> Iterator[httpx2.Client]:
    import httpx2

    token = os.environ.get("KAGGLE_API_TOKEN")
    user, key = os.environ.get("KAGGLE_USERNAME"), os.environ.get("KAGGLE_KEY")
    endpoint = os.environ.get("KAGGLE_API_ENDPOINT", "https://www.kaggle.com").rstrip("/")
    with httpx2.Client(
        base_url=f"{endpoint}/api/v1/",
        auth=httpx2.BasicAuth(user, key) if user and key and not token else None,
        headers={"Authorization": f"Bearer {token}"} if token else {},
        follow_redirects=True,
        timeout=60,
    ) as client:
        yield client


def _current(client: httpx2.Client, base: str, handle: str) -> int:
    number = _json(client, f"models/{base}/get", handle).get("versionNumber")
    if type(number) is not int or number < 1:
        raise ProviderError(f"Kaggle named no version of {handle}; try again later")
    return number


def _fill(client: httpx2.Client, base: str, folder: Path, handle: str) -> None:
    """Every wanted file of a version, each whole or not at all; then the mark that none is missing."""
    from pictura.picture.files import atomic

    for name in _files(client, base, handle):
        target = folder / name
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with _answer(client, f"models/{base}/download/{quote(name)}", handle) as answer:
            with atomic(target, overwrite=True) as file:
                for chunk in answer.iter_bytes(2**20):
                    file.write(chunk)
    (folder / _DONE).touch()


def _files(client: httpx2.Client, base: str, handle: str) -> list[str]:
    found: list[str] = []
    page: str | None = ""
    while page is not None:
        query = f"?page_size={_PAGE}" + (f"&page_token={quote(page)}" if page else "")
        answer = _json(client, f"models/{base}/files{query}", handle)
        for entry in answer.get("files") or ():
            name = entry.get("name") if isinstance(entry, dict) else None
            if not isinstance(name, str) or not _NAME.fullmatch(name) or ".." in name.split("/"):
                raise ProviderError(f"{handle} has a file called {shown(name)}, which Pictura does not write")
            if name.endswith(_WANTED):
                found.append(name)
        page = answer.get("nextPageToken") or None
    if not found:
        raise PresetError(f"{handle} holds no file that Pictura reads; choose another variation")
    return found


def _json(client: httpx2.Client, path: str, handle: str) -> dict[str, Any]:
    with _answer(client, path, handle) as answer:
        try:
            value = answer.read() and answer.json()
        except ValueError:
            value = None
    if not isinstance(value, dict):
        raise ProviderError(f"Kaggle answered {handle} with something that is not JSON; try again later")
    return value


@contextmanager
def _answer(client: httpx2.Client, path: str, handle: str) -> Iterator[httpx2.Response]:
    import httpx2

    try:
        with client.stream("GET", path) as answer:
            if answer.status_code == 404:
                raise PresetError(f"Kaggle has no {handle}; check its owner, model, framework and variation")
            if answer.status_code in (401, 403):
                raise PresetError(
                    f"{handle} wants you to accept its terms; do so on its page and set KAGGLE_API_TOKEN"
                )
            if answer.status_code != 200:
                raise ProviderError(
                    f"{handle} could not be fetched (status {answer.status_code}); try again later"
                )
            yield answer
    except (httpx2.HTTPError, OSError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ProviderError(f"{handle} could not be fetched ({reason}); try again later") from error
