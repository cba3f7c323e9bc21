"""Workers as actors of a Ray cluster: the same workers, on whatever machines there are.

Ray places them and says when they are dead; jobs, leases and fences are in the database as ever. So the
database must be one that all machines reach (PostgreSQL), and the folder of pictures one that all see. So
must `PICTURA_CACHE` be where people send pictures, which lie there.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from pictura.errors import EngineError, FileError, InputError, PicturaError
from pictura.server.processes import Hand

__all__ = ["Actors"]


class Actor:
    """What runs on a node: one worker. `run` lasts as long as it does; `stop` comes in beside it."""

    def __init__(self) -> None:
        self._stopped = threading.Event()

    def run(
        self, id: str, name: str, place: str, url: str, folder: str, token: str, grace: float, cache: str
    ) -> str:
        """Why the model could not be loaded; "" after an orderly end. cache: the server's, or ""."""
        os.environ["PICTURA_HISTORY"] = "off"  # it keeps its pictures itself
        if cache:
            os.environ["PICTURA_CACHE"] = cache
        if not (Path(folder) / token).is_file():
            raise FileError(
                f"the folder {folder!r} on {os.uname().nodename} is not the server's; share it with all nodes"
            )
        from pictura.history import History
        from pictura.server import worker

        with History(url, folder) as history:
            try:
                worker.serve(name, place, history, id=id, stopped=self._stopped, grace=grace)
            except PicturaError as error:
                return str(error)
        return ""

    def stop(self) -> None:
        """End in an orderly way."""
        self._stopped.set()


class Actors:
    """A worker is an actor that reserves a processor, or a GPU where the cluster has any."""

    def __init__(self, *, address: str | None, url: str | None, folder: Path, grace: float) -> None:
        if url is None or not url.startswith("postgres"):
            raise InputError("--engine ray needs --database postgresql://..., which all machines can reach")
        try:
            import ray
        except ModuleNotFoundError:
            raise InputError("Ray is not installed; pip install 'pictura[ray]'") from None
        self._ray: Any = ray
        folder.mkdir(parents=True, exist_ok=True)
        self._token = f".cluster-{secrets.token_hex(8)}"
        (folder / self._token).touch()
        self._folder, self._url, self._grace = folder, url, grace
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, namespace="pictura")
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise EngineError(f"the Ray cluster {address!r} cannot be reached: {error}") from error

    def start(self, id: str, name: str, place: str) -> Hand:
        gpus = 1 if self._ray.cluster_resources().get("GPU") else 0
        made = self._ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=0, max_concurrency=2)(Actor).remote()
        cache = os.environ.get("PICTURA_CACHE", "")
        arguments = (id, name, place, self._url, str(self._folder), self._token, self._grace, cache)
        return _Actor(self._ray, made, made.run.remote(*arguments))

    def close(self) -> None:
        with suppress(OSError):
            (self._folder / self._token).unlink()
        self._ray.shutdown()


class _Actor:
    def __init__(self, ray: Any, actor: Any, ending: Any) -> None:
        self._ray, self._actor, self._ending = ray, actor, ending
        self.error: str | None = None

    @property
    def alive(self) -> bool:
        if not self._ray.wait([self._ending], timeout=0)[0]:
            return True
        try:
            self.error = self._ray.get(self._ending) or None
        except self._ray.exceptions.RayTaskError as error:  # of ours, raised over there
            self.error = str(error.cause or error)
        except self._ray.exceptions.RayError:  # the actor or its node is dead
            self.error = None
        return False

    def retire(self) -> None:
        self._actor.stop.remote()

    def kill(self) -> None:
        self._ray.kill(self._actor)
