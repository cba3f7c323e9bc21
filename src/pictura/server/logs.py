"""What the server writes while it runs: a line for each request and event, for people or as JSON.

A line has the id of the request it belongs to, which the answer carries as X-Request-Id. Prompts, bodies,
queries and keys are never written.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from contextvars import ContextVar
from typing import Any

__all__ = ["FORMATS", "install", "request_id"]

FORMATS = ("auto", "text", "json")
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


def install(format: str = "auto", *, process: str = "api") -> None:
    """Write all log lines of this process to standard error; `auto`: text on a terminal, JSON elsewhere."""
    if format == "auto":
        format = "text" if sys.stderr.isatty() else "json"
    handler = logging.StreamHandler()
    handler.setFormatter(_Json(process) if format == "json" else _Text(process))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in ("pictura", "__main__"):  # a worker is a module that is run
        logging.getLogger(name).setLevel(logging.INFO)


class _Json(logging.Formatter):
    """One object a line; what is no text of ours is escaped."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        said: dict[str, Any] = {
            "time": _time(record.created, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (id := request_id.get()) is not None:
            said["request"] = id
        said |= getattr(record, "fields", {})
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)
        return json.dumps(said, default=str)


class _Text(logging.Formatter):
    """For people: the time, the level where it is worth a look, and the words."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = "" if process == "api" else f"{process}: "

    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        fields = getattr(record, "fields", None)
        text = record.getMessage() if fields is None else _request(fields)
        text = text.encode("ascii", "backslashreplace").decode() if not text.isprintable() else text
        said = f"{_time(record.created, '%H:%M:%S')} {self._process}{level}{text}"
        return f"{said}\n{self.formatException(record.exc_info)}" if record.exc_info else said


def _request(fields: dict[str, Any]) -> str:
    return "{method} {path!r} {status} {ms:.1f} ms {request}".format_map(fields)


def _time(seconds: float, format: str) -> str:
    return time.strftime(format, time.gmtime(seconds))
