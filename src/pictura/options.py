"""Parameters beyond the common ones, as families and providers declare them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pictura.attachments import Kind

__all__ = ["Option"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A parameter beyond the common ones: command line, server and web page build their forms from it.

    default: recorded in every request, so that a later version replays it; None where there is nothing to
    record. Lists and mappings hold JSON values. attach: whether it is, or holds, pictures or files, which
    requests record by content (see `pictura.attachments`).
    """

    name: str
    type: type[bool] | type[int] | type[float] | type[str] | type[list[Any]] | type[dict[str, Any]]
    default: bool | int | float | str | None
    help: str
    choices: tuple[str, ...] = ()
    attach: Kind | None = None
