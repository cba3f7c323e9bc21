"""What a server was told when it was started."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pictura import presets
from pictura.errors import ParameterError, shown
from pictura.server.keys import Key

__all__ = ["DEFAULT_MODEL", "Limits", "Settings"]

DEFAULT_MODEL = "scenes"
_ORIGIN = re.compile(r"https?://[a-z0-9.\[\]:-]+")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one caller may ask for. work: pixels x steps of a picture; queue: tasks that wait.

    requests, pictures: of each key in a minute, where its line in the file of keys says nothing else.
    """

    body: int = 32 << 20  # bytes
    slow: float = 60.0  # seconds that a body may take to come
    head: float = 10.0  # seconds that the head of a request may take
    connections: int = 1000
    listeners: int = 256  # streams of events
    prompt: int = 10_000  # characters
    images: int = 100  # of a job
    work: int = 2048 * 2048 * 250
    queue: int = 1000
    wait: float = 600.0  # seconds that an answer is waited for by formats that know no jobs
    requests: int | None = None
    pictures: int | None = None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """models: what is offered beside the named presets, by name; the first is the default.

    url, folder: of the history. memory: bytes that workers may take together, None for 70 % of the machine's.
    keys: none on loopback only. cors: origins whose pages may ask too. grace: seconds that unfinished
    pictures are given at the end. log: text, json or auto.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    models: Mapping[str, str] = field(default_factory=lambda: {DEFAULT_MODEL: DEFAULT_MODEL})
    url: str | None = None
    folder: Path | None = None
    keys: tuple[Key, ...] = ()
    cors: tuple[str, ...] = ()
    workers: int = 1  # of each model
    engine: str = "local"
    address: str | None = None  # of a Ray cluster
    memory: int | None = None
    grace: float = 10.0
    loras: Path | None = None
    adapters: Path | None = None
    log: str = "auto"
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        if self.engine not in ("local", "ray"):
            raise ParameterError(f"engine is {shown(self.engine)}; give local or ray", parameter="engine")
        if not self.models:
            raise ParameterError("there is no model; give one at least", parameter="model")
        if self.engine == "local":  # the machines of a cluster may have others
            for place in self.models.values():
                presets.check(place)
        for name, offered in (("loras", self.loras), ("adapters", self.adapters)):
            if offered is not None and not offered.is_dir():
                raise ParameterError(f"{name} is {shown(str(offered))}, which is no folder", parameter=name)
        if not self.keys and not self.loopback:
            raise ParameterError(
                f"host {shown(self.host)} is for others too; set PICTURA_API_KEY or --api-key-file first",
                parameter="host",
            )
        names = [key.name for key in self.keys]
        for name in names:
            if names.count(name) > 1:
                raise ParameterError(f"two API keys are called {shown(name)}; rename one", parameter="keys")
        for origin in self.cors:
            if origin == "*" or not _ORIGIN.fullmatch(origin):
                raise ParameterError(
                    f"cors is {shown(origin)}; give an origin such as https://studio.example",
                    parameter="cors",
                )
        if self.log not in ("auto", "text", "json"):
            raise ParameterError(f"log is {shown(self.log)}; give auto, text or json", parameter="log")

    @property
    def default(self) -> str:
        """The model of requests that name none."""
        return next(iter(self.models))

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
