"""The tree of errors. Each message is one sentence: what was given, what is possible, what to do.

PicturaError                 exit 1    HTTP 500
+-- InputError               exit 2    HTTP 400    what the caller gave cannot be used
|   +-- ParameterError                             one named parameter
|   +-- PresetError                                a preset that is unknown or of another family
|   +-- FileError                                  a file that is missing, in the way or not readable
|   +-- NotFound                         HTTP 404  a picture or job that the history does not have
+-- CheckpointError          exit 1    HTTP 500    weights that do not fit their network
+-- ProviderError            exit 1    HTTP 502    a remote model refused or did not answer
+-- EngineError              exit 1    HTTP 500    a picture failed while it was made
|   +-- OutOfMemory          exit 1    HTTP 503
+-- TrainingError            exit 1    HTTP 500
+-- Cancelled                exit 130  HTTP 499    someone asked to stop
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = [
    "Cancelled",
    "CheckpointError",
    "EngineError",
    "FileError",
    "InputError",
    "NotFound",
    "OutOfMemory",
    "ParameterError",
    "PicturaError",
    "PresetError",
    "ProviderError",
    "TrainingError",
    "did_you_mean",
    "shown",
]

_MANY = 40  # choices listed in full up to this number


class PicturaError(Exception):
    """Base of everything Pictura raises on purpose.

    pictures: those that were made all the same, where `generate` was to make several.
    """

    exit_code = 1
    http_status = 500
    pictures: Sequence[Any] = ()


class InputError(PicturaError):
    """What the caller gave cannot be used."""

    exit_code = 2
    http_status = 400


class ParameterError(InputError):
    """`parameter` is the name of what was wrong, as Python and the command line spell it."""

    def __init__(self, message: str, *, parameter: str) -> None:
        super().__init__(message)
        self.parameter = parameter

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions travel between processes; the default recipe would drop the keyword argument.
        return _parameter_error, (str(self), self.parameter)


class PresetError(InputError):
    """A preset that is unknown, unsound or of another family."""


class FileError(InputError):
    """A file or folder that is missing, in the way or not readable."""


class NotFound(InputError):
    """A picture or job that the history does not have."""

    http_status = 404


class CheckpointError(PicturaError):
    """Weights that do not fit their network, or a file of weights that is not sound."""


class OtherModel(CheckpointError):
    """A LoRA or adapter that a request names is for another model than the request's."""

    http_status = 422


class ProviderError(PicturaError):
    """A remote model refused or did not answer.

    status: of the HTTP answer, None where there was none. again: whether the same call may succeed later.
    """

    http_status = 502

    def __init__(self, message: str, *, status: int | None = None, again: bool = True) -> None:
        super().__init__(message)
        self.status, self.again = status, again


class EngineError(PicturaError):
    """A picture failed while it was made; its neighbours did not."""


class NotNumbers(EngineError):
    """What a picture was made of overflowed: too much guidance, or too coarse a precision."""

    http_status = 422


class OutOfMemory(EngineError):
    """Even a single picture does not fit into memory."""

    http_status = 503


class TrainingError(PicturaError):
    """Training cannot begin or go on."""


class Cancelled(PicturaError):
    """Someone asked to stop."""

    exit_code = 130
    http_status = 499


def _parameter_error(message: str, parameter: str) -> ParameterError:
    return ParameterError(message, parameter=parameter)


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """The end of a sentence about an unknown `name`: the nearest of `choices` and then all of them.

    >>> f"sampler 'heum' is unknown; {did_you_mean('heum', ['ddim', 'heun'])}"
    "sampler 'heum' is unknown; did you mean 'heun'? (ddim, heun)"
    """
    names = sorted(choices)
    if not names:
        return "there are none to choose from"
    listed = ", ".join(names[:_MANY]) + (", ..." if len(names) > _MANY else "")
    lower = {known.lower(): known for known in names}
    near = difflib.get_close_matches(name[:200].lower(), lower, n=1)
    return f"did you mean {lower[near[0]]!r}? ({listed})" if near else f"choose one of: {listed}"


def shown(value: object, limit: int = 60) -> str:
    """`value` as it may stand in a message: its repr on one line, cut to `limit` characters.

    Safe for whatever a caller gave: surrogates and control characters come out escaped.
    """
    try:
        text = repr(value[: limit + 1] if isinstance(value, (str, bytes)) else value)
    except Exception:  # a caller's own __repr__ must not replace our message
        text = f"<{type(value).__name__}>"
    text = " ".join(text.encode("utf-8", "backslashreplace").decode().split())
    return text if len(text) <= limit else text[: limit - 3] + "..."
